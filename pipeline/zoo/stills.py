"""Still pictures: every layout of pixels, every orientation, headers that are odd but right.

In: the corners. Out: a case each, the picture in one frame of its own size.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.zoo.case import LOSSY, Case, Corners, one_file, still
from pipeline.zoo.pictures import SIZE, WHITE, place, quadrants

# EXIF orientation (TIFF 6.0, 274): which corner of the stored picture is seen at each corner of the shown one
ORIENTATIONS = {
    1: (0, 1, 2, 3),
    2: (1, 0, 3, 2),
    3: (3, 2, 1, 0),
    4: (2, 3, 0, 1),
    5: (0, 2, 1, 3),
    6: (2, 0, 3, 1),
    7: (3, 1, 2, 0),
    8: (1, 3, 0, 2),
}
SAVED: tuple[tuple[str, str, str, dict[str, Any]], ...] = (  # name, format, mode, options of Pillow's writer
    ("jpeg-420", "JPEG", "RGB", {"quality": 95, "subsampling": 2}),
    ("jpeg-progressive", "JPEG", "RGB", {"quality": 95, "progressive": True}),
    ("jpeg-cmyk", "JPEG", "CMYK", {"quality": 95}),
    ("png", "PNG", "RGB", {}),
    ("png-palette", "PNG", "P", {}),
    ("png-alpha-opaque", "PNG", "RGBA", {}),
    ("webp-lossless", "WEBP", "RGB", {"lossless": True}),
    ("webp-lossy", "WEBP", "RGB", {"quality": 95}),
    ("avif", "AVIF", "RGB", {"quality": 95}),
    ("gif", "GIF", "RGB", {}),
    ("bmp-24", "BMP", "RGB", {}),
    ("bmp-palette", "BMP", "P", {}),
    ("tiff", "TIFF", "RGB", {}),
    ("tiff-lzw", "TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("tiff-deflate", "TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
    ("tiff-jpeg", "TIFF", "RGB", {"compression": "jpeg", "quality": 95}),
    ("tiff-big", "TIFF", "RGB", {"big_tiff": True}),
    ("tiff-cmyk", "TIFF", "CMYK", {}),
)


def cases(corners: Corners) -> list[Case]:
    """Every layout, every orientation, every odd header."""
    listed = [_saved(corners, *row) for row in SAVED]
    listed += [
        _oriented(corners, number, kind) for number in ORIENTATIONS for kind in ("JPEG", "TIFF", "PNG")
    ]
    listed += [_bmp(corners, name, write) for name, write in BMPS.items()]
    grey = tuple((int(v),) * 3 for v in np.round(np.array(corners) @ (0.299, 0.587, 0.114)))
    greys: Corners = grey  # type: ignore[assignment]
    listed.append(_of(greys, "png-grey", lambda path: _grey(greys).save(path, "PNG")))
    listed.append(_of(greys, "png-grey-16", lambda path: _sixteen(greys).save(path, "PNG")))
    listed.append(_of(greys, "jpeg-grey", lambda path: _grey(greys).save(path, "JPEG", quality=95)))
    half = corners[0], WHITE, corners[2], WHITE
    for kind in ("PNG", "WEBP", "GIF", "AVIF", "TIFF"):
        listed.append(_of(half, f"alpha-{kind.lower()}", _transparent(corners, kind), LOSSY))
    listed.append(_of(corners, "tiff-two-pages", _pages(corners)))
    listed.append(
        _of(corners, "wrong-suffix", lambda path: _picture(corners).save(path, "PNG"), file="picture.mp4")
    )
    return listed


def _picture(corners: Corners) -> Image.Image:
    return Image.fromarray(quadrants(corners))


def _of(
    corners: Corners,
    name: str,
    make: Callable[[Path], object],
    tolerance: int = LOSSY,
    file: str = "picture.dat",
) -> Case:
    return one_file(f"stills/{name}", file, make, still(corners, SIZE, tolerance=tolerance))


def _saved(corners: Corners, name: str, kind: str, mode: str, options: dict[str, Any]) -> Case:
    return _of(corners, name, lambda path: _picture(corners).convert(mode).save(path, kind, **options))


def _oriented(corners: Corners, number: int, kind: str) -> Case:
    exif = Image.Exif()
    exif[274] = number
    order = ORIENTATIONS[number]
    size = SIZE if number < 5 else SIZE[::-1]
    return one_file(
        f"stills/exif-{number}-{kind.lower()}",
        "picture",
        lambda path: _picture(corners).save(path, kind, exif=exif),
        still(place(corners, order), size, tolerance=LOSSY),
    )


def _grey(greys: Corners) -> Image.Image:
    return Image.fromarray(quadrants(greys)[..., 0])


def _sixteen(greys: Corners) -> Image.Image:
    return Image.fromarray(quadrants(greys)[..., 0].astype(np.uint16) * 257)


def _transparent(corners: Corners, kind: str) -> Callable[[Path], None]:
    """The right half transparent over its colours."""

    def make(path: Path) -> None:
        alpha = np.full((SIZE[1], SIZE[0], 1), 255, np.uint8)
        alpha[:, SIZE[0] // 2 :] = 0
        Image.fromarray(np.concatenate([quadrants(corners), alpha], axis=2)).save(path, kind)

    return make


def _pages(corners: Corners) -> Callable[[Path], None]:
    """The first page counts."""

    def make(path: Path) -> None:
        other = _picture((corners[3], corners[2], corners[1], corners[0]))
        _picture(corners).save(path, "TIFF", save_all=True, append_images=[other])

    return make


def _bmp(corners: Corners, name: str, write: Callable[[np.ndarray], bytes]) -> Case:
    def make(path: Path) -> None:
        path.write_bytes(write(quadrants(corners)))

    return _of(corners, name, make)


def _file(header: bytes, pixels: bytes) -> bytes:
    start = 14 + len(header)
    return struct.pack("<2sIHHI", b"BM", start + len(pixels), 0, 0, start) + header + pixels


def _info(
    pixels: np.ndarray, bits: int, compression: int, masks: bytes = b"", *, top_down: bool = False
) -> bytes:
    high, wide, _ = pixels.shape
    height = -high if top_down else high
    return struct.pack("<IiiHHIIiiII", 40, wide, height, 1, bits, compression, 0, 2835, 2835, 0, 0) + masks


def _core(pixels: np.ndarray) -> bytes:
    """OS/2 1: BITMAPCOREHEADER."""
    high, wide, _ = pixels.shape
    return _file(struct.pack("<IHHHH", 12, wide, high, 1, 24), pixels[::-1, :, ::-1].tobytes())


def _top_down(pixels: np.ndarray) -> bytes:
    return _file(_info(pixels, 24, 0, top_down=True), pixels[:, :, ::-1].tobytes())


def _five_six_five(pixels: np.ndarray) -> bytes:
    red, green, blue = (pixels[::-1, :, c].astype(np.uint16) for c in range(3))
    packed = (red >> 3) << 11 | (green >> 2) << 5 | blue >> 3
    masks = struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    return _file(_info(pixels, 16, 3, masks), packed.astype("<u2").tobytes())


def _thirty_two(pixels: np.ndarray) -> bytes:
    """The fourth byte says nothing, and is 0."""
    rows = np.concatenate([pixels[::-1, :, ::-1], np.zeros((*pixels.shape[:2], 1), np.uint8)], axis=2)
    return _file(_info(pixels, 32, 0), rows.tobytes())


BMPS = {"bmp-core": _core, "bmp-top-down": _top_down, "bmp-565": _five_six_five, "bmp-32": _thirty_two}
