"""Prints: what is kept of a clip so that copies of it can be found without decoding it again.

In: uint8 arrays. Out: a *print*, the clip as a tiny film: four samples a second of 12 x 12 luma and 2 x 4 x 4
chroma cells of its active picture, 0.7 KB a second. Never: files.
"""

from functools import lru_cache

import numpy as np

from pipeline.shots.descriptor import CHROMA_SIZE, LUMA_SIZE

PRINT_HZ = 4  # samples a second: half a second apart already differs under motion, a tenth is redundant
PRINT_MAX = 1200  # samples, five minutes; what comes later in one shot is not compared
PRINT_LUMA, PRINT_CHROMA = 12, 4  # cells along a side
PRINT_SIZE = PRINT_LUMA**2 + 2 * PRINT_CHROMA**2  # 176 bytes a sample


def clip_print(
    frames: np.ndarray, times_s: np.ndarray, end_s: float, active: tuple[float, float, float, float]
) -> np.ndarray:
    """The print of a clip, uint8 [S, PRINT_SIZE].

    `frames` uint8 [N, DIMENSIONS] are coarse grids of the whole picture (pipeline/shots/descriptor.py),
    `times_s` [N] when each comes on screen, `active` the [left, top, right, bottom] of the active picture as
    shares of the whole. A sample is what was on screen during its quarter of a second, so that the frame rate
    leaves no trace.
    """
    starts_s = np.asarray(times_s, np.float64) - times_s[0]
    ends_s = np.append(starts_s[1:], max(float(end_s) - float(times_s[0]), starts_s[-1] + 1e-3))
    samples = min(PRINT_MAX, max(1, round(float(ends_s[-1]) * PRINT_HZ)))
    edges = np.searchsorted(ends_s, np.arange(samples + 1) / PRINT_HZ, side="right")
    on_screen = np.empty((samples, frames.shape[1]), np.float32)
    for k in range(samples):
        first, last = int(edges[k]), int(min(edges[k + 1] + 1, len(starts_s)))
        first = min(first, last - 1)
        on_screen_s = np.minimum(ends_s[first:last], (k + 1) / PRINT_HZ) - np.maximum(
            starts_s[first:last], k / PRINT_HZ
        )
        weights = np.maximum(on_screen_s, 1e-9)
        on_screen[k] = weights @ frames[first:last] / weights.sum()
    return _film(on_screen, active)


def still_prints(frames: np.ndarray) -> np.ndarray:
    """The one sample of each of N stills without bars, uint8 [N, PRINT_SIZE], from their coarse grids, uint8
    [N, DIMENSIONS]."""
    return _film(frames.astype(np.float32), (0.0, 0.0, 1.0, 1.0))


def _film(on_screen: np.ndarray, active: tuple[float, float, float, float]) -> np.ndarray:
    """Samples uint8 [S, PRINT_SIZE] of coarse grids float32 [S, DIMENSIONS]."""
    left, top, right, bottom = active
    sides, bars = (PRINT_LUMA, PRINT_CHROMA, PRINT_CHROMA), (0, 128, 128)
    planes = [
        resample(_without_bars(plane, bar, active), side, (top, bottom), (left, right))
        for plane, side, bar in zip(_planes(on_screen), sides, bars, strict=True)
    ]
    tiny = np.concatenate([plane.reshape(len(on_screen), -1) for plane in planes], axis=1)
    return np.rint(tiny).astype(np.uint8)


def _without_bars(planes: np.ndarray, bar: int, active: tuple[float, float, float, float]) -> np.ndarray:
    """Planes [N, H, W] with the level of the bars taken out of the cells that bars cover in part."""
    left, top, right, bottom = active
    down, across = (
        np.clip(np.minimum(end * size, np.arange(size) + 1) - np.maximum(start * size, np.arange(size)), 0, 1)
        for start, end, size in ((top, bottom, planes.shape[1]), (left, right, planes.shape[2]))
    )
    active_share = np.maximum(np.outer(down, across), 0.1).astype(np.float32)  # of each cell; [H, W]
    return np.clip((planes - bar) / active_share + bar, 0, 255)


def resample(
    planes: np.ndarray, side: int, rows: tuple[float, float], columns: tuple[float, float]
) -> np.ndarray:
    """Area averages [..., side, side] over the part of [..., H, W] between these shares of its height and
    width."""
    high, wide = planes.shape[-2:]
    return overlap_weights(side, high, rows) @ planes @ overlap_weights(side, wide, columns).T


@lru_cache(maxsize=256)
def overlap_weights(cells: int, size: int, part: tuple[float, float]) -> np.ndarray:
    """float32 [cells, size]: how much of each of `size` cells lies in each of `cells` cells over `part` (two
    shares of the whole). Rows add up to one."""
    edges = (part[0] + (part[1] - part[0]) * np.arange(cells + 1) / cells) * size
    k = np.arange(size)
    shared = np.minimum(edges[1:, None], k + 1) - np.maximum(edges[:-1, None], k)
    shared = np.maximum(shared, 0)
    weights = (shared / shared.sum(axis=1, keepdims=True)).astype(np.float32)
    weights.flags.writeable = False  # it is shared between calls
    return weights


def _planes(grids: np.ndarray) -> list[np.ndarray]:
    """Luma [N, 16, 16] and two chroma planes [N, 8, 8] of grids [N, DIMENSIONS]."""
    parts = np.split(grids, (LUMA_SIZE, LUMA_SIZE + CHROMA_SIZE), axis=1)
    return [p.reshape(len(grids), round(p.shape[1] ** 0.5), -1) for p in parts]
