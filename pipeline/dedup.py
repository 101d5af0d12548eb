"""Near-duplicate clips by their perceptual hashes: which clips show the same footage, and which one
stays.

In: a clip's 64-bit hashes, one a filmstrip frame, and its chroma grid. Out: groups of clips. Never:
pixels, or a comparison of all pairs: only clips that share a 21-bit part of some hash are compared, so
the work grows with the number of look-alikes, not with its square.

A re-encode, a resize, a logo, letterbox bars, other brightness, another frame rate or a trim keep most
hashes within 6 bits. A crop of 4 % a side moves them by 6 to 12 bits, which is also as far as two moments
under one fixed camera are apart: such crops are not found, so that different moments are never taken for
copies. Mirrored copies are not duplicates.
"""

from collections.abc import Sequence

import numpy as np

BANDS = (
    (0, 22),
    (22, 21),
    (43, 21),
)  # (shift, bits): two hashes within 2 bits agree on at least one of three
COLOUR_STEP = 8  # chroma levels (0-255) that copies may differ by; re-encodes and crops measured at most 6
CROWD = 16  # in a band with many equal parts a hash is compared with this many neighbours, not with all


def duplicate_groups(
    hashes: Sequence[np.ndarray], colours: Sequence[Sequence[int]], max_distance: float
) -> list[list[int]]:
    """Groups (ascending indices, at least two) of clips joined by near-duplicate pairs."""
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in candidate_pairs(hashes):
        ra, rb = root(a), root(b)
        if ra == rb or not same_colours(colours[a], colours[b]):
            continue
        if clip_distance(hashes[a], hashes[b]) <= max_distance:
            parent[max(ra, rb)] = min(ra, rb)
    members: dict[int, list[int]] = {}
    for i in range(len(hashes)):
        members.setdefault(root(i), []).append(i)
    return [group for group in members.values() if len(group) > 1]


def candidate_pairs(hashes: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """Pairs (a < b) of clips that have hashes with an equal band, sorted."""
    if not len(hashes):
        return []
    flat = np.concatenate([np.asarray(h, np.uint64) for h in hashes])
    owner = np.repeat(np.arange(len(hashes)), [len(h) for h in hashes])
    found = [np.empty((0, 2), np.int64)]
    for shift, bits in BANDS:
        band = (flat >> np.uint64(shift)) & np.uint64((1 << bits) - 1)
        order = np.lexsort((owner, flat, band))
        band, who = band[order], owner[order]
        for step in range(1, CROWD + 1):
            same = band[step:] == band[:-step]
            if not same.any():
                break
            pairs = np.stack([who[:-step][same], who[step:][same]], axis=1)
            pairs = np.sort(pairs[pairs[:, 0] != pairs[:, 1]], axis=1)
            found.append(np.unique(pairs, axis=0))
    pairs = np.unique(np.concatenate(found), axis=0)
    return [(int(a), int(b)) for a, b in pairs]


def clip_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Mean bits from each frame of one clip to the most alike frame of the other, in the worse direction:
    a still
    clip is near one moment of a moving one, but most of the moving one is far from it. 0 to 64."""
    bits = np.bitwise_count(np.asarray(a, np.uint64)[:, None] ^ np.asarray(b, np.uint64)[None, :])  # [A, B]
    return float(max(bits.min(axis=1).mean(), bits.min(axis=0).mean()))


def same_colours(a: Sequence[int], b: Sequence[int]) -> bool:
    """True when the coarse chroma grids agree, but for two cells: a logo may cover those. Hashes see only
    luma."""
    apart = np.sort(np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16)))
    return len(apart) < 3 or int(apart[-3]) <= COLOUR_STEP
