"""What a decode gives: the header, frames, and what had to be left out.

In: pictures of a codec. Out: upright pixels, converted only when asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.video.reformatter import ColorRange, Interpolation

from pipeline.media.colour import Scaler, cut
from pipeline.media.fields import shown_picture
from pipeline.media.orientation import Orientation
from pipeline.media.tones import HDR

PLANAR_8_BIT = ("yuv4", "yuvj4", "nv", "gray")  # names of layouts with a luma plane, if it has 8 bits
BICUBIC = int(Interpolation.BICUBIC | Interpolation.ACCURATE_RND)


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """What the header says. Size is as displayed; frame counts in headers are not worth reading."""

    container: str
    codec: str
    width: int
    height: int
    rotation: int  # degrees counter-clockwise, after a mirror if there is one; already in width and height
    fps: float  # 0 when the header has no rate
    stream_duration_s: float  # what the header says of the video stream; 0 when it does not
    container_duration_s: float  # and of the whole file, sound and late starts included; 0 when it does not
    has_audio: bool
    clock_may_jump: bool = False  # no place can be sought by its time (pipeline/media/clock.py)
    transfer: str = "sdr"  # or pq, hlg: high dynamic range, shown tone-mapped


@dataclass(slots=True, kw_only=True)
class Damage:
    """What a decode had to leave out; complete when the decode has ended."""

    dropped: int = 0  # packets or frames that could not be trusted
    begins_inside: bool = False  # the stream begins inside a group of pictures, whose rest is left out
    clock_jumps: int = 0  # the clock jumped so many times, which is no time on screen
    size_change: str = ""  # the picture size changed: the frames from there on are left out


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture; pixels are converted only when asked for, scaled inside the converter."""

    index: int
    time_s: float
    orientation: Orientation
    picture: av.VideoFrame  # as coded; what is shown of an interlaced one is a field of it
    scaler: Scaler
    info: MediaInfo  # of its source
    after_gap: bool = False  # frames between the one before and this one were left out

    def yuv(self, width_px: int, height_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Upright planes at about this display size: luma [H, W], chroma [H/2, W/2] twice; 8 bit, full
        range."""
        size = self._coded(width_px, height_px)
        small = self.scaler.convert(
            shown_picture(self.picture), *size, "yuv420p", Interpolation.FAST_BILINEAR, full_range=True
        )
        y, u, v = (_plane(plane) for plane in small.planes)
        return self._upright(y), self._upright(u), self._upright(v)

    def luma(self, width_px: int, height_px: int) -> np.ndarray:
        """Upright 8-bit full-range luma [H, W]."""
        size = self._coded(width_px, height_px)
        small = self.scaler.convert(
            shown_picture(self.picture), *size, "gray", Interpolation.AREA, full_range=True
        )
        return self._upright(_plane(small.planes[0]))

    def coded_luma(self) -> tuple[np.ndarray, bool]:
        """The luma plane as it was coded, uint8 [H, W] not turned and not to be written, and whether its
        range is full (else 16 to 235). Costs nothing for 8-bit planar video: it is the decoder's own memory.
        """
        layout = self.picture.format
        shown_as_coded = self.picture.color_trc not in HDR
        if shown_as_coded and layout.name.startswith(PLANAR_8_BIT) and layout.components[0].bits == 8:
            full = self.picture.color_range == ColorRange.JPEG or (
                layout.name.startswith(("yuvj", "gray")) and self.picture.color_range != ColorRange.MPEG
            )
            return _plane(self.picture.planes[0]), full
        size = self.picture.width, self.picture.height
        grey = self.scaler.convert(self.picture, *size, "gray", Interpolation.AREA, full_range=True)
        return _plane(grey.planes[0]), True

    def upright_profile(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What belongs to the rows and columns of the coded picture, for those of the upright one."""
        return self.orientation.profile(rows, columns)

    def small_rgb(self, width_px: int, height_px: int) -> np.ndarray:
        """Upright uint8 RGB [H, W, 3], scaled down by area averages: half the cost of `rgb`."""
        size = self._coded(width_px, height_px)
        return self._upright(
            self.scaler.convert(shown_picture(self.picture), *size, "rgb24", Interpolation.AREA).to_ndarray()
        )

    def rgb(self, width_px: int, height_px: int, crop: Sequence[float] = (0.0, 0.0, 1.0, 1.0)) -> np.ndarray:
        """Upright uint8 RGB [H, W, 3] of a part of the picture: crop is x, y, w, h as fractions of it."""
        picture = shown_picture(self.picture)
        if tuple(crop) != (0.0, 0.0, 1.0, 1.0):
            whole = self.scaler.whole(picture)
            pixels = self._upright(whole.to_ndarray())  # [H0, W0, 3]
            high, wide, _ = pixels.shape
            x, y = round(crop[0] * wide), round(crop[1] * high)
            w, h = max(1, round(crop[2] * wide)), max(1, round(crop[3] * high))
            small = cut(pixels[y : y + h, x : x + w], whole)
            return self.scaler.convert(small, width_px, height_px, "rgb24", BICUBIC).to_ndarray()
        size = self._coded(width_px, height_px)
        return self._upright(self.scaler.convert(picture, *size, "rgb24", BICUBIC).to_ndarray())

    def _coded(self, width_px: int, height_px: int) -> tuple[int, int]:
        return self.orientation.size(width_px, height_px)

    def _upright(self, pixels: np.ndarray) -> np.ndarray:
        return self.orientation.upright(pixels)


def _plane(plane: av.video.plane.VideoPlane) -> np.ndarray:
    return np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
