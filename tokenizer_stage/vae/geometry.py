"""Which pixels and which moments of a clip the VAE sees.

In: a picture size, an area budget and the sides that the VAE takes; a span, a frame rate and the frame counts
that it takes. Out: a target size with the crop that has its shape, and frame times. The aspect is the clip's
own: never padded, never stretched, never enlarged; less than one cell of the grid is cropped. Pure
arithmetic, no pixels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import ConfigError, MediaError

CROP_COST = 8.0  # losing 1 % of the picture to the crop is as bad as leaving 8 % of the budget unused:
# up to 4:1 it crops at most 6.4 % and uses at least 65 % of 96×64 in cells of 8 px; 0.9 % and 94 % of 832×480
EPSILON_S = 1e-6  # spans and frame periods meet only up to rounding
MAX_STRETCH = 0.005  # of a picture's aspect by a crop in whole pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """The whole numbers first + step·k: the frame counts or the sides (in pixels) that a VAE takes.

    >>> str(Counts(first=1, step=4)), 17 in Counts(first=1, step=4), Counts(first=1, step=4).at_most(16)
    ('1 + 4k', True, 13)
    """

    first: int
    step: int

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.step > 0):
            raise ConfigError(f"counts {self.first} + {self.step}k", expected="both above 0")

    def __contains__(self, count: object) -> bool:
        return isinstance(count, int) and count >= self.first and (count - self.first) % self.step == 0

    def __str__(self) -> str:
        return f"multiples of {self.step}" if self.first == self.step else f"{self.first} + {self.step}k"

    def at_most(self, limit: float) -> int:
        """The largest of them that is no more than the limit; 0 where there is none."""
        return 0 if limit < self.first else self.first + int((limit - self.first) // self.step) * self.step

    def up_to(self, limit: float) -> Iterator[int]:
        """All of them that are no more than the limit."""
        return iter(range(self.first, self.at_most(limit) + 1, self.step))

    def near(self, wanted: float) -> tuple[int, ...]:
        """Those on both sides of a number; where it is below them all, the first."""
        below = self.at_most(wanted)
        return (below, below + self.step) if below else (self.first,)

    def in_multiples_of(self, unit: int) -> "Counts":
        """Those of them that are whole multiples of `unit`.

        >>> Counts(first=320, step=200).in_multiples_of(16)
        Counts(first=320, step=400)
        """
        step = math.lcm(self.step, unit)
        for first in range(self.first, self.first + step, self.step):
            if first % unit == 0:
                return Counts(first=first, step=step)
        raise ConfigError(f"no number of {self} is a multiple of {unit}", fix="--set encode.patch=1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The widths and heights in pixels that a set's frames may have."""

    width: Counts
    height: Counts

    def on_grid(self, cell_px: int) -> "Sides":
        """Those that are whole cells: the VAE's spatial stride times a transformer's patch."""
        return Sides(width=self.width.in_multiples_of(cell_px), height=self.height.in_multiples_of(cell_px))


def square_cells(cell_px: int) -> Sides:
    """Every multiple of a cell, both ways."""
    counts = Counts(first=cell_px, step=cell_px)
    return Sides(width=counts, height=counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeShape:
    """What a VAE takes and gives: video `[B, 3, T, H, W]`, T and the sides of these counts, and latents
    `[B, channels, ceil(T / stride_t), H / stride_s, W / stride_s]`."""

    channels: int
    stride_t: int
    stride_s: int
    frames: Counts
    sides: Sides

    def latent(self, frames: int, height_px: int, width_px: int) -> tuple[int, int, int, int]:
        """The shape of the latent of such a video: channels, steps, rows, columns."""
        return (
            self.channels,
            -(-frames // self.stride_t),
            height_px // self.stride_s,
            width_px // self.stride_s,
        )

    def frames_of(self, steps: int) -> int:
        """How many frames a latent of that many steps is of; 0 where the VAE makes none of so many."""
        frames = self.frames.at_most(steps * self.stride_t)
        return frames if -(-frames // self.stride_t) == steps else 0


def causal_shape(*, channels: int, stride_t: int, stride_s: int) -> VaeShape:
    """That of a VAE of 1 + stride_t·k frames and sides that are multiples of stride_s, as most are."""
    frames = Counts(first=1, step=stride_t)
    return VaeShape(
        channels=channels, stride_t=stride_t, stride_s=stride_s, frames=frames, sides=square_cells(stride_s)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """`crop` is [x, y, w, h] in the pixels that came in; it is scaled to `width_px` × `height_px`."""

    width_px: int
    height_px: int
    crop: tuple[int, int, int, int]


def target_geometry(width: int, height: int, area_px: int, sides: Sides) -> Geometry:
    """The target within the area budget and the picture's own size that best trades size against crop; it
    costs less than one cell of the grid.

    Raises:
        MediaError: no target of these sides is that small, or has nearly this aspect.

    >>> target_geometry(1920, 1080, 96 * 64, square_cells(8))
    Geometry(width_px=104, height_px=56, crop=(0, 23, 1920, 1034))
    """
    aspect = width / height
    options = []
    for high in sides.height.up_to(min(height, area_px // sides.width.first)):
        for wide in sides.width.near(aspect * high):
            if (
                wide > width
                or wide * high > area_px
                or not _crops_less_than_a_cell(aspect, wide, high, sides)
            ):
                continue
            lost = _crop_share(aspect, wide / high)
            options.append((wide * high / min(area_px, width * height) - CROP_COST * lost, wide, high))
    if not options:
        raise MediaError(
            f"a picture of {width}×{height} in {area_px} px",
            expected=f"widths of {sides.width} and heights of {sides.height} that fit, of nearly its aspect",
        )
    _, wide, high = max(options)
    return Geometry(width_px=wide, height_px=high, crop=_centre_crop(width, height, wide, high))


def frame_times(start_s: float, end_s: float, fps: float, max_frames: int, counts: Counts) -> list[float]:
    """Times from the clip's start, 1/fps apart, all inside the span: as many as the VAE takes, `max_frames`
    at most; what is left of a longer clip is left out. To a VAE of 1 + k·n frames, a clip without room for
    1 + n is an image, its first frame.

    Raises:
        MediaError: the clip has room for fewer frames than the VAE takes.

    >>> frame_times(2.0, 3.0, 8.0, 17, Counts(first=1, step=4))
    [2.0, 2.125, 2.25, 2.375, 2.5]
    """
    room = max(1, math.ceil((end_s - start_s - EPSILON_S) * fps))
    count = counts.at_most(min(room, max_frames))
    if not count:
        raise MediaError(
            f"a clip of {room} frames at {fps:g} a second", expected=f"{counts} of them, as the VAE takes"
        )
    return [start_s + index / fps for index in range(count)]


def frame_rate(wanted_fps: float, clip_fps: float | None) -> float:
    """The rate to sample at: as wanted, but never above the clip's own, which would only repeat frames; 0 is
    the clip's own.

    Raises:
        MediaError: the clip's own is wanted, and it is not known.
    """
    known = clip_fps is not None and clip_fps > 0
    if wanted_fps:
        return min(wanted_fps, clip_fps) if clip_fps and known else wanted_fps
    if not clip_fps or not known:
        raise MediaError("the clip's own frame rate is not known", fix="--set encode.fps=8, say")
    return clip_fps


def _crops_less_than_a_cell(aspect: float, wide: int, high: int, sides: Sides) -> bool:
    """Whether a picture of this aspect, scaled to just cover a target, sticks out by less than one step."""
    return aspect * high - wide < sides.width.step and wide / aspect - high < sides.height.step


def _crop_share(aspect: float, target: float) -> float:
    """The share of a picture of one aspect that lies outside its largest part of the other."""
    return 1.0 - min(aspect / target, target / aspect)


def _centre_crop(width: int, height: int, wide: int, high: int) -> tuple[int, int, int, int]:
    """The largest centred crop, in whole pixels, whose aspect is that of wide × high up to MAX_STRETCH."""
    for lost in range(min(width, height)):
        crop_width = min(width - lost, round((height - lost) * wide / high))
        crop_height = min(height - lost, round(crop_width * high / wide))
        crop_width = min(crop_width, round(crop_height * wide / high))
        stretch = crop_width * high / (crop_height * wide) - 1.0
        if crop_width <= wide or crop_height <= high:
            break
        if abs(stretch) <= MAX_STRETCH:
            return _centred(width, height, crop_width, crop_height)
    return _centred(width, height, wide, high)


def _centred(width: int, height: int, wide: int, high: int) -> tuple[int, int, int, int]:
    return (width - wide) // 2, (height - high) // 2, wide, high
