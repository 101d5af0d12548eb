"""Black bars around the picture, and the picture inside them. Pure functions.

In: the brightest luma of each row and of each column of frames. Out: the active picture as (x, y, w, h).
Never: a frame.

Bars are dark in every frame, come in equal pairs and end abruptly; a dark picture fades out, or is dark on
one side only. Where a clip is too dark to tell, the bars of its source hold: pass them as `usual`.
"""

import numpy as np

BAR_LUMA = 20  # rows and columns that never get brighter than this (0-255) are bars
EDGE_LUMA = 60  # what a bar borders on gets at least this bright
EDGE_PX = 4  # within so many pixels
LEAST, MOST = 0.015, 0.7  # thickness of one bar, and of both, as shares of the side
UNEQUAL = 0.03  # the two may differ by this share

Box = tuple[int, int, int, int]


def active_picture(rows: np.ndarray, columns: np.ndarray, usual: Box | None = None) -> Box:
    """(x, y, w, h) inside the bars, from the brightest luma (uint8, full range) of each row [K, H] and column
    [K, W] of K frames of a clip."""
    high, wide = rows.shape[1], columns.shape[1]
    whole = (0, 0, wide, high)
    if not len(rows):
        return usual or whole
    x, y, w, h = usual or whole
    left, right = _bars(columns.max(axis=0), (x, wide - x - w))
    top, bottom = _bars(rows.max(axis=0), (y, high - y - h))
    return left, top, wide - left - right, high - top - bottom


def _bars(brightest: np.ndarray, usual: tuple[int, int]) -> tuple[int, int]:
    """Thickness of the bar before and the bar after, of uint8 [n]."""
    side = len(brightest)
    lit = np.flatnonzero(brightest > BAR_LUMA)
    if not len(lit):
        return usual
    first, last = int(lit[0]), side - 1 - int(lit[-1])
    edges = brightest[first : first + EDGE_PX].max(), brightest[side - last - EDGE_PX : side - last].max()
    if min(edges) < EDGE_LUMA:  # too dark to tell
        return usual if usual[0] <= first and usual[1] <= last else (0, 0)
    paired = abs(first - last) <= max(3, UNEQUAL * side)
    thick = min(first, last) >= max(2, LEAST * side) and first + last <= MOST * side
    return (first, last) if paired and thick else (0, 0)
