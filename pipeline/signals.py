"""Frames → numbers. Pure functions; every signal's unit and range is stated here.

In: small 8-bit full-range planes of consecutive frames. Out: one row of numbers a frame, and from the
rows of a clip its signals. Never: a verdict (pipeline/judge.py), a file, a model. null means not
measured, not zero.

    motion         mean speed of the picture's parts, in long sides of the picture a second; 0 = still
    camera_motion  speed of what moves together (the median part), same unit
    sharpness      variance of the Laplacian of luma over the variance of luma, at a long side of at most
    640 px, so
                   that exposure does not matter; blurred < 0.004 < 0.01 < sharp
    luma           mean luma, 0 to 1
    contrast       mean standard deviation of luma, 0 to 0.5
    saturation     mean distance from grey in the chroma plane, 0 to 1
    static_ratio   share of frames without a visible change since a quarter of a second before, 0 to 1
    text_area      not measured yet
    black_ratio    share of frames that are black, 0 to 1
    flicker        mean second difference of mean luma (0 to 1), that is brightness that jumps back and forth
"""

from dataclasses import dataclass

import numpy as np

STATIC_CHANGE = 1.5  # largest change (0-255) of a grid cell between frames that count as the same
STATIC_S = 0.25  # and how far apart those frames are: slow motion must show
BLACK_LUMA, BLACK_SHARE = 24, 0.98  # a black frame: this share of its pixels is darker than this
BAR_LUMA = 20  # rows and columns that never get brighter than this are bars
EDGE_LUMA = (
    60  # what a bar borders on gets at least this bright within 4 pixels; a dark picture fades out instead
)
BLOCK = 8  # pixels along a side of the parts whose motion is measured
TEXTURE = 4.0  # variance that a part's gradients must exceed for its motion to be believed


@dataclass(frozen=True, slots=True)
class FrameRow:
    """What is kept of a frame: levels of itself, and motion since the frame before it (0 for the first)."""

    luma: float
    contrast: float
    saturation: float
    black: bool
    moved: float  # mean displacement of parts, in long sides
    panned: float  # median displacement, in long sides


def measure(y: np.ndarray, u: np.ndarray, v: np.ndarray, before: np.ndarray | None) -> FrameRow:
    """One frame from its planes (uint8, full range); `before` is the luma of the frame before it."""
    moved, panned = (0.0, 0.0) if before is None else displacement(before, y)
    chroma = np.hypot(u.astype(np.float32) - 128, v.astype(np.float32) - 128)
    return FrameRow(
        luma=float(y.mean()) / 255,
        contrast=float(y.std()) / 255,
        saturation=min(1.0, float(chroma.mean()) / 128),
        black=bool((y < BLACK_LUMA).mean() >= BLACK_SHARE),
        moved=moved,
        panned=panned,
    )


def clip_signals(rows: list[FrameRow], grids: np.ndarray, times_s: np.ndarray) -> dict[str, float | None]:
    """Signals of one clip from its frame rows, coarse grids [N, cells] and times [N].

    The first row's motion belongs to the clip before and is not used. Sharpness is added by the caller,
    from full
    frames."""
    if not rows:
        raise ValueError("a clip has at least one frame")
    luma = np.array([r.luma for r in rows])
    span_s = float(times_s[-1] - times_s[0])
    moving = len(rows) > 1 and span_s > 0
    return {
        "motion": sum(r.moved for r in rows[1:]) / span_s if moving else None,
        "camera_motion": sum(r.panned for r in rows[1:]) / span_s if moving else None,
        "sharpness": None,
        "luma": float(luma.mean()),
        "contrast": float(np.mean([r.contrast for r in rows])),
        "saturation": float(np.mean([r.saturation for r in rows])),
        "static_ratio": _static_ratio(grids, times_s) if moving else None,
        "text_area": None,
        "black_ratio": float(np.mean([r.black for r in rows])),
        "flicker": float(np.abs(np.diff(luma, 2)).mean()) if len(rows) > 2 else None,
    }


def displacement(before: np.ndarray, after: np.ndarray) -> tuple[float, float]:
    """(mean, median) displacement of the picture's parts between two luma planes [H, W], in long sides.

    Least squares on the brightness gradients of each block (Lucas and Kanade 1981), at a quarter of the
    pixels;
    exact up to about a pixel a frame there, too low but still growing beyond.
    """
    a, b = _halved(before), _halved(after)  # float32 [H/2, W/2]
    if min(a.shape) < BLOCK + 2:
        return 0.0, 0.0
    middle = (a + b) / 2
    gy = (middle[2:, 1:-1] - middle[:-2, 1:-1]) / 2
    gx = (middle[1:-1, 2:] - middle[1:-1, :-2]) / 2
    gt = (b - a)[1:-1, 1:-1]
    xx, yy, xy, xt, yt = (_block_means(p) for p in (gx * gx, gy * gy, gx * gy, gx * gt, gy * gt))
    determinant = (xx + 1) * (yy + 1) - xy * xy  # the ones: still where there is no texture
    dx = np.clip(-((yy + 1) * xt - xy * yt) / determinant, -4, 4)
    dy = np.clip(-((xx + 1) * yt - xy * xt) / determinant, -4, 4)
    long_px = max(a.shape)
    textured = xx + yy > TEXTURE
    together = np.hypot(np.median(dx[textured]), np.median(dy[textured])) if textured.sum() >= 4 else 0.0
    return float(np.hypot(dx, dy).mean()) / long_px, float(together) / long_px


def _static_ratio(grids: np.ndarray, times_s: np.ndarray) -> float:
    earlier = np.maximum(np.searchsorted(times_s, times_s - STATIC_S, side="right") - 1, 0)  # [N]
    later = np.flatnonzero(times_s - times_s[0] >= min(STATIC_S, float(times_s[-1] - times_s[0])))
    change = np.abs(grids[later].astype(np.int16) - grids[earlier[later]].astype(np.int16)).max(axis=1)
    return float((change <= STATIC_CHANGE).mean())


def sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian over the variance, of uint8 [H, W]."""
    p = luma.astype(np.float32)
    if min(p.shape) < 3:
        return 0.0
    edges = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * p[1:-1, 1:-1]
    return float(edges.var() / (p.var() + 4))  # the four: coding noise of a plain picture is no detail


def active_picture(rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, w, h) inside the black bars, from the brightest luma of each row [H] and column [W] over a clip.

    Bars come in equal pairs; what is dark on one side only is a dark picture and stays.
    """
    top, bottom = _bars(rows)
    left, right = _bars(columns)
    return left, top, len(columns) - left - right, len(rows) - top - bottom


def _bars(brightest: np.ndarray) -> tuple[int, int]:
    side = len(brightest)
    lit = np.flatnonzero(brightest > BAR_LUMA)
    if not len(lit):
        return 0, 0
    first, last = int(lit[0]), side - 1 - int(lit[-1])
    paired = abs(first - last) <= max(3, 0.03 * side)
    edged = (
        min(brightest[first : first + 4].max(), brightest[side - last - 4 : side - last].max()) >= EDGE_LUMA
    )
    thick = min(first, last) >= max(2, 0.015 * side)
    return (first, last) if paired and edged and thick and first + last <= 0.7 * side else (0, 0)


def _halved(plane: np.ndarray) -> np.ndarray:
    high, wide = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    p = plane[:high, :wide].astype(np.float32)
    return (p[::2, ::2] + p[1::2, ::2] + p[::2, 1::2] + p[1::2, 1::2]) / 4


def _block_means(plane: np.ndarray) -> np.ndarray:
    high, wide = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    blocks = plane[: high * BLOCK, : wide * BLOCK].reshape(high, BLOCK, wide, BLOCK)
    return blocks.mean(axis=(1, 3))  # [H / BLOCK, W / BLOCK]
