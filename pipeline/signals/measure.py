"""Frames → numbers. Pure functions; every signal's unit and range is stated here.

In: small 8-bit full-range planes of consecutive frames, and luma of a few at full size. Out: a row of
numbers a frame, and from the rows of a clip its signals. Never: a verdict (pipeline/stages/judge.py), a
file, a model. null means not measured, not zero. Means are over the clip; "a second" makes a signal
independent of the frame rate, "long sides" (of the picture) of its size.

    motion           mean speed of the picture's parts, long sides a second; 0 = still (camera.py)
    camera_motion    mean speed of what moves together, long sides a second
    pan, tilt        speed of the camera to the right and up, long sides a second; content moves the other way
    zoom             growth of the picture, natural logarithm a second; 0.69 doubles it in a second
    roll             turn of the picture clockwise, degrees a second
    shake            camera's deviation from its own path smoothed over half a second, long sides a second
    sharpness        variance of the Laplacian over that of luma, at 640 px; blurred < 0.004 < 0.01 < sharp
    blockiness       excess of steps across the 8 x 8 grid over those inside, 0 to 1 (detail.py)
    noise            standard deviation of pixel noise in quiet parts, of 255; clean < 0.5
    quality          sharp, without block edges, without noise: 0 to 1; a rule of thumb
    interlacing      share of the coded picture with combs of two fields, 0 to 1; progressive < 0.01
    luma             mean luma, 0 to 1
    contrast         mean standard deviation of luma, 0 to 0.5
    saturation       mean distance from grey in the chroma plane, 0 to 1
    underexposed     share of pixels clipped to black, 0 to 1
    overexposed      share of pixels clipped to white, 0 to 1
    static_ratio     share of frames without a visible change since a quarter of a second before, 0 to 1
    duplicate_ratio  share of frames that repeat the one before while the frames around them change, 0 to 1:
                     0.5 for 15 frames a second stored as 30
    black_ratio      share of frames that are black, 0 to 1
    flicker          mean second difference of mean luma (0 to 1): brightness that jumps back and forth
    text_area        share of the picture under text and logos laid over it, 0 to 1 (overlay.py)
    logo_area        share of the picture under what stays in a corner, 0 to 1
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from pipeline.signals import camera, detail, flow, overlay

STATIC_CHANGE = 1.5  # largest change (0-255) of a grid cell between frames that count as the same
STATIC_S = 0.25  # and how far apart those frames are: slow motion must show
BLACK_LUMA, BLACK_SHARE = 24, 0.98  # a black frame: this share of its pixels is darker than this
CLIPPED = 3  # this close to 0 or 255, luma is clipped
REPEAT_REACH, REPEAT_SHARE, REPEAT_CHANGE = 5, 0.15, 0.002  # see _duplicate_ratio

FRAME = np.dtype(  # what is kept of a frame, since the one before it where it speaks of change
    [
        ("luma", "f4"),
        ("contrast", "f4"),
        ("saturation", "f4"),
        ("under", "f4"),
        ("over", "f4"),
        ("black", "?"),
        ("change", "f4"),  # mean absolute change of luma, 0 to 1
        *flow.MOTION.descr,
    ]
)
CLOSE = np.dtype(  # what is kept of a frame looked at in full size, about once a second
    [
        ("sharpness", "f4"),
        ("blockiness", "f4"),
        ("noise", "f4"),
        ("quality", "f4"),
        ("combing", "f4"),
        ("strokes", "u1", (overlay.PACKED_BYTES,)),
    ]
)
PER_CLOSE = {"sharpness": "sharpness", "blockiness": "blockiness", "noise": "noise", "quality": "quality"}
PER_CLOSE |= {"interlacing": "combing"}  # signal → the field that it is the mean of
PER_FRAME = {"luma": "luma", "contrast": "contrast", "saturation": "saturation", "black_ratio": "black"}
PER_FRAME |= {"underexposed": "under", "overexposed": "over"}


def measure(y: np.ndarray, u: np.ndarray, v: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """FRAME [B] of consecutive frames from their planes (uint8 [B, H, W], full range), motion left out: that
    is flow.Follower's. `before` is the luma [H, W] of the frame before the first. How frames are cut into
    batches changes no value."""
    count, pixels = len(y), y[0].size
    rows = np.zeros(count, FRAME)
    total = y.sum(axis=(1, 2), dtype=np.int64)
    squares = np.square(y, dtype=np.uint16).sum(axis=(1, 2), dtype=np.int64)
    rows["luma"] = total / (255.0 * pixels)
    rows["contrast"] = np.sqrt(squares / pixels - (total / pixels) ** 2) / 255
    blue, red = u.astype(np.float32) - 128, v.astype(np.float32) - 128
    rows["saturation"] = np.minimum(
        1.0, np.sqrt(blue * blue + red * red).reshape(count, -1).mean(axis=1) / 128
    )
    for name, dark in (("under", CLIPPED + 1), ("black", BLACK_LUMA)):
        share = np.array([np.count_nonzero(plane < dark) for plane in y]) / pixels
        rows[name] = share >= BLACK_SHARE if name == "black" else share
    rows["over"] = np.array([np.count_nonzero(plane >= 255 - CLIPPED) for plane in y]) / pixels
    sparse = np.concatenate([y[:1] if before is None else before[None], y])[:, ::2, ::2].astype(np.int16)
    rows["change"] = np.abs(sparse[1:] - sparse[:-1]).reshape(count, -1).mean(axis=1, dtype=np.float64) / 255
    return rows


def inspect(small: np.ndarray, luma: np.ndarray, *, full_range: bool) -> np.ndarray:
    """CLOSE [1] of a frame looked at closely: its luma at a long side of at most 640 px (uint8 [h, w], full
    range), and as the decoder holds it (uint8 [H, W], a view, not to be written; black is 0 or 16)."""
    row = np.zeros(1, CLOSE)
    scale = 1.0 if full_range else 255 / 219
    sharp, blocky, noise = detail.sharpness(small), detail.blockiness(luma), scale * detail.noise(luma)
    row["sharpness"], row["blockiness"], row["noise"] = sharp, blocky, noise
    row["quality"] = detail.technical_quality(sharp, blocky, noise)
    row["combing"] = detail.combing(luma)
    row["strokes"] = overlay.strokes(small)
    return row


def clip_signals(
    rows: np.ndarray, close: np.ndarray, grids: np.ndarray, times_s: np.ndarray
) -> dict[str, float | None]:
    """Signals of one clip from its FRAME rows [N], CLOSE rows [K], coarse grids [N, cells] and times [N].

    What the first row says of change belongs to the clip before and is not used."""
    if not len(rows):
        raise ValueError("a clip has at least one frame")
    span_s = float(times_s[-1] - times_s[0])
    moving = len(rows) > 1 and span_s > 0
    compared, compared_s = camera.steps(rows, times_s)
    luma = rows["luma"].astype(np.float64)
    text, logo = overlay.areas(close["strokes"]) if len(close) else (None, None)
    numbers: dict[str, float | None] = {
        "motion": float(compared["moved"].sum(dtype=np.float64)) / compared_s if compared_s > 0 else None,
        "static_ratio": _static_ratio(grids, times_s) if moving else None,
        "duplicate_ratio": _duplicate_ratio(rows["change"][1:]) if moving else None,
        "flicker": float(np.abs(np.diff(luma, 2)).mean()) if len(rows) > 2 else None,
        "text_area": text,
        "logo_area": logo,
    }
    numbers |= {signal: float(rows[field].mean(dtype=np.float64)) for signal, field in PER_FRAME.items()}
    for signal, field in PER_CLOSE.items():
        numbers[signal] = float(close[field].mean(dtype=np.float64)) if len(close) else None
    return numbers | camera.path(rows, times_s)


def still_signals(rows: np.ndarray, close: np.ndarray) -> list[dict[str, float | None]]:
    """Signals of N stills from the FRAME row and the CLOSE row of each [N]: what `clip_signals` gives for a
    clip of one frame, many at a time."""
    unmoved = clip_signals(rows[:1], close[:1], np.zeros((1, 1)), np.zeros(1)) if len(rows) else {}
    columns = {signal: rows[field].astype(np.float64).tolist() for signal, field in PER_FRAME.items()}
    columns |= {signal: close[field].astype(np.float64).tolist() for signal, field in PER_CLOSE.items()}
    columns["text_area"] = [overlay.areas(strokes[None])[0] for strokes in close["strokes"]]
    return [unmoved | {name: column[k] for name, column in columns.items()} for k in range(len(rows))]


def _static_ratio(grids: np.ndarray, times_s: np.ndarray) -> float:
    earlier = np.maximum(np.searchsorted(times_s, times_s - STATIC_S, side="right") - 1, 0)  # [N]
    later = np.flatnonzero(times_s - times_s[0] >= min(STATIC_S, float(times_s[-1] - times_s[0])))
    change = np.abs(grids[later].astype(np.int16) - grids[earlier[later]].astype(np.int16)).max(axis=1)
    return float((change <= STATIC_CHANGE).mean())


def _duplicate_ratio(change: np.ndarray) -> float:
    """Share of the changes [N] (mean of luma, 0 to 1) that are next to nothing beside the largest in the
    REPEAT_REACH frames before and in those after: a picture that comes to rest has no such after."""
    padded = np.pad(change, REPEAT_REACH)
    largest = sliding_window_view(padded, REPEAT_REACH).max(axis=1)  # [N + REPEAT_REACH + 1]
    usual = np.minimum(largest[: len(change)], largest[REPEAT_REACH + 1 :])
    return float(((usual >= REPEAT_CHANGE) & (change <= REPEAT_SHARE * usual)).mean())
