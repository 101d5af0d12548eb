"""Copies: which clips show the same footage, in which groups, and which of a group stays.

In: prints of clips (pipeline/dedup/prints.py). Out: pairs of copies and the groups they join. Never:
pixels, a file to decode, or a comparison of all pairs: pipeline/dedup/moments.py names the pairs worth a
look, pipeline/dedup/alignment.py looks. Found are re-encodes, other sizes and frame rates, brightness,
crops of 6 % a side, bars, logos, subtitles, mirrored pictures, trims, a clip that lies inside a longer one,
and large overlays in a corner or along an edge.

`distance` of two moving clips is 1 minus the mean of their picture and motion correlations, of two that
stand still 1 minus their picture correlation. Measured on real footage under thirteen kinds of change: copies
0.00 to 0.18, under a bright logo or caption over an eighth of a dark picture up to 0.6; different moments
of the same scene 0.35 and more.

What is too far apart as a whole may be a copy under an overlay that covers up to a third of the picture:
then the rest must agree better than a whole picture has to, and something must move in it. The same overlay
over different footage, and another subject before the same background, do not agree there.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from pipeline.dedup.alignment import BESIDE, Alignment, align
from pipeline.dedup.moments import candidate_pairs, moments
from pipeline.dedup.print_store import Prints

VERSION = 3  # raised when the same prints give other pairs
MAX_DISTANCE, MAX_STILL_DISTANCE = 0.2, 0.012
MIN_PICTURE = 0.6  # however well the motion agrees
CLEAN_PICTURE = 0.995  # no crop and no overlay spoils it: then nothing spoils the motion
CLEAN_MOTION = 0.95
MAX_STRETCH = 1.4  # of one active picture against another: 4:3 shown as 16:9 is 1.33
MAX_COLOUR, MAX_STILL_COLOUR = 14.0, 8.0  # chroma levels, 0-255
MAX_ENERGY = 2.0  # one clip may not be more than this many times as lively
# Beside an overlay. Of 190 copies about 2 % lay below this picture, 1 % below this motion correlation and 3 %
# above this energy; look-alikes of toy worlds came to 0.99 and 0.98, but at an energy of 1.3.
MIN_BESIDE_PICTURE, MIN_BESIDE_MOTION, MAX_BESIDE_ENERGY, MIN_BESIDE_S = 0.95, 0.85, 1.25, 1.0
AS_LONG = 0.7  # who stays is at least this share of the longest in its group: the whole before the part
BATCH = 20_000  # candidate pairs whose prints are loaded at a time

PAIRS = pa.schema(
    [
        ("a", pa.int64()),
        ("b", pa.int64()),
        ("kind", pa.string()),
        ("mirrored", pa.bool_()),
        ("distance", pa.float32()),
    ]
)


def perceptual_pairs(
    prints: Prints, *, mirrored: bool = True, across: int | None = None, aspects: np.ndarray | None = None
) -> pa.Table:
    """Pairs of copies (schema PAIRS, a < b), enough of them to join every group that there is.

    With `across` all pairs of a clip before that number with one from it on, and no others: what is in both
    of two sets. With `aspects` (width over height of the clips' active pictures) none of two shapes that no
    crop and no wrong pixel aspect makes of one another."""
    candidates = candidate_pairs(moments(prints.chunks()), across=across)
    if not mirrored:
        candidates = candidates[candidates[:, 2] == 0]
    if aspects is not None:
        a, b = np.log(aspects[candidates[:, 0]]), np.log(aspects[candidates[:, 1]])
        candidates = candidates[~(np.abs(a - b) > np.log(MAX_STRETCH))]  # what is not known is no reason
    candidates = candidates[np.argsort(candidates[:, 3], kind="stable")]  # first those alike as a whole
    joined = Groups(len(prints))
    rows: list[tuple[int, int, str, bool, float]] = []
    for start in range(0, len(candidates), BATCH):
        some = candidates[start : start + BATCH]
        loaded = prints.load(np.unique(some[:, :2]).tolist())
        for a, b, flipped, in_strips in some.tolist():
            if across is None and joined.root(a) == joined.root(b):
                continue
            away = same_footage(loaded[a], loaded[b], bool(flipped), overlaid=bool(in_strips))
            if away is not None:
                joined.join(a, b)
                rows.append((a, b, "perceptual" if away > 0 else "exact", bool(flipped), away))
    columns = list(zip(*rows, strict=True)) or [()] * len(PAIRS)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, PAIRS, strict=True)], schema=PAIRS)


def same_footage(
    a: np.ndarray, b: np.ndarray, mirrored: bool = False, *, overlaid: bool = False
) -> float | None:
    """The distance of two prints of the same footage; None when they are of different footage. With
    `overlaid` they are known to be far apart as a whole, and only an overlay may explain that."""
    if not mirrored and a.shape == b.shape and np.array_equal(a, b):
        return 0.0
    whole = align(a, b, mirrored)
    if not overlaid and _agree(whole):
        return max(distance(whole), 1e-4)  # 0 is for what is equal
    if whole.motion is None or whole.picture >= CLEAN_PICTURE:
        return None  # no overlay explains it
    beside = align(a, b, mirrored, BESIDE)
    return max(distance(beside), 1e-4) if _agree_beside(beside) else None


def distance(alignment: Alignment) -> float:
    """0 = the same, 1 = nothing in common."""
    if alignment.motion is None:
        return 1 - alignment.picture
    return 1 - (alignment.picture + alignment.motion) / 2


def _agree(whole: Alignment) -> bool:
    away = distance(whole)
    if whole.motion is None:
        return away <= MAX_STILL_DISTANCE and whole.colour <= MAX_STILL_COLOUR
    alike = whole.colour <= MAX_COLOUR and whole.energy <= MAX_ENERGY and whole.picture >= MIN_PICTURE
    return alike and _clean(whole, whole.motion) and away <= MAX_DISTANCE


def _agree_beside(beside: Alignment) -> bool:
    if beside.motion is None or beside.shared_s < MIN_BESIDE_S:
        return False
    alike = beside.picture >= MIN_BESIDE_PICTURE and beside.motion >= MIN_BESIDE_MOTION
    steady = beside.colour <= MAX_COLOUR and beside.energy <= MAX_BESIDE_ENERGY
    return alike and steady and _clean(beside, beside.motion)


def _clean(alignment: Alignment, motion: float) -> bool:
    """An unspoiled picture comes with unspoiled motion."""
    return alignment.picture < CLEAN_PICTURE or motion >= CLEAN_MOTION


class Groups:
    """Numbers 0 to count - 1 joined pair by pair (union-find with path halving)."""

    def __init__(self, count: int) -> None:
        self._parent = list(range(count))

    def root(self, i: int) -> int:
        parent = self._parent
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(self, a: int, b: int) -> None:
        a, b = sorted((self.root(a), self.root(b)))
        self._parent[b] = a


def grouped(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """The connected groups of pairs of numbers, ascending."""
    pairs = list(pairs)
    numbers = sorted({n for pair in pairs for n in pair})
    at = {n: i for i, n in enumerate(numbers)}
    groups = Groups(len(numbers))
    for a, b in pairs:
        groups.join(at[a], at[b])
    members: dict[int, list[int]] = {}
    for i, n in enumerate(numbers):
        members.setdefault(groups.root(i), []).append(n)
    return list(members.values())


def best_of(members: Sequence[int], seconds: np.ndarray, area_px: np.ndarray, sharpness: np.ndarray) -> int:
    """Who stays: of those about as long as the longest the largest picture, then the longest, then the
    sharpest, then the first."""
    longest = max(seconds[i] for i in members)
    whole = [i for i in members if seconds[i] >= AS_LONG * longest]
    return min(whole, key=lambda i: (-area_px[i], -seconds[i], -sharpness[i], i))
