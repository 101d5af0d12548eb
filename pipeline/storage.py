"""Local folders and s3:// prefixes through one object; every write is atomic.

In: a root (local path or s3://bucket/prefix) and paths relative to it. Out: bytes. Never leaves a
partial file under a final name: locally a temporary sibling is fsynced and renamed; on S3 an object
appears only when its upload completes.

Retries are those of Arrow's S3 client: it tries each request S3_ATTEMPTS times on 5xx,
SlowDown, timeouts, refused or dropped connections and answers that break off, with exponential back-off
and jitter (at most 20 s between two), and gives up at once on 403 and 404. A loop around whole calls
would multiply the two, and start a multipart upload over for one lost part. One fault it does not try
again: a 5xx whose text is longer than the few bytes that were asked for; such reads `_read` tries again.
"""

import hashlib
import io
import os
import random
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline import tars
from pipeline.errors import StorageError

T = TypeVar("T")

TEMP_PREFIX = ".tmp-"  # unfinished writes; listed never, swept by `sweep_temporary`
S3_ATTEMPTS = 10  # a request; about a minute of back-off in all, and 5 % failing requests never get there
S3_SILENCE_S = 30.0  # an attempt without a byte for so long has failed; the default 3 s suits an idle store
STAT_THREADS = 16
HEADER_BUFFER_BYTES = 1 << 16  # one S3 request for a tar header and the small member after it
COPY_BYTES = 1 << 23


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_remote(uri: str) -> bool:
    return uri.startswith("s3://")


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The Arrow filesystem of a uri and the path inside it. S3 settings come from the environment
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …)."""
    if is_remote(uri):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        return _s3(endpoint), uri.removeprefix("s3://").rstrip("/")
    if "://" in uri:
        raise StorageError(f"cannot read {uri}", expected="a local path or s3://", fix="download it first")
    return pafs.LocalFileSystem(), os.path.abspath(uri)


@cache
def _s3(endpoint: str) -> pafs.FileSystem:
    """One client a process and endpoint: its connections are kept open."""
    scheme, _, host = endpoint.rpartition("://")
    return pafs.S3FileSystem(
        endpoint_override=host or None,
        scheme=scheme or "https",
        allow_delayed_open=True,  # an object below 5 MiB is one request, a larger one a multipart upload
        request_timeout=S3_SILENCE_S,  # heeded on Linux too, whatever Arrow's documentation says
        connect_timeout=S3_SILENCE_S / 3,
        retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS),
    )


def _storage_error(action: str, uri: str, error: OSError) -> StorageError:
    """What failed in words, and what helps: a permission and a missing file do not pass, a fault may."""
    text = str(error)
    if isinstance(error, FileNotFoundError):
        return StorageError(f"cannot {action} {uri}: no such file")
    if isinstance(error, PermissionError) or re.search(r"ACCESS_DENIED|HTTP status 403|INVALID_ACCESS", text):
        return StorageError(f"cannot {action} {uri}: access denied", fix="check permissions or AWS_* keys")
    if is_remote(uri) and re.search(r"HTTP status 5\d\d|SLOW_DOWN|INTERNAL_FAILURE|NETWORK_CONN|curl", text):
        return StorageError(
            f"cannot {action} {uri}: {S3_ATTEMPTS} attempts failed, the last with {text}",
            fix="run the command again; it goes on from here",
        )
    return StorageError(f"cannot {action} {uri}: {text}", fix="check space and permissions")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """One listed file: `uri` as a user would write it, size in bytes, modification time in ns."""

    uri: str
    size_bytes: int
    mtime_ns: int


class Storage:
    """Files below one root. Picklable: the Arrow filesystem is opened again in each process."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"
        self._fs, self._base = _filesystem(root)

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return (Storage, (self.root,))

    def _path(self, rel: str) -> str:
        return f"{self._base}/{rel}" if rel else self._base

    def exists(self, rel: str) -> bool:
        with _errors("look for", f"{self.root}/{rel}"):
            return self._fs.get_file_info(self._path(rel)).type == pafs.FileType.File

    def read_bytes(self, rel: str, *, offset: int = 0, nbytes: int | None = None) -> bytes:
        """The whole file, or `nbytes` from `offset`."""

        def read(stream: pa.NativeFile) -> bytes:
            return stream.read() if nbytes is None else stream.read_at(nbytes, offset)

        return self._read(rel, read)

    def _read(self, rel: str, read: Callable[[pa.NativeFile], T]) -> T:
        attempt = 0
        while True:
            attempt += 1
            try:
                with (
                    _errors("read", f"{self.root}/{rel}"),
                    self._fs.open_input_file(self._path(rel)) as stream,
                ):
                    return read(stream)
            except StorageError as error:
                if "flush response stream" not in str(error) or attempt == S3_ATTEMPTS:
                    raise
                time.sleep(min(20.0, random.uniform(0.5, 1.0) * 0.05 * 2**attempt))

    def members(self, rel: str) -> list[tars.Member]:
        """The files inside the tar at `rel`, from its headers."""
        found, problem = tar_members(f"{self.root}/{rel}")
        if problem:
            raise StorageError(f"cannot read {self.root}/{rel}: {problem}")
        return found

    def read_columns(self, rel: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a Parquet file; the bytes of the others are not read."""
        return self._read(rel, lambda stream: pq.read_table(stream, columns=list(columns)))

    def column_names(self, rel: str) -> list[str]:
        """The columns of a Parquet file."""
        return self._read(rel, lambda stream: pq.read_schema(stream).names)

    def write_bytes(self, rel: str, data: bytes | memoryview) -> None:
        """Commits `data` under `rel`: all of it or nothing."""
        path = self._path(rel)
        with _errors("write", f"{self.root}/{rel}"):
            if isinstance(self._fs, pafs.LocalFileSystem):
                _commit_local(Path(path), data)
            else:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(data)

    def delete(self, rel: str) -> None:
        if self.exists(rel):
            with _errors("delete", f"{self.root}/{rel}"):
                self._fs.delete_file(self._path(rel))

    def list(self, rel: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly below `rel`, sorted; temporary files are not listed."""
        selector = pafs.FileSelector(self._path(rel), recursive=False, allow_not_found=True)
        with _errors("list", f"{self.root}/{rel}"):
            infos = self._fs.get_file_info(selector)
        names = (info.base_name for info in infos if info.type == pafs.FileType.File)
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith(TEMP_PREFIX))

    def walk(self) -> Iterator[FileInfo]:
        """Every file below the root, in path order, hidden files and folders left out."""
        return (_file_info(info, remote=is_remote(self.root)) for _, info in self._files())

    def dangling(self) -> Sequence[str]:
        """Local links below the root whose target is gone, which `walk` does not see."""
        if is_remote(self.root):
            return []
        paths = (os.path.join(at, name) for at, _, names in os.walk(self._base) for name in names)
        return sorted(path for path in paths if os.path.islink(path) and not os.path.exists(path))

    def find(self, suffix: str) -> tuple[str, ...]:
        """Paths, relative to the root, of the files that `walk` finds and that end so."""
        return tuple(rel for rel, _ in self._files() if rel.endswith(suffix))

    def _files(self) -> Iterator[tuple[str, pafs.FileInfo]]:
        selector = pafs.FileSelector(self._base, recursive=True, allow_not_found=True)
        with _errors("list", self.root):
            infos = self._fs.get_file_info(selector)
        for info in sorted((i for i in infos if i.type == pafs.FileType.File), key=lambda i: i.path):
            rel = info.path.removeprefix(self._base).lstrip("/")
            if not any(part.startswith(".") for part in rel.split("/")):
                yield rel, info

    def sweep_temporary(self) -> int:
        """Deletes what a killed writer left behind; call it only while nothing else writes here."""
        if not isinstance(self._fs, pafs.LocalFileSystem):
            return 0
        left = list(Path(self._base).rglob(f"{TEMP_PREFIX}*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


@contextmanager
def _errors(action: str, uri: str) -> Iterator[None]:
    """Turns an OSError into a StorageError that names the action and the place."""
    try:
        yield
    except OSError as error:
        raise _storage_error(action, uri, error) from error


def stat(uri: str) -> FileInfo | None:
    """The file at `uri`, or None when there is no file."""
    fs, path = _filesystem(uri)
    with _errors("look for", uri):
        info = fs.get_file_info(path)
    return _file_info(info, remote=is_remote(uri)) if info.type == pafs.FileType.File else None


def stat_each(uris: Sequence[str]) -> list[FileInfo | None]:
    """`stat` of each, None also where one cannot be looked for; remote ones many at a time."""

    def look(uri: str) -> FileInfo | None:
        try:
            return stat(uri)
        except StorageError:  # whoever reads it will say why
            return None

    if not any(is_remote(uri) for uri in uris):
        return [look(uri) for uri in uris]
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        return list(pool.map(look, uris))


def read_uri(uri: str) -> bytes:
    """The bytes of the file at `uri`."""
    folder, name = os.path.split(uri)
    return Storage(folder or ".").read_bytes(name)


def _file_info(info: pafs.FileInfo, *, remote: bool) -> FileInfo:
    uri = f"s3://{info.path}" if remote else info.path
    return FileInfo(uri=uri, size_bytes=int(info.size), mtime_ns=int(info.mtime_ns or 0))


def tar_members(uri: str) -> tuple[list[tars.Member], str]:
    """The files inside a tar, and what is wrong with it ("" = nothing): see tars.scan."""
    info = stat(uri)
    if info is None:
        raise StorageError(f"cannot read {uri}: no such file")
    return _scanned(uri, info.size_bytes, info.mtime_ns)


@lru_cache(maxsize=64)
def _scanned(uri: str, size_bytes: int, mtime_ns: int) -> tuple[list[tars.Member], str]:
    """Size and time are in the key only: a tar that changed is scanned again."""
    with open_range(uri) as stream:
        return tars.scan(stream, size_bytes)


@contextmanager
def open_range(uri: str) -> Iterator[IO[bytes]]:
    """The file at `uri` as a seekable stream."""
    fs, path = _filesystem(uri)
    with _errors("read", uri), fs.open_input_file(path) as stream:
        yield io.BufferedReader(stream, HEADER_BUFFER_BYTES)


@contextmanager
def local_path(uri: str) -> Iterator[Path]:
    """A local file with the contents of `uri`, for decoders. What lies on S3 or inside a tar is copied,
    alone, to a temporary file of the same suffix."""
    member = None if os.path.isfile(uri) else tars.split_member(uri)
    if member is None and not is_remote(uri) and "://" not in uri:
        if not os.path.isfile(uri):
            raise StorageError("no such file")
        if uri.endswith(".tar"):
            raise StorageError(f"not a whole tar of media: {tar_members(uri)[1] or 'no media in it'}")
        yield Path(uri)
        return
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
    with _errors("read", uri):
        try:
            pafs.copy_files(path, str(target), source_filesystem=fs, destination_filesystem=local)
        except FileNotFoundError as error:
            raise StorageError("no such file") from error


def _copy_member(tar: str, name: str, target: Path) -> None:
    found = {member.name: member for member in tar_members(tar)[0]}
    if name not in found:
        raise StorageError(f"cannot read {tar}#{name}: no such member")
    with open_range(tar) as stream, open(target, "wb") as out:
        stream.seek(found[name].offset)
        left = found[name].nbytes
        while left and (data := stream.read(min(left, COPY_BYTES))):
            out.write(data)
            left -= len(data)


def _commit_local(path: Path, data: bytes | memoryview) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f"{TEMP_PREFIX}{secrets.token_hex(8)}-{path.name}"
    try:
        with open(temporary, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
