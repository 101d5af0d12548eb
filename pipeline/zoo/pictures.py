"""The pictures of the zoo: four colours in four corners, and something that moves in the middle.

In: sizes and colours. Out: uint8 RGB [H, W, 3]. The seed says which colour lies in which corner, so that
another seed asks another question. Never: a file.
"""

import random
from collections.abc import Sequence

import numpy as np

from pipeline.zoo.case import RGB, Corners

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 200, 40), (30, 40, 210), (230, 220, 40)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
SIZE = (128, 96)  # (width, height) where a case does not ask for another
FRAMES, FPS = 25, 25  # one second


def seeded_corners(seed: int) -> Corners:
    """Red, green, blue and yellow; in an order of the seed's unless it is 0."""
    colours: list[RGB] = [RED, GREEN, BLUE, YELLOW]
    if seed:
        random.Random(seed).shuffle(colours)
    return colours[0], colours[1], colours[2], colours[3]


def other_scene(corners: Corners) -> Corners:
    """The corners of a second shot: another order, and so a hard cut."""
    a, b, c, d = corners
    return d, c, b, a


def quadrants(corners: Corners, size: tuple[int, int] = SIZE) -> np.ndarray:
    """uint8 [H, W, 3]: a quarter of the picture in each colour."""
    wide, high = size
    pixels = np.empty((high, wide, 3), np.uint8)
    top, left = high // 2, wide // 2
    pixels[:top, :left], pixels[:top, left:] = corners[0], corners[1]
    pixels[top:, :left], pixels[top:, left:] = corners[2], corners[3]
    return pixels


def moving(corners: Corners, size: tuple[int, int] = SIZE, frames: int = FRAMES) -> list[np.ndarray]:
    """Pictures [H, W, 3] in which a white square crosses the middle; the corners stay."""
    wide, high = size
    side, whole = max(2, high // 8), quadrants(corners, size)
    pictures = []
    for index in range(frames):
        pixels = whole.copy()
        x = wide // 4 + index * (wide // 2 - side) // max(1, frames - 1)
        y = (high - side) // 2
        pixels[y : y + side, x : x + side] = WHITE
        pictures.append(pixels)
    return pictures


def place(corners: Corners, order: Sequence[int]) -> Corners:
    """The corners of a picture that shows at each corner what lay at that corner of this one."""
    return corners[order[0]], corners[order[1]], corners[order[2]], corners[order[3]]
