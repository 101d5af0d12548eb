"""Where the members of a tar lie, so that one can be read by its offset alone.

In: a seekable binary stream of an uncompressed tar. Out: name, offset and size of each regular file, read
from the headers; no member's data is touched. Never unpacks.
"""

import tarfile
from dataclasses import dataclass
from typing import IO

SEPARATOR = ".tar#"  # a member is addressed as path.tar#member


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One regular file of a tar: its data are `nbytes` from `offset`."""

    name: str
    offset: int
    nbytes: int


def split_member(uri: str) -> tuple[str, str] | None:
    """`a/b.tar#c/d.mp4` → (`a/b.tar`, `c/d.mp4`); None for a uri that names no member."""
    tar, separator, member = uri.partition(SEPARATOR)
    return (f"{tar}.tar", member) if separator and member else None


def scan(stream: IO[bytes], size_bytes: int) -> tuple[list[Member], str]:
    """The whole members in the order they lie in, and what stopped the scan early ("" = nothing did)."""
    members: list[Member] = []
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                if not info.isreg() or info.issparse():
                    continue
                if info.offset_data + info.size > size_bytes:
                    return members, f"cut off inside {info.name}"
                members.append(Member(name=info.name, offset=info.offset_data, nbytes=info.size))
            stream.seek(tar.offset)
            if stream.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a bad header for the end
                return members, f"damaged or cut off at byte {tar.offset}"
    except (tarfile.TarError, EOFError) as error:
        return members, str(error) or "not a tar"
    return members, ""
