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


FRAME = np.dtype(  # what is kept of a frame; the motion is that since the frame before it (0 for the first)
    [
        ("luma", "f4"),
        ("contrast", "f4"),
        ("saturation", "f4"),
        ("black", "?"),
        ("moved", "f4"),  # mean displacement of parts, in long sides
        ("panned", "f4"),  # median displacement, in long sides
    ]
)
CLOSE = np.dtype([("sharpness", "f4")])  # what is kept of a frame looked at in full size, about once a second


def measure(y: np.ndarray, u: np.ndarray, v: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """FRAME [B] of consecutive frames from their planes (uint8 [B, H, W], full range); `before` is the luma
    [H, W] of the frame before the first. How frames are cut into batches changes no value."""
    count, pixels = len(y), y[0].size
    rows = np.zeros(count, FRAME)
    total = y.sum(axis=(1, 2), dtype=np.int64)
    squares = np.square(y, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
    rows["luma"] = total / (255.0 * pixels)
    rows["contrast"] = np.sqrt(squares / pixels - (total / pixels) ** 2) / 255
    blue, red = u.astype(np.int16) - 128, v.astype(np.int16) - 128
    chroma = np.sqrt(blue.astype(np.int32) ** 2 + red.astype(np.int32) ** 2, dtype=np.float32)
    rows["saturation"] = np.minimum(1.0, chroma.reshape(count, -1).mean(axis=1) / 128)
    rows["black"] = (y < BLACK_LUMA).sum(axis=(1, 2)) >= BLACK_SHARE * pixels
    first = y[:1] if before is None else before[None]
    rows["moved"], rows["panned"] = displacement(np.concatenate([first, y]))
    return rows


def clip_signals(
    rows: np.ndarray, close: np.ndarray, grids: np.ndarray, times_s: np.ndarray
) -> dict[str, float | None]:
    """Signals of one clip from its FRAME rows [N], CLOSE rows [K], coarse grids [N, cells] and times [N].

    The first row's motion belongs to the clip before and is not used."""
    if not len(rows):
        raise ValueError("a clip has at least one frame")
    span_s = float(times_s[-1] - times_s[0])
    moving = len(rows) > 1 and span_s > 0
    luma = rows["luma"].astype(np.float64)
    return {
        "motion": float(rows["moved"][1:].sum(dtype=np.float64)) / span_s if moving else None,
        "camera_motion": float(rows["panned"][1:].sum(dtype=np.float64)) / span_s if moving else None,
        "sharpness": float(close["sharpness"].mean(dtype=np.float64)) if len(close) else None,
        "luma": float(luma.mean()),
        "contrast": float(rows["contrast"].mean(dtype=np.float64)),
        "saturation": float(rows["saturation"].mean(dtype=np.float64)),
        "static_ratio": _static_ratio(grids, times_s) if moving else None,
        "text_area": None,
        "black_ratio": float(rows["black"].mean()),
        "flicker": float(np.abs(np.diff(luma, 2)).mean()) if len(rows) > 2 else None,
    }


def displacement(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean, median) displacement of the picture's parts between consecutive luma planes uint8 [B + 1, H, W]:
    [B] each, in long sides.

    Least squares on the brightness gradients of each block (Lucas and Kanade 1981), at a quarter of the
    pixels; exact up to about a pixel a frame there, too low but still growing beyond. In integers up to the
    sums of each block, so that the batch changes nothing.
    """
    small = _halved(planes)  # int16 [B + 1, H/2, W/2], sums of four pixels
    count, high, wide = len(planes) - 1, *small.shape[1:]
    if min(high, wide) < BLOCK + 2:
        return np.zeros(count, np.float32), np.zeros(count, np.float32)
    both, change = small[:-1] + small[1:], small[1:] - small[:-1]
    gy = (both[:, 2:, 1:-1] - both[:, :-2, 1:-1]).astype(np.int32)  # 16 times the gradient
    gx = (both[:, 1:-1, 2:] - both[:, 1:-1, :-2]).astype(np.int32)
    gt = change[:, 1:-1, 1:-1].astype(np.int32)  # 4 times the change
    xx, yy, xy = (_block_sums(p) / np.float32(256 * BLOCK**2) for p in (gx * gx, gy * gy, gx * gy))
    xt, yt = (_block_sums(p) / np.float32(64 * BLOCK**2) for p in (gx * gt, gy * gt))
    determinant = (xx + 1) * (yy + 1) - xy * xy  # the ones: still where there is no texture
    dx = np.clip(-((yy + 1) * xt - xy * yt) / determinant, -4, 4)  # [B, blocks]
    dy = np.clip(-((xx + 1) * yt - xy * xt) / determinant, -4, 4)
    textured = xx + yy > TEXTURE
    together = np.sqrt(_median(dx, textured) ** 2 + _median(dy, textured) ** 2)
    return np.sqrt(dx * dx + dy * dy).mean(axis=1) / max(high, wide), together / max(high, wide)


def inspect(small: np.ndarray, luma: np.ndarray, *, full_range: bool) -> np.ndarray:
    """CLOSE [1] of a frame looked at closely: its luma at a long side of at most 640 px (uint8 [h, w], full
    range), and as the decoder holds it (uint8 [H, W], a view, not to be written; black is 0 or 16)."""
    row = np.zeros(1, CLOSE)
    row["sharpness"] = sharpness(small)
    return row


def _static_ratio(grids: np.ndarray, times_s: np.ndarray) -> float:
    earlier = np.maximum(np.searchsorted(times_s, times_s - STATIC_S, side="right") - 1, 0)  # [N]
    later = np.flatnonzero(times_s - times_s[0] >= min(STATIC_S, float(times_s[-1] - times_s[0])))
    change = np.abs(grids[later].astype(np.int16) - grids[earlier[later]].astype(np.int16)).max(axis=1)
    return float((change <= STATIC_CHANGE).mean())


def sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian over the variance, of uint8 [H, W]. In integers: exact, and fast."""
    if min(luma.shape) < 3:
        return 0.0
    p = luma.astype(np.int16)
    edges = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * p[1:-1, 1:-1]
    # the four: coding noise of a plain picture is no detail
    return _variance(edges) / (_variance(p) + 4)


def active_picture(rows: np.ndarray, columns: np.ndarray) -> tuple[int, int, int, int]:
    """(x, y, w, h) inside the black bars, from the brightest luma (uint8, full range) of each row [K, H] and
    column [K, W] of K frames of a clip.

    Bars come in equal pairs; what is dark on one side only is a dark picture and stays.
    """
    high, wide = rows.shape[1], columns.shape[1]
    if not len(rows):
        return 0, 0, wide, high
    top, bottom = _bars(rows.max(axis=0))
    left, right = _bars(columns.max(axis=0))
    return left, top, wide - left - right, high - top - bottom


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


def _halved(planes: np.ndarray) -> np.ndarray:
    high, wide = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    rows = planes[:, :high:2, :wide].astype(np.int16) + planes[:, 1:high:2, :wide]  # [B, H/2, W]
    return rows[:, :, ::2] + rows[:, :, 1::2]  # int16 [B, H/2, W/2]


def _variance(values: np.ndarray) -> float:
    mean = int(values.sum(dtype=np.int64)) / values.size
    return int(np.square(values, dtype=np.int32).sum(dtype=np.int64)) / values.size - mean * mean


def _block_sums(planes: np.ndarray) -> np.ndarray:
    """Sums of BLOCK x BLOCK parts of int32 [B, H, W]: int32 [B, parts]."""
    high, wide = planes.shape[1] // BLOCK, planes.shape[2] // BLOCK
    rows = planes[:, : high * BLOCK, : wide * BLOCK].reshape(len(planes), high, BLOCK, wide * BLOCK)
    return (
        rows.sum(axis=2, dtype=np.int32).reshape(len(planes), high * wide, BLOCK).sum(axis=2, dtype=np.int32)
    )


def _median(values: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Median of the chosen values in each row [B, N]: [B]; 0 where fewer than four are chosen."""
    ranked = np.sort(np.where(chosen, values, np.inf), axis=1)
    count = chosen.sum(axis=1)
    middle = [np.maximum(0, (count - 1) // 2), np.minimum(values.shape[1] - 1, count // 2)]
    low, high = (np.take_along_axis(ranked, m[:, None], axis=1)[:, 0] for m in middle)
    return np.where(count >= 4, (low + high) / 2, 0.0)
