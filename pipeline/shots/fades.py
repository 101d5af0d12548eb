"""Fades through a plain colour (black, white): pictures, a run of plain frames, pictures. Pure.

In: descriptors and the frame rate. Out: spans with a confidence. Never: a fade in at the start of a video or
out at its end, which join no two shots; a flash, after which the same picture returns.
"""

import numpy as np

from pipeline.shots.descriptor import CHROMA_SIZE, LEVELS, LUMA_SIZE, contrast, difference

PLAIN = 4.0  # grid standard deviation (0-255) below which a picture is one plain colour
LONG_PLAIN_S = 1.0  # a plain stretch this long is a shot of its own
FLASH_S = 0.15  # a plain run no longer than this, without a ramp, is a flash or a black frame
LEAST_CHANGE = 0.2  # difference of the pictures on both sides
EXTREME = 12.0  # levels (0-255) from black or white
STEADY = 1.0  # levels between neighbouring frames of a picture that stays
SIDE_S, RAMP_S = 0.4, 2.0  # how far from the plain frames pictures are compared; how long a ramp may be


def fades(frames: np.ndarray, fps: float) -> list[tuple[int, int, float]]:
    """(first, frame, confidence): frames `first` to `frame` - 1 belong to the fade; a long plain stretch has
    two empty ones, at its ends. Fades in and out at the ends of the video have confidence 0: no boundary."""
    texture = contrast(frames)
    side = max(1, round(SIDE_S * fps))
    plain = texture < PLAIN
    for start, end in _runs(plain):
        plain[start:end] &= ~_walls(frames[start:end], side)
    spans: list[tuple[int, int, float]] = []
    for start, end in _runs(plain):
        if start == 0 or end == len(frames):
            first, frame = _ramp(texture, start, end, round(RAMP_S * fps))
            spans.append((first, frame, 0.0))
            continue
        if end - start >= LONG_PLAIN_S * fps:
            spans += [(start, start, 1.0), (end, end, 1.0)]
            continue
        change = float(difference(frames[max(0, start - side)], frames[min(len(frames) - 1, end + side - 1)]))
        first, frame = _ramp(texture, start, end, round(RAMP_S * fps))
        abrupt = end - start <= FLASH_S * fps and frame - first <= end - start + 1
        if change >= LEAST_CHANGE and not abrupt:
            spans.append((first, frame, min(1.0, change / (2 * LEAST_CHANGE))))
    return spans


def _runs(mask: np.ndarray) -> list[list[int]]:
    """[start, end) of each run of a bool [N]."""
    return np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2).tolist()  # type: ignore[no-any-return]


def _walls(frames: np.ndarray, least: int) -> np.ndarray:
    """bool [N] of a run of plain frames: those that are no part of a fade but a plain picture beside it, a
    wall or a night sky: it is steady for `least` frames, and of another colour than the black or white that
    the run goes through. A run that goes through neither is no fade: all of it is a picture."""
    extreme, levels = black_or_white(frames)
    walls = np.full(len(frames), not extreme.any())
    if extreme.any():
        change = np.abs(np.diff(levels, axis=0)).max(axis=1)  # [N - 1]
        for start, end in _runs((change < STEADY) & ~extreme[1:] & ~extreme[:-1]):
            walls[start : end + 1] = end + 1 - start >= least
    return walls


def black_or_white(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which frames are near black (so dark that their colour is not seen) or white, bool [N], and the mean of
    each plane, float32 [N, 3]."""
    ends = (LUMA_SIZE, LUMA_SIZE + CHROMA_SIZE)
    parts = np.split(frames, ends, axis=1)
    levels = np.stack([part.mean(axis=1, dtype=np.float32) for part in parts], axis=1)
    colour = np.abs(levels[:, 1:] - 128).max(axis=1)
    return (levels[:, 0] < EXTREME) | ((LEVELS - levels[:, 0] < EXTREME) & (colour < EXTREME)), levels


def _ramp(texture: np.ndarray, start: int, end: int, reach: int) -> tuple[int, int]:
    """(first, frame): the plain run widened over the frames whose contrast is still rising or falling."""
    first, frame, top = start, end, len(texture) - 1
    while first > max(0, start - reach) and texture[first - 1] < 0.95 * texture[max(0, first - 3)]:
        first -= 1
    while frame < min(top, end + reach) and texture[frame] < 0.95 * texture[min(top, frame + 2)]:
        frame += 1
    return first, frame
