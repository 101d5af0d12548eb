"""What a HEIF file (ISO/IEC 23008-12) holds: HEIC, AVIF and their kin, told apart by content.

In: a local path, or a file's bytes. Out: the coding of its primary picture, tiles, transfer; from its boxes,
nothing decoded. Never: a brand believed where the items say otherwise, or more read than its `meta` box.
"""

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

META_BYTES = 16 << 20  # of a `meta` box that is read; one of 10,000 tiles has less than 1 MB
FORMATS = {"av01": "AVIF", "hvc1": "HEIC", "hev1": "HEIC", "lhv1": "HEIC", "avc1": "AVCI", "vvc1": "VVIC"}
DERIVED = ("grid", "iovl", "iden", "tmap")  # items made of others
DEPTH = 4  # of items made of items that are followed
NCLX = b"colrnclx"

Source = str | Path | bytes  # a local file, or the bytes of one


@dataclass(frozen=True, slots=True, kw_only=True)
class Heif:
    """The primary picture of a HEIF file."""

    format: str  # AVIF, HEIC, AVCI, VVIC, else "HEIF"
    coding: str  # the item type of what is coded: av01, hvc1, …
    tiles: int  # of a grid; 1 of one picture
    transfer: int  # H.273; 2 where none is stated
    primaries: int
    is_sequence: bool  # there is a track of moving pictures too
    brands: tuple[bytes, ...]  # the major one first

    def __str__(self) -> str:
        tiles = f", a grid of {self.tiles} tiles" if self.tiles > 1 else ""
        return f"{self.format} still ({self.coding}{tiles})"


def opened(source: Source) -> BinaryIO:
    """The file as a stream to read."""
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def read_heif(source: Source) -> Heif | None:
    """None for what is no HEIF file of pictures, or one too damaged to say."""
    try:
        with opened(source) as stream:
            return _read(stream)
    except (OSError, struct.error, IndexError, OverflowError, ValueError):  # the last: sizes beyond any file
        return None


def _read(stream: BinaryIO) -> Heif | None:
    brands: tuple[bytes, ...] = ()
    meta, has_track, at = b"", False, 0
    while len(head := stream.read(16)) >= 8:
        size, kind = struct.unpack(">I4s", head[:8])
        begins = 8
        if size == 1:
            (size,), begins = struct.unpack(">Q", head[8:16]), 16
        if at == 0 and kind != b"ftyp":
            return None
        if kind in (b"ftyp", b"meta") and not 0 < size <= META_BYTES:
            return None
        stream.seek(at + begins)
        if kind == b"ftyp":
            data = stream.read(size - begins)
            brands = data[:4], *(data[i : i + 4] for i in range(8, len(data) - 3, 4))
        elif kind == b"meta":
            meta = stream.read(size - begins)[4:]  # after version and flags
        has_track |= kind == b"moov"
        if size < 8:  # to the end of the file, or damaged
            break
        at += size
        stream.seek(at)
    boxes = dict(_boxes(meta))
    if boxes.get(b"hdlr", b"")[8:12] != b"pict" or b"iinf" not in boxes:
        return None
    return _described(boxes, brands, is_sequence=has_track)


def _described(boxes: dict[bytes, bytes], brands: tuple[bytes, ...], *, is_sequence: bool) -> Heif:
    items = _items(boxes[b"iinf"])
    primary = _primary(boxes.get(b"pitm", b""), items)
    tiles = [primary]
    for _ in range(DEPTH):
        if tiles and items.get(tiles[0]) in DERIVED:
            tiles = _made_of(boxes.get(b"iref", b""), tiles[0])
    coding = items.get(tiles[0], "") if tiles else ""
    colour = boxes.get(b"iprp", b"")
    nclx = colour.find(NCLX)
    primaries, transfer = struct.unpack_from(">HH", colour, nclx + len(NCLX)) if nclx >= 0 else (2, 2)
    return Heif(
        format=FORMATS.get(coding, "HEIF"),
        coding=coding or "no coded item",
        tiles=len(tiles),
        transfer=transfer,
        primaries=primaries,
        is_sequence=is_sequence,
        brands=brands,
    )


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and contents of each box in `data`."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        begins = 8
        if size == 1:
            (size,), begins = struct.unpack_from(">Q", data, at + 8), 16
        size = size or len(data) - at
        if size < begins:
            return
        yield kind, data[at + begins : at + size]
        at += size


def _items(iinf: bytes) -> dict[int, str]:
    """Item id → type."""
    items = {}
    for kind, entry in _boxes(iinf[6:] if iinf[0] == 0 else iinf[8:]):
        if kind == b"infe" and entry[0] in (2, 3):
            number, at = (
                (struct.unpack_from(">H", entry, 4)[0], 8) if entry[0] == 2 else (_word(entry, 4), 10)
            )
            items[number] = entry[at : at + 4].decode("latin-1")
    return items


def _primary(pitm: bytes, items: dict[int, str]) -> int:
    if not pitm:
        return next(iter(items), 0)
    return int(struct.unpack_from(">H", pitm, 4)[0]) if pitm[0] == 0 else _word(pitm, 4)


def _made_of(iref: bytes, item: int) -> list[int]:
    """The items that a derived one is made of, in order."""
    wide = bool(iref and iref[0])
    layout, width = ("I", 4) if wide else ("H", 2)
    for kind, entry in _boxes(iref[4:]):
        if kind == b"dimg" and struct.unpack_from(f">{layout}", entry)[0] == item:
            count = struct.unpack_from(">H", entry, width)[0]
            return list(struct.unpack_from(f">{count}{layout}", entry, width + 2))
    return []


def _word(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])
