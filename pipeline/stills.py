"""Still pictures: one upright RGB array from a JPEG, PNG or WebP file, recognised by content, not by
name.

In: a local path. Out: uint8 [H, W, 3] RGB with the EXIF orientation applied, CMYK converted, and
transparency laid over white. Never: a picture of more pixels than allowed (refused from the header,
before decoding), or a truncated one completed with grey. Colour profiles are not applied.
"""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pipeline.errors import MediaError

FORMATS = {"JPEG": "jpeg", "PNG": "png", "WEBP": "webp"}


def is_still(path: str | Path) -> bool:
    """True when the first bytes are those of a JPEG, PNG or WebP file. (A GIF is a video.)"""
    try:
        with open(path, "rb") as stream:
            head = stream.read(12)
    except OSError:
        return False
    return (
        head[:3] == b"\xff\xd8\xff" or head[:8] == b"\x89PNG\r\n\x1a\n" or head[:4] + head[8:] == b"RIFFWEBP"
    )


def read_still(path: str | Path, max_pixels: int) -> tuple[np.ndarray, str, int]:
    """(uint8 RGB [H, W, 3] upright, codec name, degrees counter-clockwise that were applied)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=list(FORMATS)) as image:
                if image.width * image.height > max_pixels:
                    raise MediaError(
                        f"too many pixels: {image.width}x{image.height}", expected=f"at most {max_pixels}"
                    )
                rotation = {3: 180, 6: 270, 8: 90}.get(image.getexif().get(0x0112, 1), 0)
                codec = FORMATS[image.format or ""]
                return np.asarray(_rgb(ImageOps.exif_transpose(image))), codec, rotation
        except Image.DecompressionBombError as error:
            raise MediaError("too many pixels", expected=f"at most {max_pixels}") from error
        except UnidentifiedImageError as error:
            raise MediaError("not a picture: damaged header") from error
        except (OSError, SyntaxError, ValueError) as error:  # what Pillow's decoders raise
            raise MediaError(f"damaged picture: {error}") from error


def resize(pixels: np.ndarray, width_px: int, height_px: int) -> np.ndarray:
    """uint8 RGB [H, W, 3] at another size, antialiased."""
    return np.asarray(Image.fromarray(pixels).resize((width_px, height_px), Image.Resampling.BICUBIC))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits a pixel
        return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
