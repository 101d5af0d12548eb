"""What a frame looks like, small enough to keep for every frame of a long video; and how unlike two are.

In: thumbnails' planes. Out: a descriptor a frame (cell means on a coarse grid), its `looks` (the same,
coarser, in two views), differences. Never: pixels at full size, times.

A look has two parts. *Places* is a picture of 8 x 8 cells: it changes with motion. *Palette* is the same
cells sorted by value, whatever their place: motion hardly changes it, a new shot does. Both are scaled so
that the sum of absolute differences is a colour difference: mean luma difference plus twice the mean chroma
difference, each 0 to 1.
"""

from collections.abc import Iterator

import numpy as np

LUMA_CELLS, CHROMA_CELLS = 16, 8  # cells along a side of the grid
LUMA_SIZE, CHROMA_SIZE = LUMA_CELLS**2, CHROMA_CELLS**2
DIMENSIONS = LUMA_SIZE + 2 * CHROMA_SIZE
LEVELS = 255  # of a plane: from black to white

PLACES_SIDE = LUMA_CELLS // 2  # places are means of 2 x 2 cells
PLACES_LUMA, PLACES_CHROMA = LUMA_SIZE // 4, CHROMA_SIZE // 4
PLACES = PLACES_LUMA + 2 * PLACES_CHROMA
LUMA_RUN, CHROMA_RUN = 8, 4  # the palette is means of so many neighbours in the sorted order
PALETTE_LUMA, PALETTE_CHROMA = LUMA_SIZE // LUMA_RUN, CHROMA_SIZE // CHROMA_RUN
PALETTE = PALETTE_LUMA + 2 * PALETTE_CHROMA
NOISE = 4.0  # variance that coding noise adds to a plain picture's cells
BLOCK = 1024  # frames: bounds what a pass over all frames holds in float at a time


def descriptors(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """uint8 [B, DIMENSIONS]: cell means of the three planes (uint8 [B, H, W]; at least a pixel a cell)."""
    cells = (_cells(y, LUMA_CELLS), _cells(u, CHROMA_CELLS), _cells(v, CHROMA_CELLS))
    return np.concatenate([np.rint(c).astype(np.uint8) for c in cells], axis=1)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How unlike two pictures are, [..., DIMENSIONS] to [...]: mean absolute luma difference plus twice the
    chroma's, each 0 to 1, plus a quarter of the luma structure that does not correlate (0 to 2)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    cells = np.abs(a - b)
    colour = (cells[..., :LUMA_SIZE].mean(axis=-1) + 2 * cells[..., LUMA_SIZE:].mean(axis=-1)) / LEVELS
    return colour + 0.25 * (1 - correlation(a[..., :LUMA_SIZE], b[..., :LUMA_SIZE]))


def steps(frames: np.ndarray) -> np.ndarray:
    """difference of each frame and the one before: float32 [N], the first 0."""
    change = np.zeros(len(frames), np.float32)
    for block in _blocks(1, len(frames)):
        change[block] = difference(frames[block], frames[block.start - 1 : block.stop - 1])
    return change


def contrast(frames: np.ndarray) -> np.ndarray:
    """Standard deviation of the luma cells of each frame: float32 [N], of 255."""
    deviation = np.zeros(len(frames), np.float32)
    for block in _blocks(0, len(frames)):
        deviation[block] = frames[block, :LUMA_SIZE].astype(np.float32).std(axis=1)
    return deviation


def looks(frames: np.ndarray) -> np.ndarray:
    """uint8 [N, DIMENSIONS] to float32 [N, PLACES + PALETTE]."""
    views = np.empty((len(frames), PLACES + PALETTE), np.float32)
    luma, chroma = LUMA_SIZE, LUMA_SIZE + CHROMA_SIZE
    for block in _blocks(0, len(frames)):
        y, u, v = np.split(frames[block].astype(np.float32), (luma, chroma), axis=1)
        places = [
            _pooled(y, LUMA_CELLS) / PLACES_LUMA,
            *(_pooled(c, CHROMA_CELLS) / PLACES_CHROMA for c in (u, v)),
        ]
        palette = [
            _sorted(y, LUMA_RUN) / PALETTE_LUMA,
            *(_sorted(c, CHROMA_RUN) / PALETTE_CHROMA for c in (u, v)),
        ]
        views[block] = np.concatenate([*places, *palette], axis=1) / LEVELS
    return views


def apart(values: np.ndarray, lag: int) -> np.ndarray:
    """Sum of absolute differences of rows s and s + lag: float32 [N - lag]."""
    sums = np.zeros(max(0, len(values) - lag), np.float32)
    for block in _blocks(0, len(sums)):
        sums[block] = np.abs(values[block.start + lag : block.stop + lag] - values[block]).sum(axis=1)
    return sums


def correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of two grids over their last axis; two plain pictures count as uncorrelated."""
    floor = a.shape[-1] * NOISE
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    return (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + floor) * ((b * b).sum(-1) + floor))


def unexplained_by_shift(a: np.ndarray, b: np.ndarray, reach: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """How unlike pairs of luma grids [K, DIMENSIONS] stay under the best shift of up to `reach` cells (a
    moving camera): the least 1 - correlation, and the least luma difference (0 to 1) plus a quarter of it,
    each float32 [K]."""
    structure, both = (np.full(len(a), np.inf, np.float32) for _ in range(2))
    for block in _blocks(0, len(a)):
        p, q = (_luma(x[block]) for x in (a, b))
        for down in range(-reach, reach + 1):
            for across in range(-reach, reach + 1):
                here, there = _part(p, down, across), _part(q, -down, -across)  # [B, cells in view]
                unlike = 1 - correlation(here, there)  # [B]
                structure[block] = np.minimum(structure[block], unlike)
                colour = np.abs(here - there).mean(axis=1) / LEVELS
                both[block] = np.minimum(both[block], colour + 0.25 * unlike)
    return structure, both


def _luma(frames: np.ndarray) -> np.ndarray:
    """[B, DIMENSIONS] to float32 [B, LUMA_CELLS, LUMA_CELLS]."""
    return frames[:, :LUMA_SIZE].astype(np.float32).reshape(-1, LUMA_CELLS, LUMA_CELLS)


def _part(grids: np.ndarray, down: int, across: int) -> np.ndarray:
    """The cells of [K, CELLS, CELLS] that remain in view after a shift: [K, cells]."""
    rows = slice(max(0, down), LUMA_CELLS + min(0, down))
    part = grids[:, rows, max(0, across) : LUMA_CELLS + min(0, across)]
    return part.reshape(len(grids), part.shape[1] * part.shape[2])


def _pooled(cells: np.ndarray, side: int) -> np.ndarray:
    """Means of 2 x 2 cells: [B, side * side] to [B, side * side / 4]."""
    return cells.reshape(-1, side // 2, 2, side // 2, 2).mean(axis=(2, 4)).reshape(len(cells), -1)


def _sorted(cells: np.ndarray, run: int) -> np.ndarray:
    """Cell values in order, the means of each `run` of them: [B, cells / run]."""
    return np.sort(cells, axis=1).reshape(len(cells), -1, run).mean(axis=2)


def _blocks(start: int, stop: int) -> Iterator[slice]:
    for first in range(start, stop, BLOCK):
        yield slice(first, min(first + BLOCK, stop))


def _cells(planes: np.ndarray, cells: int) -> np.ndarray:
    """Area averages of uint8 [B, H, W] over a grid: float32 [B, cells * cells].

    Two products with matrices of ones and zeros: sums below 2^24 are exact in float32 in any order."""
    down, across = (_membership(side, cells) for side in planes.shape[1:])  # [H, cells], [W, cells]
    sums = down.T @ (planes.astype(np.float32) @ across)
    return (sums / np.outer(down.sum(axis=0), across.sum(axis=0))).reshape(len(planes), cells * cells)


def _membership(side: int, cells: int) -> np.ndarray:
    """float32 [side, cells]: one where a pixel along a side belongs to a cell."""
    starts = np.arange(cells) * side // cells
    return np.equal.outer(np.searchsorted(starts, np.arange(side), "right") - 1, np.arange(cells)).astype(
        "f4"
    )
