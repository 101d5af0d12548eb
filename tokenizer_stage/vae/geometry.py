"""Which pixels and which moments of a clip the VAE sees.

In: a picture size, an area budget and the VAE's stride; a span, a frame rate and a frame limit. Out: a
target size with the crop that has exactly its shape, and frame times. The aspect is the clip's own: never
padded, never stretched, never enlarged; only a few per cent are cropped so that both sides land on the
stride. Pure arithmetic, no pixels.
"""

import math
from dataclasses import dataclass

from pipeline.errors import MediaError

CROP_COST = 8.0  # losing 1 % of the picture to the crop is as bad as leaving 8 % of the budget unused:
# up to 4:1 it crops at most 6.4 % and uses at least 65 % of 96×64; 0.9 % and 94 % of 832×480
EPSILON_S = 1e-6  # spans and frame periods meet only up to rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """`crop` is [x, y, w, h] in the pixels that came in; it is scaled to `width_px` × `height_px`."""

    width_px: int
    height_px: int
    crop: tuple[int, int, int, int]


def target_geometry(width: int, height: int, area_px: int, stride: int = 8) -> Geometry:
    """The target within the area budget and the picture's own size that best trades size against crop.

    >>> target_geometry(1920, 1080, 96 * 64)
    Geometry(width_px=104, height_px=56, crop=(0, 23, 1920, 1034))
    """
    if width < stride or height < stride or area_px < stride * stride:
        raise MediaError(
            f"a picture of {width}×{height} in {area_px} px", expected=f"sides of {stride} px or more"
        )
    options = []
    for rows in range(1, min(height, area_px // stride) // stride + 1):
        most = min(width // stride, area_px // (rows * stride**2))
        for columns in _columns_near(width / height * rows, most):
            lost = _crop_share(width / height, columns / rows)
            used = columns * rows * stride**2 / min(area_px, width * height)
            options.append((used - CROP_COST * lost, columns, rows))
    _, columns, rows = max(options)
    return Geometry(
        width_px=columns * stride, height_px=rows * stride, crop=_centre_crop(width, height, columns, rows)
    )


def frame_times(start_s: float, end_s: float, fps: float, max_frames: int) -> list[float]:
    """1 + 4k times from the clip's start, 1/fps apart, all inside the span. A clip with room for fewer
    than five gives one frame, its first: to a video model that is an image.

    >>> frame_times(2.0, 3.0, 8.0, 17)
    [2.0, 2.125, 2.25, 2.375, 2.5]
    """
    room = max(1, math.ceil((end_s - start_s - EPSILON_S) * fps))
    count = 1 + (min(room, max_frames) - 1) // 4 * 4
    return [start_s + index / fps for index in range(count)]


def frame_rate(wanted_fps: float, clip_fps: float | None) -> float:
    """The rate to sample at: as wanted, but never above the clip's own, which would only repeat frames."""
    return min(wanted_fps, clip_fps) if clip_fps and clip_fps > 0 else wanted_fps


def _columns_near(wanted: float, most: int) -> list[int]:
    """Whole column counts on both sides of the wanted one, within 1 … most."""
    around = (math.floor(wanted), math.ceil(wanted))
    return sorted({min(max(1, columns), most) for columns in around}) if most >= 1 else []


def _crop_share(aspect: float, target: float) -> float:
    """The share of a picture of one aspect that lies outside its largest part of the other."""
    return 1.0 - min(aspect / target, target / aspect)


def _centre_crop(width: int, height: int, columns: int, rows: int) -> tuple[int, int, int, int]:
    """The largest centred crop of aspect columns : rows, in whole pixels."""
    if width * rows >= height * columns:
        crop_width, crop_height = max(1, round(height * columns / rows)), height
    else:
        crop_width, crop_height = width, max(1, round(width * rows / columns))
    return (width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height
