"""Still pictures, and the moving ones that only a picture library reads; recognised by content, not by name.

In: a local path to a JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF file, or the bytes of one. Out: upright uint8
RGB [H, W, 3], one picture or, of an animated WebP or AVIF, one after another with their times. (Animated GIF
and PNG are pipeline.media.decode's.) And pixels as the JPEG of filmstrips. The EXIF orientation is applied,
CMYK converted, 16 bits cut to 8, transparency laid over white, PQ and HLG of an AVIF tone-mapped (from the 8
bits that Pillow gives); of a TIFF with many pages the first counts; colour profiles are not applied. HEIC and
other HEIF stills are refused as what they are: their decoders come under the LGPL, with HEVC's patents.
Never: a picture of more pixels than allowed (refused from the header, before decoding), a truncated one
completed with grey, or one tile of a grid as the picture.
"""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from pipeline.errors import MediaError
from pipeline.media import tones
from pipeline.media.heif import Source, opened, read_heif
from pipeline.media.tones import HDR

MAGIC = {  # how files of a format begin
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF.{4}WEBP",
    "AVIF": rb".{4}ftypavi[fs]",  # and what heif.py knows as such
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c(48@l|]\x00{3}",  # the sizes of its second header: 12, 40, 52, 56, 64, 108, 124
    "TIFF": rb"II[*+]\x00|MM\x00[*+]",  # + is BigTIFF
}
ANY_SIZE = 1 << 62  # pixels, where only the header is read
AVIF_BRANDS = (b"avif", b"avis")  # of a still, of a sequence
REFUSED = {"F": "floating-point numbers", "I": "whole numbers of 32 bits", "LAB": "CIELAB colours"}
TIFF_BITS, TIFF_PLANES = 258, 284  # tags: BitsPerSample, PlanarConfiguration
DECODED_BY_MEDIA = ("GIF", "PNG")  # when they move
LEAST_DURATION_S, USUAL_DURATION_S = 0.011, 0.1  # a shorter frame is shown for the usual time, as browsers do
TURNS = {  # EXIF orientation → how to make the picture upright, degrees counter-clockwise of that
    2: (Image.Transpose.FLIP_LEFT_RIGHT, 0),
    3: (Image.Transpose.ROTATE_180, 180),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, 180),
    5: (Image.Transpose.TRANSPOSE, 90),
    6: (Image.Transpose.ROTATE_270, 270),
    7: (Image.Transpose.TRANSVERSE, 270),
    8: (Image.Transpose.ROTATE_90, 90),
}

JpegBytes = bytes | memoryview


def is_still(source: Source) -> bool:
    """True for a picture that does not move."""
    return _format(source) is not None and not _moves(source)


def is_animation(source: Source) -> bool:
    """True for a moving picture that `frames` reads and pipeline.media.decode does not."""
    return _format(source) not in (None, *DECODED_BY_MEDIA) and _moves(source)


def read_still(source: Source, max_pixels: int) -> tuple[np.ndarray, str, int]:
    """(uint8 RGB [H, W, 3] upright, codec name, degrees counter-clockwise that were applied)."""
    with _opened(source, max_pixels) as image:
        turn, degrees = TURNS.get(_orientation(image), (None, 0))
        upright = _rgb(image)
        if turn is not None and image.format != "TIFF":  # Pillow turns a TIFF itself
            upright = upright.transpose(turn)
        return _standard(np.asarray(upright), source), (image.format or "").lower(), degrees


def transfer(source: Source) -> str:
    """The transfer that a still states: sdr, pq or hlg."""
    picture = read_heif(source)
    return HDR.get(picture.transfer, "sdr") if picture else "sdr"


def frames(source: Source, max_pixels: int) -> Iterator[tuple[float, np.ndarray]]:
    """Seconds and uint8 RGB [H, W, 3], upright, of each picture of an animation."""
    with _opened(source, max_pixels) as image:
        time_s, (turn, _) = 0.0, TURNS.get(_orientation(image), (None, 0))
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            upright = _rgb(image) if turn is None else _rgb(image).transpose(turn)
            yield time_s, _standard(np.asarray(upright), source)
            duration_s = image.info.get("duration", 0) / 1000
            time_s += duration_s if duration_s >= LEAST_DURATION_S else USUAL_DURATION_S


def animation_header(source: Source) -> tuple[str, int, int, int]:
    """(codec name, width and height upright, degrees counter-clockwise that are applied) of an animation."""
    with _opened(source, max_pixels=ANY_SIZE) as image:
        _, degrees = TURNS.get(_orientation(image), (None, 0))
        sides = (image.height, image.width) if degrees % 180 else image.size
        return (image.format or "").lower(), *sides, degrees


def resize(pixels: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """uint8 RGB [H, W, 3] at another size, antialiased."""
    if pixels.shape[:2] == (height_px, width_px):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC))


def encode_jpeg(pixels: np.ndarray, quality: int) -> bytes:
    """uint8 RGB [H, W, 3] as JPEG, chroma at full size: the one encoder of filmstrips."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def decode_jpeg(data: JpegBytes) -> np.ndarray:
    """uint8 RGB [H, W, 3] of a JPEG that `encode_jpeg` has written."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def decode_luma(data: JpegBytes) -> np.ndarray:
    """uint8 luma [H, W] of such a JPEG; its chroma is not decoded."""
    picture = Image.open(io.BytesIO(data))
    picture.draft("L", picture.size)
    return np.asarray(picture)


def _format(source: Source) -> str | None:
    try:
        with opened(source) as stream:
            head = stream.read(18)
    except OSError:
        return None
    known = next((name for name, begins in MAGIC.items() if re.match(begins, head, re.DOTALL)), None)
    if head[4:8] == b"ftyp" and (picture := read_heif(source)):
        return picture.format if picture.format == "AVIF" or not picture.is_sequence else None
    return known


def _moves(source: Source) -> bool:
    """Whether there is more than one frame. Pages of a TIFF are none; a damaged file counts as still."""
    if _format(source) not in ("GIF", "PNG", "WEBP", "AVIF"):
        return False
    try:
        with _opened(source, max_pixels=ANY_SIZE) as image:
            return bool(getattr(image, "is_animated", False))
    except MediaError:
        return False


@contextmanager
def _opened(source: Source, max_pixels: int) -> Iterator[Image.Image]:
    """The picture, its header read and its size accepted; what goes wrong from here on is a MediaError."""
    Image.MAX_IMAGE_PIXELS = None  # the header is judged here, with its size in the reason
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(_readable(source), formats=list(MAGIC)) as image:
                if image.width * image.height > max_pixels:
                    what = f"too many pixels: {image.width}x{image.height}"
                    raise MediaError(what, expected=f"at most {max_pixels}")
                Image.MAX_IMAGE_PIXELS = max_pixels  # frames and tiles may claim more than the header
                yield image
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise MediaError(f"too many pixels: {error}", expected=f"at most {max_pixels}") from error
    except UnidentifiedImageError as error:
        with opened(source) as stream:
            if stream.read(4) == b"MM\x00+":
                raise MediaError("a BigTIFF picture in big-endian order", expected="little-endian") from error
        raise MediaError("not a picture: damaged header") from error
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        struct.error,
    ) as error:  # what Pillow's decoders raise
        raise MediaError(f"damaged picture: {error}") from error


def _readable(source: Source) -> str | Path | BinaryIO:
    """What Pillow is to open: of an AVIF whose brands do not say so, the same with the brand that does."""
    picture = read_heif(source)
    whole = io.BytesIO(source) if isinstance(source, bytes) else source
    if picture is None:
        return whole
    if picture.format != "AVIF":
        raise MediaError(str(picture), expected=f"one of {', '.join(MAGIC)}", fix="convert it")
    brand = AVIF_BRANDS[picture.is_sequence]
    if picture.brands[0] == brand:
        return whole
    with opened(source) as stream:
        data = stream.read()
    return io.BytesIO(data[:8] + brand + data[12:])


def _standard(pixels: np.ndarray, source: Source) -> np.ndarray:
    """uint8 RGB [H, W, 3] of standard range; of PQ and HLG tone-mapped."""
    picture = read_heif(source)
    if picture is None or picture.transfer not in HDR:
        return pixels
    coded = pixels.astype(np.uint16) * 257
    return tones.to_standard(coded, HDR[picture.transfer], picture.primaries)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(0x0112, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):  # damaged metadata
        return 1


def _has_deep_planes(image: Image.Image) -> bool:
    """A TIFF whose planes Pillow takes for 8-bit ones: it shows two pixels for each, and no error."""
    if not isinstance(image, TiffImageFile):
        return False
    separate, bits = image.tag_v2.get(TIFF_PLANES, 1) == 2, image.tag_v2.get(TIFF_BITS, (1,))
    return separate and max(bits) > 8


def _rgb(image: Image.Image) -> Image.Image:
    kind = REFUSED.get(image.mode, "16-bit planes, a colour each" if _has_deep_planes(image) else "")
    if kind:
        raise MediaError(f"a picture of {kind}", expected="RGB of 8 or 16 bits a channel")
    if image.mode.startswith("I"):  # 16 bits a pixel
        grey = np.asarray(image)  # uint16 [H, W]
        shown = (grey >> 8).astype(np.uint8)
        if (clear := image.info.get("transparency")) is not None:  # the one grey that is
            shown[grey == clear] = 255
        return Image.fromarray(shown).convert("RGB")
    if image.has_transparency_data:
        is_bmp, image = image.format == "BMP", image.convert("RGBA")
        if is_bmp and not np.asarray(image)[..., 3].any():  # alpha that was never filled in
            return image.convert("RGB")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
