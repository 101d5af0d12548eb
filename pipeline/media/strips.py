"""Filmstrips: how frames become small JPEGs. One way, for the analysis and for whoever trains or measures a
captioner: it is to see the same pictures everywhere.

In: pixels of frames, the crop of a clip. Out: JPEG. Never: a codec of video, a choice of frames.
"""

from collections.abc import Sequence

import numpy as np

from pipeline.media.stills import JpegBytes, decode_jpeg, encode_jpeg, resize

Picture = JpegBytes | np.ndarray  # uint8 RGB [H, W, 3] on the way to JPEG


def fit(width: int, height: int, long_px: int, least: int) -> tuple[int, int]:
    """(width, height) with the long side at most `long_px`, the short one at least `least`; never larger."""
    scale = min(1.0, long_px / max(width, height))
    return max(least, round(width * scale)), max(least, round(height * scale))


def strip_picture(pixels: np.ndarray, long_px: int) -> np.ndarray:
    """A picture (uint8 RGB [H, W, 3]) at the size it has in a filmstrip, long side at most `long_px`."""
    high, wide, _ = pixels.shape
    return resize(pixels, *fit(wide, high, long_px, least=1))


def strip_frames(
    pictures: Sequence[Picture], crop: Sequence[int], size: tuple[int, int], quality: int
) -> list[JpegBytes]:
    """The frames of a filmstrip, wherever one is made: whole pictures at its size (uint8 RGB [H, W, 3], or
    JPEG already) of a source of `size` (width, height) → JPEG, cut to `crop`, [x, y, w, h] of that source."""
    frames = encode_pictures(pictures, quality)
    if tuple(crop) == (0, 0, *size):
        return frames
    return [_cut(frame, crop, size, quality) for frame in frames]


def encode_pictures(pictures: Sequence[Picture], quality: int) -> list[JpegBytes]:
    """The pictures as JPEG; those that are JPEG already stay as they are."""
    return [encode_jpeg(p, quality) if isinstance(p, np.ndarray) else p for p in pictures]


def _cut(data: JpegBytes, crop: Sequence[int], size: tuple[int, int], quality: int) -> JpegBytes:
    pixels = decode_jpeg(data)
    across, down = pixels.shape[1] / size[0], pixels.shape[0] / size[1]
    x, y = round(crop[0] * across), round(crop[1] * down)
    w, h = max(1, round(crop[2] * across)), max(1, round(crop[3] * down))
    return encode_jpeg(pixels[y : y + h, x : x + w], quality)
