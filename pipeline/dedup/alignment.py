"""Are two clips the same footage? Prints of two clips in, the best alignment of one on the other out.

In: two prints (pipeline/dedup/prints.py), uint8 [S, PRINT_SIZE]. Out: an `Alignment`: where the shorter lies
in the longer, and how well. Never: a decision (pipeline/dedup/groups.py), a file.

Tried are offsets in steps of an eighth of a second and symmetrical crops of either clip of up to 6 % a side.
Two numbers tell how well they agree, both correlations that brightness and contrast do not change:

    picture  of luma, each sample's own mean taken off: what is where
    motion   of luma, the mean picture taken off as well: what changes when. Two moments under one fixed
             camera have the same picture (measured 0.97) but not the same motion (0.28); copies have both,
             and an overlay, which spoils the picture, does not move

Motion is None where both clips stand still: there is nothing to tell moments apart, nor need there be.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.dedup.prints import PRINT_CHROMA, PRINT_HZ, PRINT_LUMA, resample

CROPS = (0.0, 0.02, 0.04, 0.06, -0.02, -0.04, -0.06)  # a side, of the first clip; negative: of the second
STILL = 1.0  # rms change (0-255) of the cells of a clip in which nothing moves
ROUNDING = 0.3  # rms of rounding to whole levels
MIN_SHARED = 0.75  # of the shorter clip must lie in the longer one
HOPELESS, SURE = 0.5, 0.97  # picture times motion correlation without a crop: only between is one tried
LUMA = PRINT_LUMA**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """How two clips agree where they agree best."""

    picture: float  # correlation, -1 to 1
    motion: float | None  # correlation; None: neither moves
    colour: float  # chroma levels (0-255) between their mean pictures, the two most unlike cells left out
    energy: float  # rms change of the livelier over that of the other; 1 = equal
    offset_s: float  # the second begins this long after the first
    shared_s: float


def align(a: np.ndarray, b: np.ndarray, mirrored: bool = False) -> Alignment:
    """The best alignment of two prints; `mirrored` flips the second left to right."""
    a, b = a.astype(np.float32), (mirror(b) if mirrored else b).astype(np.float32)
    best, shown = _search(a, b), (a, b)
    if HOPELESS <= best[0] < SURE:
        for share in CROPS[1:]:
            pair = cropped(a, share), cropped(b, -share)
            found = _search(*pair)
            if found[0] > best[0]:
                best, shown = found, pair
    return _measure(*shown, best[1])


def mirror(samples: np.ndarray) -> np.ndarray:
    """A print [S, PRINT_SIZE] flipped left to right."""
    luma = samples[:, :LUMA].reshape(-1, PRINT_LUMA, PRINT_LUMA)[:, :, ::-1]
    chroma = samples[:, LUMA:].reshape(-1, 2, PRINT_CHROMA, PRINT_CHROMA)[..., ::-1]
    return np.concatenate([p.reshape(len(samples), -1) for p in (luma, chroma)], axis=1)


def cropped(samples: np.ndarray, share: float) -> np.ndarray:
    """A print, float32 [S, PRINT_SIZE], without `share` of its width and height on every side; as it is if
    `share` is not above 0."""
    if share <= 0:
        return samples
    planes, start = [], 0
    for side in (PRINT_LUMA, PRINT_CHROMA, PRINT_CHROMA):
        plane = samples[:, start : start + side**2].reshape(-1, side, side)
        planes.append(resample(plane, side, (share, 1 - share), (share, 1 - share)).reshape(len(plane), -1))
        start += side**2
    return np.concatenate(planes, axis=1)


def _search(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """(score, offset in half samples) of the best offset of b in a: picture times motion correlation, motion
    against the mean of the whole clips, which differs little from that of the shared part."""
    a, b = _centred(a), _centred(b)
    fine = _doubled(a)  # [2A - 1, LUMA]
    offsets = _offsets(len(a), len(b))
    across = np.arange(len(b))
    at = 2 * across + offsets[:, None]  # [O, B]: row of `fine` beside each row of b
    inside = (at >= 0) & (at < len(fine))
    at = np.clip(at, 0, len(fine) - 1)
    scores = []
    for x, y in ((fine, b), (fine - fine.mean(axis=0), b - b.mean(axis=0))):
        both = np.where(inside, (x @ y.T)[at, across], 0).sum(axis=1)
        energy_x = np.where(inside, (x * x).sum(axis=1)[at], 0).sum(axis=1)
        energy_y = np.where(inside, (y * y).sum(axis=1), 0).sum(axis=1)
        # Coding noise correlates with nothing; an offset may leave nothing shared.
        floor = np.maximum(inside.sum(axis=1), 1) * LUMA * STILL**2 / 4
        scores.append((both + floor) / np.sqrt((energy_x + floor) * (energy_y + floor)))
    score = scores[0] * scores[1]
    score = np.where((np.minimum(scores[0], scores[1]) > 0) & inside.any(axis=1), score, -1)
    best = int(score.argmax())
    return float(score[best]), int(offsets[best])


def _offsets(first: int, second: int) -> np.ndarray:
    """Offsets in half samples at which enough of the shorter clip lies in the longer."""
    spare = int((1 - MIN_SHARED) * min(first, second))
    low, high = min(0, first - second) - spare, max(0, first - second) + spare
    return np.arange(2 * low, 2 * high + 1)


def _doubled(a: np.ndarray) -> np.ndarray:
    """Samples [A, ...] with their halfway points between them, [2A - 1, ...]."""
    fine = np.empty((2 * len(a) - 1, a.shape[1]), np.float32)
    fine[::2] = a
    fine[1::2] = (fine[2::2] + fine[:-1:2]) / 2
    return fine


def _centred(samples: np.ndarray) -> np.ndarray:
    """The luma of prints, [S, LUMA], each sample around 0."""
    luma = samples[:, :LUMA]
    return luma - luma.mean(axis=1, keepdims=True)


def _measure(a: np.ndarray, b: np.ndarray, offset: int) -> Alignment:
    at = 2 * np.arange(len(b)) + offset
    inside = (at >= 0) & (at < 2 * len(a) - 1)
    a, b = _doubled(a)[at[inside]], b[inside]  # [shared, PRINT_SIZE] each
    x, y = _centred(a), _centred(b)
    moving_x, moving_y = x - x.mean(axis=0), y - y.mean(axis=0)
    energy_x, energy_y = (float(np.sqrt((m * m).mean())) for m in (moving_x, moving_y))
    still = max(energy_x, energy_y) < STILL
    return Alignment(
        picture=_correlation(x, y),
        motion=None if still else _correlation(moving_x, moving_y),
        colour=_colour_apart(a[:, LUMA:], b[:, LUMA:]),
        energy=(max(energy_x, energy_y) + ROUNDING) / (min(energy_x, energy_y) + ROUNDING),
        offset_s=offset / 2 / PRINT_HZ,
        shared_s=len(b) / PRINT_HZ,
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-6))


def _colour_apart(a: np.ndarray, b: np.ndarray) -> float:
    """Levels between mean chroma [S, 32] each, after the saturation change (0.7 to 1.4) that suits them best;
    a logo may cover two cells."""
    x, y = (p.mean(axis=0) - 128 for p in (a, b))
    gain = float(np.clip((x * y).sum() / max(float((x * x).sum()), 1.0), 0.7, 1.4))
    return float(np.sort(np.abs(x * gain - y))[-3])
