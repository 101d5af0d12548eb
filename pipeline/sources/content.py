"""A source's content: what names it, and the proof that whoever decodes it reads what was analyzed.

In: a uri, and the source_id that its rows have. Out: a local file for decoders that has that content from the
first byte to the end of the block. Never: a decision by name, size or modification time, which a replaced
file can keep.

What it costs: a local file is read once a process and file state (device, inode, size, modification and
change time; the change time cannot be set, so `cp -p`, `rsync -t` and `touch -r` do not hide a change), then
every check is one open and one fstat. The state is of an opened file because opening is when NFS asks its
server. What is copied (S3, a member of a tar) is hashed as it was copied, so parts of two versions are a
content of their own, which no row names.
"""

import hashlib
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from pipeline import tars
from pipeline.corpus.ids import SOURCE_ID_CHARS
from pipeline.errors import FramemillError, MediaError, StorageError
from pipeline.storage import is_remote, storage_errors
from pipeline.uris import NO_FILE, local_path, read_range, stat_each, tar_member

OTHER_CONTENT = "its file is no longer the one that was analyzed"
CHANGING = "its file changed while it was read"
# A file system's clock ticks in steps (4 ms on ext4, a second or two on some network disks): a file written
# twice within one may show one state. Until it is this old, its state proves nothing and it is read again.
SETTLED_NS = 3_000_000_000
REMEMBERED = 4096  # files a process

State = tuple[int, int, int, int, int]  # device, inode, size in bytes, modification and change time in ns


@contextmanager
def open_content(uri: str, expected_id: str = "") -> Iterator[tuple[Path, str]]:
    """A local file with the content of `uri`, and its source_id.

    Raises:
        MediaError: there is no such file, its content is not that of `expected_id` (where one is given), or
            it changed before the block ended.
        StorageError: it cannot be read here and now.
    """
    with local_path(uri) as path:
        source_id = content_id(path)
        if expected_id and source_id != expected_id:
            raise MediaError(
                OTHER_CONTENT,
                expected=f"content {expected_id}, not {source_id}",
                fix="put it back, or `touch` it and run framemill analyze",
            )
        yield path, source_id
        if path == Path(uri) and content_id(path) != source_id:
            raise MediaError(CHANGING, fix="run framemill analyze when nothing writes to it")


def read_content(uri: str, most_bytes: int) -> tuple[bytes, str] | None:
    """The bytes of a file and its source_id. What is decoded is then what was hashed, whatever happens to the
    file meanwhile. None for one that has more than `most_bytes`, changes while it is read, or cannot
    be read: `open_content` says why."""
    try:
        if is_remote(uri) or (data := _read_local(uri, most_bytes)) is None:
            data = _read_elsewhere(uri, most_bytes)
    except (OSError, ValueError, FramemillError):  # pa.ArrowInvalid is a ValueError
        return None
    if data is None or len(data) > most_bytes:
        return None
    return data, hashlib.sha256(data).hexdigest()[:SOURCE_ID_CHARS]


def content_id(path: Path) -> str:
    """The source_id of a local file: the first 16 hex of its content's sha256."""
    with _opening(path), path.open("rb") as stream:
        state = _state(stream.fileno())
    return _remembered_hash(path, state) if _is_settled(state) else _hash(path, state)


def is_of_the_file(reason: str) -> bool:
    """Whether an item failed because of what lay at its uri, so that the right file there would mend it."""
    return reason.startswith((NO_FILE, OTHER_CONTENT, CHANGING))


def sizes_bytes(uris: Sequence[str]) -> list[int | None]:
    """The size of each file as it lies there now, None where there is none: it opens no file but tars."""
    members = [tars.split_member(uri) for uri in uris]
    files = stat_each(
        [uri if member is None else member[0] for uri, member in zip(uris, members, strict=True)]
    )
    return [
        None if file is None else file.size_bytes if member is None else _member_bytes(*member)
        for file, member in zip(files, members, strict=True)
    ]


def _member_bytes(tar: str, name: str) -> int | None:
    try:
        member = tar_member(tar, name)
    except (MediaError, StorageError):  # whoever opens it will say why
        return None
    return member.nbytes if member else None


def _read_local(path: str, most_bytes: int) -> bytes | None:
    """All of a local file, in one version; None where there is no file of that name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # of a pipe, nobody waits for a writer
    except FileNotFoundError:
        return None
    with open(descriptor, "rb", buffering=0) as stream:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        state, data = _state(descriptor), stream.read(most_bytes + 1)
        stream.seek(0)
        is_whole = _is_settled(state) or stream.read(most_bytes + 1) == data
        if not is_whole or _state(descriptor) != state:
            raise MediaError(CHANGING)
    return data


def _read_elsewhere(uri: str, most_bytes: int) -> bytes | None:
    """All of a file on S3 or of a member of a tar; None where there is none."""
    member = tars.split_member(uri)
    if member is None:
        if not is_remote(uri):  # a folder, or a pipe that would not end
            return None
        return read_range(uri, lambda stream: stream.read(most_bytes + 1))
    place = tar_member(*member)
    if place is None:
        return None

    def read(stream: IO[bytes]) -> bytes:
        stream.seek(place.offset)
        return stream.read(min(place.nbytes, most_bytes + 1))

    data = read_range(member[0], read)
    return data if len(data) == place.nbytes else None


def _hash(path: Path, state: State) -> str:
    """The source_id of the file in this state; MediaError when it is in another by the end."""
    with _opening(path), path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if _state(stream.fileno()) != state:
            raise MediaError(CHANGING, fix="run framemill analyze when nothing writes to it")
    return digest[:SOURCE_ID_CHARS]


_remembered_hash = lru_cache(maxsize=REMEMBERED)(_hash)


def _is_settled(state: State) -> bool:
    return time.time_ns() - state[-1] > SETTLED_NS


def _state(descriptor: int) -> State:
    info = os.fstat(descriptor)
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """A file that went away or may not be read is the item's fault, any other the storage's."""
    with storage_errors("read", str(path)):
        try:
            yield
        except FileNotFoundError as error:
            raise MediaError(NO_FILE) from error
        except PermissionError as error:
            raise MediaError("its file may not be read", fix="check its permissions") from error
