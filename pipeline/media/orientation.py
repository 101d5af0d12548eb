"""How a coded picture is turned and mirrored to be shown. Pure.

In: a display matrix as FFmpeg hands it on, from a container's track header (ISO 14496-12, 8.3.2) or from a
picture's own display orientation (H.264 and H.265, SEI). Out: one of the eight ways to lay a picture on a
screen. Never: a resampled picture: a matrix that turns by other angles is taken as the nearest quarter, and
one that shows nothing (all zero, singular) as none: the picture is shown as it is coded. What a matrix says
of scale is the sample aspect ratio's, what it says of place means nothing alone on a screen.
"""

import math
import struct
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

MATRIX = struct.Struct("@9i")  # a b u, c d v, x y w: (p, q) is shown at (a p + c q + x, b p + d q + y)
FLAT = 1e-6  # the area of the picture of a unit square, its sides made one long: less of it is no picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """The coded picture is mirrored left to right, or not, and then turned."""

    quarters: int = 0  # counter-clockwise, 0 to 3
    mirrored: bool = False

    def __post_init__(self) -> None:
        if self.quarters not in range(4):
            raise ValueError(f"quarters {self.quarters}, expected 0 to 3")

    @property
    def degrees(self) -> int:
        """Counter-clockwise, after the mirror."""
        return 90 * self.quarters

    def size(self, width_px: int, height_px: int) -> tuple[int, int]:
        """Width and height as shown of those as coded, and the other way round."""
        return (height_px, width_px) if self.quarters % 2 else (width_px, height_px)

    def upright(self, pixels: np.ndarray) -> np.ndarray:
        """The coded picture [H, W, ...] as shown: a view; the very array where nothing is to be done."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, self.quarters) if self.quarters else pixels

    def profile(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What belongs to the rows and columns of the coded picture, for those of the picture as shown."""
        if self.mirrored:
            columns = columns[::-1]
        turned = {1: (columns[::-1], rows), 2: (rows[::-1], columns[::-1]), 3: (columns, rows[::-1])}
        return turned.get(self.quarters, (rows, columns))


AS_CODED = Orientation()


@lru_cache(maxsize=64)
def of_matrix(matrix: bytes) -> Orientation:
    """What these nine int32 (of the machine's order) show."""
    if len(matrix) != MATRIX.size:
        return AS_CODED
    a, b, _, c, d, *_ = MATRIX.unpack(matrix)
    across, down = math.hypot(a, b), math.hypot(c, d)
    if not across or not down:
        return AS_CODED
    a, b, c, d = a / across, b / across, c / down, d / down
    area = a * d - b * c
    if abs(area) < FLAT:
        return AS_CODED
    if area < 0:  # undo the mirror, which comes first
        a, b = -a, -b
    clockwise = math.atan2(b - c, a + d)
    return Orientation(quarters=math.floor(0.5 - clockwise / (math.pi / 2)) % 4, mirrored=area < 0)
