"""Local folders and s3:// prefixes through one object; every write is atomic.

In: a root (local path or s3://bucket/prefix) and paths relative to it. Out: bytes. Never leaves a
partial file under a final name: locally a temporary sibling is fsynced and renamed; on S3 an object
appears only when its upload completes.
"""

import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow.fs as pafs

from pipeline.errors import StorageError

TEMP_PREFIX = ".tmp-"  # unfinished writes; listed never, swept by `sweep_temporary`


def sha256_hex(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_remote(uri: str) -> bool:
    return uri.startswith("s3://")


def _filesystem(uri: str) -> tuple[pafs.FileSystem, str]:
    """The Arrow filesystem of a uri and the path inside it. S3 settings come from the environment
    (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL, …)."""
    if not is_remote(uri):
        return pafs.LocalFileSystem(), os.path.abspath(uri)
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, host = endpoint.rpartition("://")
    s3 = pafs.S3FileSystem(
        endpoint_override=host or None,
        scheme=scheme or "https",
        allow_delayed_open=True,  # a part of usual size is one request, not a multipart upload of three
    )
    return s3, uri.removeprefix("s3://").rstrip("/")


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
        return self._fs.get_file_info(self._path(rel)).type == pafs.FileType.File

    def read_bytes(self, rel: str, *, offset: int = 0, nbytes: int | None = None) -> bytes:
        """The whole file, or `nbytes` from `offset`."""
        try:
            with self._fs.open_input_file(self._path(rel)) as stream:
                return stream.read() if nbytes is None else stream.read_at(nbytes, offset)
        except OSError as error:
            raise StorageError(f"cannot read {self.root}/{rel}: {error}") from error

    def write_bytes(self, rel: str, data: bytes) -> None:
        """Commits `data` under `rel`: all of it or nothing."""
        path = self._path(rel)
        try:
            if isinstance(self._fs, pafs.LocalFileSystem):
                _commit_local(Path(path), data)
            else:
                with self._fs.open_output_stream(path) as stream:
                    stream.write(data)
        except OSError as error:
            raise StorageError(
                f"cannot write {self.root}/{rel}: {error}", fix="check space and permissions"
            ) from error

    def delete(self, rel: str) -> None:
        if self.exists(rel):
            self._fs.delete_file(self._path(rel))

    def list(self, rel: str = "", suffix: str = "") -> list[str]:
        """Names of the files directly below `rel`, sorted; temporary files are not listed."""
        selector = pafs.FileSelector(self._path(rel), recursive=False, allow_not_found=True)
        names = (
            info.base_name for info in self._fs.get_file_info(selector) if info.type == pafs.FileType.File
        )
        return sorted(n for n in names if n.endswith(suffix) and not n.startswith(TEMP_PREFIX))

    def walk(self) -> Iterator[FileInfo]:
        """Every file below the root, in path order, hidden files and folders left out."""
        selector = pafs.FileSelector(self._base, recursive=True, allow_not_found=True)
        infos = [i for i in self._fs.get_file_info(selector) if i.type == pafs.FileType.File]
        for info in sorted(infos, key=lambda i: i.path):
            rel = info.path.removeprefix(self._base).lstrip("/")
            if not any(part.startswith(".") for part in rel.split("/")):
                yield _file_info(info, remote=is_remote(self.root))

    def sweep_temporary(self) -> int:
        """Deletes what a killed writer left behind; call it only while nothing else writes here."""
        if not isinstance(self._fs, pafs.LocalFileSystem):
            return 0
        left = list(Path(self._base).rglob(f"{TEMP_PREFIX}*"))
        for path in left:
            path.unlink(missing_ok=True)
        return len(left)


def stat(uri: str) -> FileInfo | None:
    """The file at `uri`, or None when there is no file."""
    fs, path = _filesystem(uri)
    info = fs.get_file_info(path)
    return _file_info(info, remote=is_remote(uri)) if info.type == pafs.FileType.File else None


def _file_info(info: pafs.FileInfo, *, remote: bool) -> FileInfo:
    uri = f"s3://{info.path}" if remote else info.path
    return FileInfo(uri=uri, size_bytes=int(info.size), mtime_ns=int(info.mtime_ns or 0))


@contextmanager
def local_path(uri: str) -> Iterator[Path]:
    """A local file with the contents of `uri`, for decoders; a remote one is downloaded and removed."""
    if not is_remote(uri):
        yield Path(uri)
        return
    fs, path = _filesystem(uri)
    with tempfile.TemporaryDirectory(prefix="framemill-") as folder:
        target = Path(folder) / "source"
        try:
            pafs.copy_files(
                path, str(target), source_filesystem=fs, destination_filesystem=pafs.LocalFileSystem()
            )
        except OSError as error:
            raise StorageError(f"cannot read {uri}: {error}") from error
        yield target


def _commit_local(path: Path, data: bytes) -> None:
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
