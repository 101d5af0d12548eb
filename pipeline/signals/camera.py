"""What the camera does over a clip: pan, tilt, zoom, roll, shake, and which of them it is. Pure functions.

In: MOTION rows (pipeline/signals/flow.py) and times of consecutive frames. Out: amounts and a kind. Never:
pixels.
"""

import math

import numpy as np

SLOW = 0.012  # long sides a second: slower than this is no camera motion
SHAKY = 0.05  # long sides a second
STEADY_S = 0.5  # the intended motion is the mean over this long; what deviates from it is shake
ZOOM_ARM = 0.28  # mean distance from the centre, in long sides: how far a part moves when the scale changes
AGREE = 0.3  # share of all blocks that must follow the camera's motion for it to be believed


def steps(rows: np.ndarray, times_s: np.ndarray) -> tuple[np.ndarray, float]:
    """The MOTION rows of a clip [N] that compare two of its frames [M], and the seconds that they span."""
    at = np.flatnonzero((rows["since"] > 0) & (rows["since"] <= np.arange(len(rows))))
    return rows[at], float((times_s[at] - times_s[at - rows["since"][at]]).sum())


def path(rows: np.ndarray, times_s: np.ndarray) -> dict[str, float | None]:
    """Amounts of a clip, from its MOTION rows [N] and times [N]; None where no two of its frames were
                     compared.

    camera_motion: length of the camera's path, long sides a second; pan, tilt: speed to the right and up,
    long sides a second; zoom: growth of the picture, natural logarithm a second; roll: turn of the picture
    clockwise, degrees a second; shake: way to and fro about the path smoothed over half a second, long sides
                     a second.
    """
    compared, span_s = steps(rows, times_s)
    if not span_s > 0:
        return dict.fromkeys(("camera_motion", "pan", "tilt", "zoom", "roll", "shake"))
    moves = np.stack([compared[n].astype(np.float64) for n in ("dx", "dy", "zoom", "roll")])  # [4, M]
    ways = np.hypot(moves[0], moves[1]) + ZOOM_ARM * np.hypot(moves[2], moves[3])  # [M]
    if float((ways * compared["agree"]).sum()) < AGREE * float(ways.sum()):
        moves[:], ways[:] = 0, 0  # things move, not the camera
    right, down, zoom, roll = moves.sum(axis=1) / span_s
    window = max(1, round(STEADY_S * len(compared) / span_s))
    shake = np.hypot(*(m - _smoothed(m, window) for m in moves[:2])).sum() / span_s
    return {
        "camera_motion": float(ways.sum()) / span_s,
        "pan": -float(right),
        "tilt": float(down),
        "zoom": float(zoom),
        "roll": math.degrees(roll),
        "shake": float(shake),
    }


def kind(amounts: dict[str, float | None]) -> str | None:
    """static, shake, pan_left, pan_right, tilt_up, tilt_down, zoom_in, zoom_out, roll_left or roll_right:
    what moves the picture's parts most, when that is fast enough; None when not measured."""
    pan, tilt, zoom, roll, shake = (amounts[n] for n in ("pan", "tilt", "zoom", "roll", "shake"))
    if pan is None or tilt is None or zoom is None or roll is None or shake is None:
        return None
    speeds = {
        "pan_right" if pan > 0 else "pan_left": abs(pan),
        "tilt_up" if tilt > 0 else "tilt_down": abs(tilt),
        "zoom_in" if zoom > 0 else "zoom_out": abs(zoom) * ZOOM_ARM,
        "roll_right" if roll > 0 else "roll_left": abs(math.radians(roll)) * ZOOM_ARM,
    }
    most = max(speeds, key=lambda name: speeds[name])
    if shake > max(SHAKY, speeds[most]):
        return "shake"
    return most if speeds[most] > SLOW else "static"


def _smoothed(values: np.ndarray, window: int) -> np.ndarray:
    """Mean over `window` neighbours (fewer at the ends) of float [N]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low, high = np.maximum(at - window // 2, 0), np.minimum(at + window // 2 + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))
