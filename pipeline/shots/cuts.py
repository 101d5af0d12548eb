"""Hard cuts: where a jump between two frames is a new shot, and how probable that is. Pure.

In: descriptors and the frame rate. Out: frame numbers, evidence, probabilities. Never: thresholds on one
number: a cut must stand out from the motion on both sides of it, last longer than a flash, and not be
explained by a moving camera. A logistic model weighs these (pipeline/shots/weights.py).
"""

import numpy as np

from pipeline.shots.descriptor import difference, unexplained_by_shift
from pipeline.shots.logistic import columns, fields, probability
from pipeline.shots.weights import Models

LEAST_JUMP = 0.1  # smaller jumps are no candidates: every one of 600 true cuts was larger
NEAR_S, FLASH_S, RETURN_S = 0.2, 0.15, 0.34  # what is compared around a jump, see `evidence`
BEFORE = 3  # frames before a jump that must differ from those after it

EVIDENCE = fields(  # logarithms, see `evidence`
    "lasting",  # the least difference between frames before and after: low for a flash or a doubled frame
    "over_livelier",  # the jump over the largest step nearby, on the livelier side …
    "over_calmer",  # … and on the calmer one
    "unshifted",  # what the best camera shift leaves
    "stays_away",  # the picture does not return within RETURN_S
)


def cuts(frames: np.ndarray, change: np.ndarray, fps: float, models: Models) -> tuple[np.ndarray, np.ndarray]:
    """All candidates: first frames of possible new shots, int [K], and the probability of each, [K].
    frames: uint8 [N, DIMENSIONS]; change: their `steps`, [N]."""
    at = candidates(change)
    return at, probability(evidence(frames, change, at, fps), models.cut)


def candidates(change: np.ndarray) -> np.ndarray:
    """Frames whose step is large and the largest of its neighbours': int [K]."""
    padded = np.pad(change, (3, 1))
    largest = np.max([padded[k : k + len(change)] for k in range(5)], axis=0)  # t - 3 to t + 1
    return np.flatnonzero((change >= LEAST_JUMP) & (change >= largest))


def evidence(frames: np.ndarray, change: np.ndarray, at: np.ndarray, fps: float) -> np.ndarray:
    """What speaks for a cut at each of `at`: EVIDENCE [K]."""
    count, near, flash = len(frames), max(3, round(NEAR_S * fps)), max(2, round(FLASH_S * fps))
    back = max(3, round(RETURN_S * fps))
    rows = np.empty(len(at), EVIDENCE)
    for row, t in zip(rows, at.tolist(), strict=True):
        before, after = frames[max(0, t - BEFORE) : t], frames[t : t + flash]
        least = min(
            float(difference(before[:, None], after[None]).min()),
            float(difference(frames[max(0, t - flash) : t], frames[t]).min()),
        )
        sides = change[max(1, t - near) : t], change[t + 1 : t + 1 + near]
        ratios = sorted(float(change[t]) / (float(side.max(initial=0.0)) + 0.01) for side in sides)
        later = difference(frames[t + 1 : min(count, t + back)], frames[t - 1])
        earlier = difference(frames[max(0, t - back) : t - 1], frames[t])
        again = min(float(later.min(initial=change[t])), float(earlier.min(initial=change[t])))
        row["lasting"] = least + 0.02
        row["over_livelier"], row["over_calmer"] = ratios
        row["stays_away"] = again / change[t] + 0.1
    structure_and_colour = unexplained_by_shift(frames[at - 1], frames[at])[1]
    rows["unshifted"] = structure_and_colour + np.float32(0.02)
    logarithms = columns(rows)
    np.log(logarithms, out=logarithms)
    return rows
