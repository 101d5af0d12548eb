"""Text and logos laid over the picture: what has dense hard strokes and stays where it is. Pure functions.

In: luma of single frames at a long side of about 640 px, uint8. Out: a packed map of strokes a frame, and
from the maps of a clip the share of the picture that text covers, and logos. Never: what the text says.

A stroke is a cell of a fixed grid with a hard step up next to a hard step down (letters have both sides
within a few pixels; outlines of things have one). Cells that show a stroke in most frames and lie close
together along a line are an overlay. Scenery with fine hard patterns in front of a camera that does not move
looks the same and is counted too; soft, translucent or vertical writing is missed.
"""

import numpy as np

CELLS = 96  # a side of the grid, whatever the shape of the picture
PACKED_BYTES = CELLS * CELLS // 8
STEP = 64  # change of luma (0-255) over two pixels that is a hard step
STAYS = 0.75  # share of the frames in which a cell must show a stroke
WINDOW, DENSE = (
    (3, 9),
    0.5,
)  # cells (down, right) and the share of them with strokes, around a cell of an overlay
LEAST_CELLS = 8  # smaller groups are specks
CORNER = (0.25, 0.3)  # of the height and the width: a group inside of a corner is a logo


def strokes(luma: np.ndarray) -> np.ndarray:
    """Packed map of a frame [H, W]: uint8 [PACKED_BYTES]."""
    high, wide = luma.shape
    steps = luma[:, 2:].astype(np.int16) - luma[:, :-2]  # [H, W - 2]
    up, down = (_cells(hard, high, wide) for hard in (steps > STEP, steps < -STEP))
    return np.packbits(_widened(up) & _widened(down) & (up | down))


def areas(maps: np.ndarray) -> tuple[float, float | None]:
    """(text, logo) share of the picture, 0 to 1, from the maps [N, PACKED_BYTES] of a clip. Logos are
    overlays in a corner; None when a single frame cannot tell whether they stay. Text is every overlay, logos
                     included."""
    shown = np.unpackbits(maps, axis=1).reshape(len(maps), CELLS, CELLS)
    stays = shown.mean(axis=0) >= STAYS if len(maps) > 1 else shown[0] > 0
    groups = []
    if np.count_nonzero(stays) >= DENSE * WINDOW[0] * WINDOW[1]:  # most pictures end here
        dense = _density(stays) >= DENSE
        groups = _groups(dense) if dense.any() else []
    text = sum(len(rows) for rows, _ in groups)
    logo = sum(
        len(rows)
        for rows, columns in groups
        if _in_corner(rows, CORNER[0]) and _in_corner(columns, CORNER[1])
    )
    return text / CELLS**2, logo / CELLS**2 if len(maps) > 1 else None


def _cells(hard: np.ndarray, high: int, wide: int) -> np.ndarray:
    """bool [CELLS, CELLS]: the cells that hold a hard step, of bool [H, W - 2]."""
    cells = np.zeros((CELLS, CELLS), bool)
    at = np.flatnonzero(hard)
    if len(at):
        cells[at // (wide - 2) * CELLS // high, (at % (wide - 2) + 1) * CELLS // wide] = True
    return cells


def _widened(cells: np.ndarray) -> np.ndarray:
    wider = cells.copy()
    wider[:, 1:] |= cells[:, :-1]
    wider[:, :-1] |= cells[:, 1:]
    return wider


def _density(cells: np.ndarray) -> np.ndarray:
    """Share of set cells in the window around each: float [CELLS, CELLS]."""
    (down, right), side = WINDOW, CELLS
    sums = np.zeros((side + down, side + right), np.int32)
    sums[down // 2 + 1 : side + down // 2 + 1, right // 2 + 1 : side + right // 2 + 1] = cells
    sums = sums.cumsum(axis=0, dtype=np.int32).cumsum(axis=1, dtype=np.int32)
    inside = sums[down:, right:] - sums[:side, right:] - sums[down:, :side] + sums[:side, :side]
    return np.asarray(inside / (down * right))


def _groups(cells: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows and columns of each group of touching cells, specks left out."""
    labels = np.where(cells, np.arange(1, CELLS * CELLS + 1).reshape(CELLS, CELLS), 0)
    while True:  # every cell takes the largest label around it, until none changes
        around = np.pad(labels, 1)
        near = [around[i : i + CELLS, j : j + CELLS] for i in range(3) for j in range(3)]
        spread = np.where(cells, np.maximum.reduce(near), 0)
        if np.array_equal(spread, labels):
            break
        labels = spread
    names, counts = np.unique(labels[cells], return_counts=True)
    groups = (np.nonzero(labels == name) for name in names[counts >= LEAST_CELLS])
    return [(rows, columns) for rows, columns in groups]


def _in_corner(positions: np.ndarray, share: float) -> bool:
    return bool(positions.max() < share * CELLS or positions.min() >= (1 - share) * CELLS)
