"""Single files at a uri: a local path, `s3://…`, or a member of a tar.

In: a uri as a user writes it. Out: its size and time, bytes, a stream, or a local copy for decoders.
"""

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import pyarrow.fs as pafs

from pipeline import tars
from pipeline.errors import FramemillError, MediaError, StorageError, is_environment
from pipeline.names import FileInfo
from pipeline.storage import (
    Storage,
    _file_info,
    _filesystem,
    _storage_error,
    is_remote,
    storage_errors,
    tried_again,
)

T = TypeVar("T")

STAT_THREADS = 16
HEADER_BUFFER_BYTES = 1 << 16  # one S3 request for a tar header and the small member after it
COPY_BYTES = 1 << 23
NO_FILE = "no such file"


def stat(uri: str) -> FileInfo | None:
    """The file at `uri`, or None when there is no file."""
    info = _look(uri)
    return _file_info(info, remote=is_remote(uri)) if info.type == pafs.FileType.File else None


def is_folder(uri: str) -> bool:
    """Whether there is a folder, or an s3:// prefix with something below it, at `uri`."""
    return _look(uri).type == pafs.FileType.Directory


def _look(uri: str) -> pafs.FileInfo:
    fs, path = _filesystem(uri)
    try:
        with storage_errors("look for", uri):
            return fs.get_file_info(path)
    except ValueError as error:  # pa.ArrowInvalid: an s3:// name with `//`, or without a bucket
        raise StorageError(f"cannot look for {uri}: {error}", expected="s3://bucket/key") from error


def stat_each(uris: Sequence[str]) -> list[FileInfo | None]:
    """`stat` of each, None also where a name cannot be a file's or this user may not look; remote
    ones many at a time.

    Raises:
        StorageError: a store refuses or does not answer, which says nothing of the file: taken for missing,
            a whole list would be other sources for as long as the credentials are expired.
    """

    def look(uri: str) -> FileInfo | None:
        try:
            fs, path = _filesystem(uri)
        except StorageError:  # no place of that name; whoever reads it will say why
            return None
        try:
            with source_errors(uri):
                info = fs.get_file_info(path)
        except (MediaError, ValueError):  # pa.ArrowInvalid is a ValueError
            return None
        return _file_info(info, remote=is_remote(uri)) if info.type == pafs.FileType.File else None

    if not any(is_remote(uri) for uri in uris):
        return [look(uri) for uri in uris]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(look, uris))


def read_uri(uri: str) -> bytes:
    """The bytes of the file at `uri`."""
    folder, name = os.path.split(uri)
    return Storage(folder or ".").read_bytes(name)


def tar_members(uri: str) -> tuple[Sequence[tars.Member], str]:
    """The files inside a tar, and what is wrong with it ("" = nothing): see tars.scan."""
    contents = tar_contents(uri)
    return contents.members, contents.problem


def tar_contents(uri: str) -> tars.Contents:
    """All that a scan of the tar tells; one that this user may not read has that problem."""
    info = stat(uri)
    if info is None:
        raise StorageError(f"cannot read {uri}: no such file")
    try:
        return _scanned(uri, info.size_bytes, info.mtime_ns)
    except MediaError as error:
        return tars.Contents(members=(), problem=error.what)


def tar_member(uri: str, name: str) -> tars.Member | None:
    """One file inside a tar, None where there is no such tar or no such file in it."""
    info = stat(uri)
    return _by_name(uri, info.size_bytes, info.mtime_ns).get(name) if info else None


@lru_cache(maxsize=64)
def _by_name(uri: str, size_bytes: int, mtime_ns: int) -> dict[str, tars.Member]:
    return {member.name: member for member in _scanned(uri, size_bytes, mtime_ns).members}


@lru_cache(maxsize=64)
def _scanned(uri: str, size_bytes: int, mtime_ns: int) -> tars.Contents:
    """Size and time are in the key only: a tar that changed is scanned again."""
    return read_range(uri, lambda stream: tars.scan(stream, size_bytes))


def read_range(uri: str, read: Callable[[IO[bytes]], T]) -> T:
    """What `read` gives of the file at `uri`, a seekable stream: it is called anew after a fault of S3 that
    Arrow does not try again.

    Raises:
        MediaError: it is missing or this user may not read it.
        StorageError: the store does not give it.
    """
    fs, path = _filesystem(uri)

    def opened_and_read() -> T:
        with source_errors(uri), fs.open_input_file(path) as stream:
            return read(io.BufferedReader(stream, HEADER_BUFFER_BYTES))

    return tried_again(opened_and_read)


@contextmanager
def local_path(uri: str) -> Iterator[Path]:
    """A local file with the contents of `uri`, for decoders. What lies on S3 or inside a tar is copied,
    alone, to a temporary file of the same suffix. Whoever has rows of the file asks for it by
    `pipeline.sources.content.open_content`, which proves that it is still the same.

    Raises:
        MediaError: it is missing or this user may not read it: the fault of this one item.
        StorageError: the store does not give it, or there is no space for the copy.
    """
    member = None if os.path.isfile(uri) else tars.split_member(uri)
    if member is None and not is_remote(uri) and "://" not in uri:
        if not os.path.isfile(uri):
            raise MediaError(NO_FILE)
        if uri.lower().endswith(".tar"):
            raise MediaError(f"not a whole tar of media: {tar_members(uri)[1] or 'no media in it'}")
        yield Path(uri)
        return
    if member is None and not is_remote(uri):
        raise MediaError(f"cannot read {uri}", expected="a local path or s3://", fix="download it first")
    with tempfile.TemporaryDirectory(prefix="framemill-") as folder:
        target = Path(folder) / f"source{PurePosixPath(uri).suffix}"
        if member is not None:
            _copy_member(*member, target)
        else:
            _copy_remote(uri, target)
        yield target


def _copy_remote(uri: str, target: Path) -> None:
    fs, path = _filesystem(uri)
    local = pafs.LocalFileSystem()

    def copy() -> None:
        with source_errors(uri):
            pafs.copy_files(path, str(target), source_filesystem=fs, destination_filesystem=local)

    tried_again(copy)


def _copy_member(tar: str, name: str, target: Path) -> None:
    member = tar_member(tar, name)
    if member is None:
        raise MediaError(f"{NO_FILE} in {tar}")

    def copy(stream: IO[bytes]) -> None:
        stream.seek(member.offset)
        left = member.nbytes
        with open(target, "wb") as out:
            while left and (data := stream.read(min(left, COPY_BYTES))):
                out.write(data)
                left -= len(data)
        if left:
            raise MediaError(f"cut off inside {name}")

    read_range(tar, copy)


@contextmanager
def source_errors(uri: str) -> Iterator[None]:
    """As `storage_errors("read", uri)`, of a file that is an item: one that is missing, or that this user may
    not read, is a MediaError. What a store refuses is not the item's fault: credentials expire."""
    try:
        yield
    except OSError as error:
        raise _source_error(uri, error) from error


def _source_error(uri: str, error: OSError) -> FramemillError:
    if isinstance(error, FileNotFoundError):
        return MediaError("no such file")
    if is_remote(uri) or is_environment(error):
        return _storage_error("read", uri, error)
    return MediaError(f"cannot be read: {error.strerror or error}")
