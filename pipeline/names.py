"""Names of local files: which of them a uri can say, and all that lie below a folder.

In: names as the operating system gives them (a byte that is not UTF-8 is a half character in them), a local
folder. Out: a readable form of a name, a tree. Opens no file.

A uri is text, in tables and in JSON. A name that is not UTF-8 has none, so such a file is named in words and
left out, never taken under a made-up name that another file may bear.
"""

import os
import re
import stat
from dataclasses import dataclass

HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # half a surrogate pair, or a byte that is not UTF-8


@dataclass(frozen=True, slots=True, kw_only=True)
class FileInfo:
    """A regular file: `uri` as a user would write it, size in bytes, modification time in ns since 1970."""

    uri: str
    size_bytes: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What lies below a folder, each sorted by path: files, links whose target is gone, folders that this
    user may not list or enter, and in a readable form what is not UTF-8 (of a folder its own name alone, not
    what is in it)."""

    files: tuple[FileInfo, ...]
    dangling: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    unnameable: tuple[str, ...] = ()


def is_nameable(name: str) -> bool:
    """Whether a file can bear this name and a uri can say it: text without NUL and half characters."""
    return "\0" not in name and not HALF_CHARACTER.search(name)


def readable(name: str) -> str:
    """The name with what is not text spelled out: `caf\\xe9.mp4`, `a\\x00.mp4`."""
    raw = name.replace("\0", "\\x00").encode("utf-8", "surrogatepass")
    as_bytes = re.sub(rb"\xed([\xb2\xb3])([\x80-\xbf])", _escaped_byte, raw)
    return as_bytes.decode("utf-8", "backslashreplace")


def _escaped_byte(half: re.Match[bytes]) -> bytes:
    """U+DC80 … U+DCFF stand for the bytes 80 … FF."""
    return bytes([(half[1][0] & 3) << 6 | half[2][0] & 0x3F])


def whole_characters(text: str) -> str:
    """The text with U+FFFD for every half character: half an emoji, a byte that is not UTF-8."""
    return HALF_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", text)


def walk(root: str) -> Tree:
    """All that lies below a local folder, hidden files and folders left out. Links are followed, to folders
    too; but a folder (device and inode) that was walked once is not walked again, under whatever name, so a
    link to a folder above ends there. Real folders come before links, so a file below the root bears the
    name it has without links.

    Raises:
        OSError: a folder cannot be listed, and permissions are not why; or the root cannot.
    """
    files: list[FileInfo] = []
    dangling: list[str] = []
    closed: set[str] = set()
    unnameable: list[str] = []
    walked: set[tuple[int, int]] = set()
    folders, linked = [root], list[str]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop()
        try:
            status = os.stat(folder)
            identity = (status.st_dev, status.st_ino)
            entries = [] if identity in walked else list(os.scandir(folder))
        except (FileNotFoundError, NotADirectoryError):  # gone since it was listed, or never there
            continue
        except PermissionError:
            if folder == root:
                raise
            closed.add(folder)
            continue
        walked.add(identity)
        below: list[str] = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not is_nameable(entry.name):
                unnameable.append(readable(entry.path))
                continue
            try:
                status = entry.stat()
            except OSError as error:
                if entry.is_symlink():
                    dangling.append(entry.path)
                elif isinstance(error, PermissionError):
                    closed.add(folder)
                elif not isinstance(error, FileNotFoundError):
                    raise
                continue
            if stat.S_ISDIR(status.st_mode):
                (below if entry.is_symlink() else folders).append(entry.path)
            elif stat.S_ISREG(status.st_mode):
                files.append(FileInfo(uri=entry.path, size_bytes=status.st_size, mtime_ns=status.st_mtime_ns))
        linked = sorted([*linked, *below], reverse=True)  # the first by name is followed first
    return Tree(
        files=tuple(sorted(files, key=lambda file: file.uri)),
        dangling=tuple(sorted(dangling)),
        closed=tuple(sorted(closed)),
        unnameable=tuple(sorted(unnameable)),
    )
