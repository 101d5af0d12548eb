"""Hard cuts: where a jump between two frames is a new shot, and how probable that is. Pure.

In: descriptors and the frame rate. Out: frame numbers, evidence, probabilities. Never: thresholds on one
number: a cut must stand out from the motion on both sides of it, last longer than a flash, and not be
explained by a moving camera. A logistic model weighs these; it was fitted on montages of real footage with
exact cuts, and its probabilities were checked on others (pipeline/shots/boundaries.py, Boundary).
"""

import numpy as np

from pipeline.shots.descriptor import difference, unexplained_by_shift

LEAST_JUMP = 0.1  # smaller jumps are no candidates: every one of 600 true cuts was larger
NEAR_S, FLASH_S, RETURN_S = 0.2, 0.15, 0.34  # what is compared around a jump, see `evidence`
BEFORE = 3  # frames before a jump that must differ from those after it
WEIGHTS = (2.337, 3.043, 2.638, 1.109, 2.508, 4.119)  # of 1 and of the columns of `evidence`


def cuts(frames: np.ndarray, change: np.ndarray, fps: float) -> tuple[np.ndarray, np.ndarray]:
    """All candidates: first frames of possible new shots, int [K], and the probability of each, [K].
    frames: uint8 [N, DIMENSIONS]; change: their `steps`, [N]."""
    at = candidates(change)
    return at, probability(evidence(frames, change, at, fps), WEIGHTS)


def candidates(change: np.ndarray) -> np.ndarray:
    """Frames whose step is large and the largest of its neighbours': int [K]."""
    padded = np.pad(change, (3, 1))
    largest = np.max([padded[k : k + len(change)] for k in range(5)], axis=0)  # t - 3 to t + 1
    return np.flatnonzero((change >= LEAST_JUMP) & (change >= largest))


def evidence(frames: np.ndarray, change: np.ndarray, at: np.ndarray, fps: float) -> np.ndarray:
    """[K, 5], logarithms. Columns: the least difference between the frames before and after (low for a
    flash or a doubled frame); the jump over the largest step nearby, on the livelier side and on the calmer
    one; what the best camera shift leaves; and whether the picture returns within a third of a second."""
    count, near, flash = len(frames), max(3, round(NEAR_S * fps)), max(2, round(FLASH_S * fps))
    back = max(3, round(RETURN_S * fps))
    rows = np.empty((len(at), 5), np.float32)
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
        row[:] = least + 0.02, *ratios, 1.0, again / change[t] + 0.1
    _, rows[:, 3] = unexplained_by_shift(frames[at - 1], frames[at])
    rows[:, 3] += 0.02
    return np.log(rows)


def probability(columns: np.ndarray, weights: tuple[float, ...]) -> np.ndarray:
    """Logistic model of evidence [K, F]: [K]."""
    score = weights[0] + columns @ np.asarray(weights[1:])
    return 1 / (1 + np.exp(-np.clip(score, -30, 30)))
