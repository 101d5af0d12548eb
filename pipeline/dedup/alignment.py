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

A large overlay spoils the picture of the whole and hides its motion. It lies in a corner or along an edge,
so that most of the picture is clean beside it: with the parts `BESIDE` the clips are compared beside each
box that an overlay may fill, and the part in which they agree best counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.dedup.prints import PRINT_CHROMA, PRINT_HZ, PRINT_LUMA, resample

CROPS = (0.0, 0.02, 0.04, 0.06, -0.02, -0.04, -0.06)  # a side, of the first clip; negative: of the second
STILL = 1.0  # rms change (0-255) of the cells of a clip in which nothing moves
ROUNDING = 0.3  # rms of rounding to whole levels
MIN_SHARED = 0.75  # of the shorter clip must lie in the longer one
HOPELESS, SURE = 0.5, 0.97  # picture times motion correlation without a crop: only between is one tried
LUMA = PRINT_LUMA**2
BAND, CORNER = 5, 8  # luma cells: how far an overlay reaches from an edge, and along both edges of a corner


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """How two clips agree where they agree best."""

    picture: float  # correlation, -1 to 1
    motion: float | None  # correlation; None: neither moves
    colour: float  # chroma levels (0-255) between their mean pictures, the two most unlike cells left out
    energy: float  # rms change of the livelier over that of the other; 1 = equal
    offset_s: float  # the second begins this long after the first
    shared_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of the picture: which columns of a print [S, PRINT_SIZE] show it."""

    luma: np.ndarray | slice  # int64 [cells]
    chroma: np.ndarray | slice  # int64 [cells of both planes]


def _beside(rows: tuple[int, int], columns: tuple[int, int]) -> Part:
    """The picture without a box, given in luma cells, and without the chroma cells that it touches."""
    clean = np.ones((PRINT_LUMA, PRINT_LUMA), bool)
    clean[slice(*rows), slice(*columns)] = False
    side = PRINT_LUMA // PRINT_CHROMA
    chroma = clean.reshape(PRINT_CHROMA, side, PRINT_CHROMA, side).all(axis=(1, 3))
    return Part(luma=np.flatnonzero(clean), chroma=LUMA + np.flatnonzero(np.stack([chroma, chroma])))


_ALL = (0, PRINT_LUMA)
_EDGES = ((0, BAND), (PRINT_LUMA - BAND, PRINT_LUMA))
_CORNERS = ((0, CORNER), (PRINT_LUMA - CORNER, PRINT_LUMA))
WHOLE = (Part(luma=slice(LUMA), chroma=slice(LUMA, None)),)
BESIDE = (  # each leaves more than half of the picture
    *(_beside(rows, _ALL) for rows in _EDGES),
    *(_beside(_ALL, columns) for columns in _EDGES),
    *(_beside(rows, columns) for rows in _CORNERS for columns in _CORNERS),
)


def align(a: np.ndarray, b: np.ndarray, mirrored: bool = False, parts: Sequence[Part] = WHOLE) -> Alignment:
    """The best alignment of two prints, measured in that of the parts in which it is best; `mirrored` flips
    the second left to right."""
    a, b = a.astype(np.float32), (mirror(b) if mirrored else b).astype(np.float32)
    pair, part = (a, b), parts[0]
    score, offset = _search(a[:, part.luma], b[:, part.luma])
    for other in parts[1:]:
        other_score, other_offset = _search(a[:, other.luma], b[:, other.luma])
        if other_score > score:
            score, offset, part = other_score, other_offset, other
    if HOPELESS <= score < SURE:
        for share in CROPS[1:]:
            x, y = cropped(a, share), cropped(b, -share)
            crop_score, crop_offset = _search(x[:, part.luma], y[:, part.luma])
            if crop_score > score:
                score, offset, pair = crop_score, crop_offset, (x, y)
    return _measure(*pair, offset, part)


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
    """(score, offset in half samples) of the best offset of b in a (luma [S, cells] each): picture times
    motion correlation, motion against the mean of the whole clips, which differs little from that of the
    shared part."""
    a, b = _centred(a), _centred(b)
    fine = _doubled(a)  # [2A - 1, cells]
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
        floor = np.maximum(inside.sum(axis=1), 1) * a.shape[1] * STILL**2 / 4
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


def _centred(luma: np.ndarray) -> np.ndarray:
    """Luma [S, cells], each sample around 0."""
    return luma - luma.mean(axis=1, keepdims=True)


def _measure(a: np.ndarray, b: np.ndarray, offset: int, part: Part) -> Alignment:
    at = 2 * np.arange(len(b)) + offset
    inside = (at >= 0) & (at < 2 * len(a) - 1)
    a, b = _doubled(a)[at[inside]], b[inside]  # [shared, PRINT_SIZE] each
    x, y = _centred(a[:, part.luma]), _centred(b[:, part.luma])
    moving_x, moving_y = x - x.mean(axis=0), y - y.mean(axis=0)
    energy_x, energy_y = (float(np.sqrt((m * m).mean())) for m in (moving_x, moving_y))
    still = max(energy_x, energy_y) < STILL
    return Alignment(
        picture=_correlation(x, y),
        motion=None if still else _correlation(moving_x, moving_y),
        colour=_colour_apart(a[:, part.chroma], b[:, part.chroma]),
        energy=(max(energy_x, energy_y) + ROUNDING) / (min(energy_x, energy_y) + ROUNDING),
        offset_s=offset / 2 / PRINT_HZ,
        shared_s=len(b) / PRINT_HZ,
    )


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum() + 1e-6))


def _colour_apart(a: np.ndarray, b: np.ndarray) -> float:
    """Levels between mean chroma [S, cells] each, after the saturation change (0.7 to 1.4) that suits them
    best; a logo may cover two cells."""
    x, y = (p.mean(axis=0) - 128 for p in (a, b))
    gain = float(np.clip((x * y).sum() / max(float((x * x).sum()), 1.0), 0.7, 1.4))
    return float(np.sort(np.abs(x * gain - y))[-3])
