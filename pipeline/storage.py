"""Local folders and s3:// prefixes through one object; every write is atomic.

In: a root (local path or s3://bucket/prefix) and paths relative to it. Out: bytes. Never leaves a
partial file under a final name: locally a temporary sibling is fsynced and renamed; on S3 an object
appears only when its upload completes.

Retries are those of Arrow's S3 client: it tries each request S3_ATTEMPTS times on 5xx,
SlowDown, timeouts, refused or dropped connections and answers that break off, with exponential back-off
and jitter (at most 20 s between two), and gives up at once on 403 and 404. A loop around whole calls
would multiply the two, and start a multipart upload over for one lost part. One fault it does not try
again: a 5xx whose text is longer than the few bytes that were asked for; such reads `read_with` tries again.
"""

import hashlib
import os
import random
import re
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from pipeline.errors import StorageError
from pipeline.names import FileInfo, Tree, is_nameable, readable, walk
from pipeline.s3 import REFUSED, delete_objects, endpoint, refusal, upload

T = TypeVar("T")
V = TypeVar("V")
Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """`nbytes` bytes that are made while they are written."""

    nbytes: int
    pieces: Callable[[], Iterator[Buffer]]

    def __len__(self) -> int:
        return self.nbytes


TEMP_PREFIX = ".tmp-"  # unfinished writes; listed never, swept by `sweep_temporary`
S3_ATTEMPTS = 10  # a request; about a minute of back-off in all, and 5 % failing requests never get there
# Of the one fault that Arrow's client does not try again there is no type and no code, only this sentence in
# an OSError: AWS's SDK could not write a long error page into the buffer of a short read.
# test_framemill_s3.py meets the fault, so another wording of a later Arrow fails there.
UNTRIED_FAULT = "flush response stream"
READERS = 16  # requests at once: a store that answers slowly answers many
S3_SILENCE_S = 30.0  # an attempt without a byte for so long has failed; the default 3 s suits an idle store


def sha256_hex(data: Buffer) -> str:
    return hashlib.sha256(data).hexdigest()


def is_remote(uri: str) -> bool:
    return uri.startswith("s3://")


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The Arrow filesystem of a uri and the path inside it. S3 settings come from the environment
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …)."""
    if not is_nameable(uri):
        raise StorageError(f"cannot read {readable(uri)}", expected="a name in UTF-8 without NUL")
    if is_remote(uri):
        return _s3(endpoint()), uri.removeprefix("s3://").rstrip("/")
    if "://" in uri:
        raise StorageError(f"cannot read {uri}", expected="a local path or s3://", fix="download it first")
    path = os.path.abspath(uri)
    if not is_nameable(path):
        raise StorageError(f"cannot read {readable(path)}", expected="folders whose names are UTF-8")
    return pafs.LocalFileSystem(), path


@cache
def _s3(url: str) -> pafs.FileSystem:
    """One client a process and endpoint: its connections are kept open."""
    scheme, _, host = url.rpartition("://")
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
    if is_remote(uri) and re.search(REFUSED, text):
        cause, fix = refusal(uri, text)
        return StorageError(f"cannot {action} {uri}: {cause}", fix=fix)
    if isinstance(error, PermissionError) or re.search(r"ACCESS_DENIED|HTTP status 403|INVALID_ACCESS", text):
        return StorageError(f"cannot {action} {uri}: access denied", fix="check permissions or AWS_* keys")
    if is_remote(uri) and re.search(r"HTTP status 5\d\d|SLOW_DOWN|INTERNAL_FAILURE|NETWORK_CONN|curl", text):
        return StorageError(
            f"cannot {action} {uri}: {S3_ATTEMPTS} attempts failed, the last with {text}",
            fix="run the command again; it goes on from here",
        )
    return StorageError(f"cannot {action} {uri}: {text}", fix="check space and permissions")


@contextmanager
def commit(path: Path) -> Iterator[Path]:
    """A temporary sibling of a local `path`, for whoever writes a file itself. What lies there when the block
    ends bears the name `path` from then on; when it fails, nothing does, and the sibling is gone.

    Raises:
        StorageError: the file cannot be put in its place.
    """
    temporary = path.parent / f"{TEMP_PREFIX}{secrets.token_hex(8)}-{path.name}"
    with storage_errors("write", str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb") as stream:
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def commit_bytes(path: Path, data: Buffer | Stream) -> None:
    """Writes `data` to a local `path`: all of it or nothing; StorageError when it cannot be written."""
    with commit(path) as temporary, storage_errors("write", str(path)), open(temporary, "wb") as file:
        file.writelines(data.pieces() if isinstance(data, Stream) else (data,))


def read_parquet(source: pa.NativeFile, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns, read by this thread alone: Arrow's pool may free a buffer of
    Python's while the interpreter ends, which aborts a command after all its work («terminate called
    without an active exception», exit code 134; 8 of 300 commands on a busy machine)."""
    return pq.ParquetFile(source).read(None if columns is None else list(columns), use_threads=False)


class Storage:
    """Files below one root. Picklable: the Arrow filesystem is opened again in each process."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/") or "/"
        self._fs, self._base = _filesystem(root)
        self._writes: Counter[str] = Counter()  # of this object: a store's times may be whole seconds

    def __reduce__(self) -> tuple[type["Storage"], tuple[str]]:
        return (Storage, (self.root,))

    def _path(self, rel: str) -> str:
        return f"{self._base}/{rel}" if rel else self._base

    def exists(self, rel: str) -> bool:
        with storage_errors("look for", f"{self.root}/{rel}"):
            return self._fs.get_file_info(self._path(rel)).type == pafs.FileType.File

    def stamp(self, rel: str) -> tuple[int, int, int]:
        """Changes whenever this object writes the file and, as far as its store tells, when another does:
        (bytes, ns since 1970, writes); -1 bytes where there is none."""
        with storage_errors("look for", f"{self.root}/{rel}"):
            info = self._fs.get_file_info(self._path(rel))
        size_bytes = int(info.size) if info.type == pafs.FileType.File else -1
        return size_bytes, int(info.mtime_ns or 0), self._writes[rel]

    def read_if_there(self, rel: str) -> bytes | None:
        """The whole file, None where there is none: one question fewer than `exists` before `read_bytes`."""
        try:
            return self.read_bytes(rel)
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise

    def each(self, items: Iterable[V], read: Callable[[V], T]) -> Iterator[T]:
        """`read` of every item, in their order, READERS of them at once and a few ahead; every thread has
        ended when this has. On a local disk threads would only wait for each other: one by one there."""
        if not is_remote(self.root):
            yield from map(read, items)
            return
        with ThreadPoolExecutor(READERS) as threads:
            ahead: deque[Future[T]] = deque()
            for item in items:
                ahead.append(threads.submit(read, item))
                if len(ahead) > 2 * READERS:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()

    def read_bytes(self, rel: str, *, offset: int = 0, nbytes: int | None = None) -> bytes:
        """The whole file, or `nbytes` from `offset`."""

        def read(stream: pa.NativeFile) -> bytes:
            return stream.read() if nbytes is None else stream.read_at(nbytes, offset)

        return self.read_with(rel, read)

    def read_with(self, rel: str, read: Callable[[pa.NativeFile], T]) -> T:
        """What `read` makes of the opened file."""

        def opened_and_read() -> T:
            with (
                storage_errors("read", f"{self.root}/{rel}"),
                self._fs.open_input_file(self._path(rel)) as stream,
            ):
                return read(stream)

        return tried_again(opened_and_read)

    def open_file(self, rel: str) -> pa.NativeFile:
        """The file, to read at places; it asks the store for its size once."""
        with storage_errors("read", f"{self.root}/{rel}"):
            return self._fs.open_input_file(self._path(rel))

    def read_columns(self, rel: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a Parquet file; the bytes of the others are not read."""
        return self.read_with(rel, lambda stream: read_parquet(stream, columns))

    def column_names(self, rel: str) -> list[str]:
        """The columns of a Parquet file."""
        return self.read_with(rel, lambda stream: pq.read_schema(stream).names)

    def write_bytes(self, rel: str, data: Buffer | Stream) -> None:
        """Commits `data` under `rel`: all of it or nothing."""
        path = self._path(rel)
        self._writes[rel] += 1
        with storage_errors("write", f"{self.root}/{rel}"):
            if isinstance(self._fs, pafs.LocalFileSystem):
                commit_bytes(Path(path), data)
            elif isinstance(data, Stream):  # Arrow would complete an upload whose source broke off
                bucket, _, key = path.partition("/")
                upload(bucket, key, data.pieces(), attempts=S3_ATTEMPTS, silence_s=S3_SILENCE_S)
            else:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(data)

    def delete(self, rel: str) -> None:
        if self.exists(rel):
            with storage_errors("delete", f"{self.root}/{rel}"):
                self._fs.delete_file(self._path(rel))

    def delete_all(self, rels: Iterable[str]) -> None:
        """Deletes many files; one that is not there is no fault."""
        if is_remote(self.root):
            bucket, _, base = self._base.partition("/")
            keys = [f"{base}/{rel}".lstrip("/") for rel in rels]
            with storage_errors("delete", self.root):
                delete_objects(bucket, keys, attempts=S3_ATTEMPTS, silence_s=S3_SILENCE_S, at_once=READERS)
            return
        for rel in rels:
            with storage_errors("delete", f"{self.root}/{rel}"):
                Path(self._path(rel)).unlink(missing_ok=True)

    def sizes_bytes(self, rel: str = "", suffix: str = "") -> dict[str, int]:
        """Name → size of the files directly below `rel`, sorted; temporary files are not listed."""
        selector = pafs.FileSelector(self._path(rel), recursive=False, allow_not_found=True)
        with storage_errors("list", f"{self.root}/{rel}"):
            infos = self._fs.get_file_info(selector)
        files = {info.base_name: int(info.size) for info in infos if info.type == pafs.FileType.File}
        return {n: files[n] for n in sorted(files) if n.endswith(suffix) and not n.startswith(TEMP_PREFIX)}

    def list(self, rel: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly below `rel`, sorted."""
        return [*self.sizes_bytes(rel, suffix)]

    def unfinished(self, beginning: str) -> Sequence[str]:
        """Names of hidden files directly below the root that begin so."""
        selector = pafs.FileSelector(self._base, recursive=False, allow_not_found=True)
        with storage_errors("list", self.root):
            infos = self._fs.get_file_info(selector)
        return sorted(info.base_name for info in infos if info.base_name.startswith(beginning))

    def tree(self) -> Tree:
        """All that lies below the root, in path order, hidden files and folders left out."""
        with storage_errors("list", self.root):
            if not is_remote(self.root):
                return walk(self._base)
            infos = self._fs.get_file_info(
                pafs.FileSelector(self._base, recursive=True, allow_not_found=True)
            )
        files = [_file_info(info, remote=True) for info in infos if info.type == pafs.FileType.File]
        visible = [
            file for file in files if not any(p.startswith(".") for p in self.relative(file).split("/"))
        ]
        return Tree(files=tuple(sorted(visible, key=lambda file: file.uri)))

    def walk(self) -> Sequence[FileInfo]:
        """Every file of the tree; StorageError where a folder of it may not be listed."""
        tree = self.tree()
        if tree.closed:
            raise StorageError(f"cannot list {tree.closed[0]}: access denied", fix="check its permissions")
        return tree.files

    def find(self, suffix: str) -> tuple[str, ...]:
        """Paths, relative to the root, of the files that `walk` finds and that end so."""
        return tuple(self.relative(file) for file in self.walk() if file.uri.endswith(suffix))

    def relative(self, file: FileInfo) -> str:
        """The path of a file of the tree, relative to the root."""
        return file.uri.removeprefix("s3://").removeprefix(self._base).lstrip("/")

    def sweep_temporary(self) -> int:
        """Deletes what a killed writer left behind; call it only while nothing else writes here."""
        if not isinstance(self._fs, pafs.LocalFileSystem):
            return 0
        left = list(Path(self._base).rglob(f"{TEMP_PREFIX}*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def tried_again(read: Callable[[], T]) -> T:
    """What `read` gives, which begins anew after the one fault that Arrow does not try again itself."""
    attempt = 0
    while True:
        attempt += 1
        try:
            return read()
        except StorageError as error:
            if UNTRIED_FAULT not in str(error) or attempt == S3_ATTEMPTS:
                raise
            time.sleep(min(20.0, random.uniform(0.5, 1.0) * 0.05 * 2**attempt))


@contextmanager
def storage_errors(action: str, uri: str) -> Iterator[None]:
    """Turns an OSError into a StorageError that names the action and the place."""
    try:
        yield
    except OSError as error:
        raise _storage_error(action, uri, error) from error


def _file_info(info: pafs.FileInfo, *, remote: bool) -> FileInfo:
    uri = f"s3://{info.path}" if remote else info.path
    return FileInfo(uri=uri, size_bytes=int(info.size), mtime_ns=int(info.mtime_ns or 0))
