"""Where the members of a tar lie, so that one can be read by its offset alone.

In: a seekable binary stream of an uncompressed tar. Out: name, offset and size of each file, read from the
headers; no member's data is touched. Never unpacks, and never takes a member's name for a place on disk.
"""

import posixpath
import re
import tarfile
from dataclasses import dataclass
from typing import IO

from pipeline.names import is_nameable, readable

MEMBER = re.compile(r"(.*?\.tar)#(.+)", re.DOTALL | re.IGNORECASE)  # how one is addressed: path.tar#member
SKIP_BYTES = 1 << 20  # read at once, while the zeros after an archive are skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file of a tar, by its plain name: its data are `nbytes` from `offset`."""

    name: str
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The whole members in the order they lie in, links under their own names among them; what stopped the
    scan early ("" = nothing did); and what else a person should know, to be read behind the tar's name."""

    members: tuple[Member, ...]
    problem: str = ""
    notes: tuple[str, ...] = ()


def split_member(uri: str) -> tuple[str, str] | None:
    """`a/b.tar#c/d.mp4` → (`a/b.tar`, `c/d.mp4`); None for a uri that names no member."""
    parts = MEMBER.fullmatch(uri)
    return (parts[1], parts[2]) if parts else None


def plain_name(name: str) -> str:
    """`./a//b.mp4`, `/a/./b.mp4` → `a/b.mp4`: the one name of all that tar unpacks to the same place."""
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def scan(stream: IO[bytes], size_bytes: int) -> Contents:
    """What is in a tar, archives written one behind the other included, which most readers end before."""
    scanned = _Scan()
    start = 0
    while True:
        stream.seek(start)
        try:
            with tarfile.open(fileobj=stream, mode="r:", errors="surrogateescape") as tar:
                for info in tar:
                    if start and info.offset == start:
                        scanned.notes.append(f": another archive begins at byte {start}; it is taken too")
                    if info.isreg() and not info.issparse() and info.offset_data + info.size > size_bytes:
                        return scanned.contents(f"cut off inside {readable(info.name)}")
                    scanned.take(info)
                end = tar.offset
            stream.seek(end)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a bad header for the end
                if start and end == start:
                    scanned.notes.append(f": what follows byte {start}, the archive's end, is no tar")
                    return scanned.contents("")
                return scanned.contents(f"damaged or cut off at byte {end}")
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            return scanned.contents(str(error) or "not a tar")
        start = _next_archive(stream, end, size_bytes)
        if not start:
            return scanned.contents("")


class _Scan:
    """The members so far. Of two with one name the last counts, as when they are unpacked."""

    def __init__(self) -> None:
        self.files: dict[str, Member] = {}
        self.links: dict[str, str] = {}  # symbolic ones, which may point at what lies further on
        self.notes: list[str] = []

    def take(self, info: tarfile.TarInfo) -> None:
        if not (info.isreg() or info.islnk() or info.issym()):
            return
        name = plain_name(info.name)
        if not name or not is_nameable(name):
            self.notes.append(f"#{readable(info.name)}: left out, its name is not UTF-8")
            return
        if info.issparse():
            self.notes.append(f"#{name}: left out, it is sparse")
            return
        target = self.files.get(plain_name(info.linkname)) if info.islnk() else None
        if info.islnk() and target is None:
            self.notes.append(
                f"#{name}: left out, a link to {readable(info.linkname)}, which is not before it"
            )
            return
        if name in self.files or name in self.links:
            self.notes.append(f"#{name}: twice in the tar; the last counts")
            self.files.pop(name, None)
            self.links.pop(name, None)
        if info.issym():
            self.links[name] = plain_name(posixpath.normpath(posixpath.join("/", name, "..", info.linkname)))
        elif target is not None:
            self.files[name] = Member(name=name, offset=target.offset, nbytes=target.nbytes)
        else:
            self.files[name] = Member(name=name, offset=info.offset_data, nbytes=info.size)

    def contents(self, problem: str) -> Contents:
        linked, notes = [], []
        for name, target in self.links.items():
            behind, passed = target, {name}
            while behind in self.links and behind not in passed:
                passed.add(behind)
                behind = self.links[behind]
            file = self.files.get(behind)
            if file is None:
                notes.append(f"#{name}: left out, a link to {readable(target)}, no file in the tar")
            else:
                linked.append(Member(name=name, offset=file.offset, nbytes=file.nbytes))
        return Contents(members=(*self.files.values(), *linked), problem=problem, notes=(*self.notes, *notes))


def _next_archive(stream: IO[bytes], end: int, size_bytes: int) -> int:
    """Where the next block that is not zeros begins after an archive's end; 0 where none does."""
    at = end
    while at < size_bytes:
        stream.seek(at)
        data = stream.read(SKIP_BYTES)
        if not data:
            return 0
        zeros = len(data) - len(data.lstrip(b"\0"))
        if zeros < len(data):
            return at + zeros - zeros % tarfile.BLOCKSIZE
        at += len(data)
    return 0
