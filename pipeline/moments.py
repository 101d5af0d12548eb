"""Which clips may be copies of one another? Prints of all clips in, pairs worth aligning out.

In: prints (pipeline/fingerprint.py), in chunks. Out: pairs of row numbers, each as seen or mirrored. Never:
all pairs, or a decision: the work grows with the clips and their look-alikes, and pipeline/alignment.py
looks closer.

A print is sampled at a few *moments*. Each becomes a short vector of low frequencies (DCT-II) of its luma,
at unit contrast, and its mean chroma, so that brightness, contrast and scale leave it where it was. It is
flipped so that its odd frequencies add up to a positive number: mirrored copies meet. It is made of the whole
picture, of its middle, which logos leave alone, and of its upper part, which subtitles leave alone; and of
each with 4 % cut off every side, so that cropped copies meet too. Vectors that fall into the same cell of a
random grid (p-stable hashing, Datar et al. 2004) and are truly near make a pair; several grids, because near
vectors may lie on both sides of a border.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.fingerprint import PRINT_CHROMA, PRINT_HZ, PRINT_LUMA, overlap_weights

LEAST, MOST, EVERY_S = 5, 16, 1.0  # moments of a clip: at least, at most, and how far apart in between
CROP = 0.04  # a side
WHOLE, MIDDLE = (0.0, 1.0), (0.18, 0.82)
VIEWS = ((WHOLE, WHOLE), (MIDDLE, MIDDLE), ((0.0, 0.65), WHOLE))  # rows and columns, as shares of the picture
GRIDS, PROJECTIONS, WIDTH = 6, 9, 0.45  # per view; numbers that make a cell; its extent
NEAR = 0.35  # distance between vectors of a pair; copies measure 0.05 to 0.15, strangers 0.7 and more
CROWD = 16  # in a full cell a vector is compared with this many neighbours, not with all
FREQUENCIES = [(u, v) for u in range(5) for v in range(5) if 0 < u + v <= 5]
ROWS, COLUMNS = np.array(FREQUENCIES).T
SCALE = 100.0  # vectors are kept as int8: value x SCALE
FLAT = 36.0  # added to a picture's contrast: what is nearly plain has no structure to speak of


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Vectors of one view, in rows: twice the moments of all clips."""

    vectors: np.ndarray  # int8 [N, D]
    owner: np.ndarray  # int32 [N], the clip
    flipped: np.ndarray  # bool [N], the vector shows the picture mirrored
    cut: np.ndarray  # bool [N], the vector is of the picture with CROP cut off


def moments(chunks: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]]) -> tuple[Moments, ...]:
    """The vectors of all prints, a `Moments` a view. A chunk is the numbers of some clips and their prints;
    the result does not depend on how they are cut into chunks."""
    parts: list[list[tuple[np.ndarray, ...]]] = [[] for _ in VIEWS]
    for numbers, prints in chunks:
        if not len(numbers):
            continue
        picked = [p[_picked(len(p))] for p in prints]
        owner = np.repeat(np.asarray(numbers, np.int32), [len(p) for p in picked])
        samples = np.concatenate(picked).astype(np.float32)
        for found, view in zip(parts, VIEWS, strict=True):
            for cut in (0.0, CROP):
                vectors, flipped = _vectors(samples, *(_within(part, cut) for part in view))
                found.append((vectors, owner, flipped, np.full(len(owner), cut > 0)))
    return tuple(_joined(found) for found in parts)


def candidate_pairs(views: Sequence[Moments], seed: int = 0) -> np.ndarray:
    """int64 [P, 3], sorted and unique: two clips (the lower number first) and whether one is mirrored."""
    found = [np.empty(0, np.int64)]
    for n, view in enumerate(views):
        rng = np.random.default_rng([seed, n])
        for _ in range(GRIDS):
            found.append(_pairs_of_grid(view, rng))
    packed = np.unique(np.concatenate(found))
    return np.stack([packed >> 33, (packed >> 1) & 0xFFFFFFFF, packed & 1], axis=1)


def _picked(count: int) -> np.ndarray:
    """Which of `count` samples are moments: evenly spread, first and last included."""
    wanted = min(count, max(LEAST, min(MOST, round(count / PRINT_HZ / EVERY_S) + 1)))
    return np.linspace(0, count - 1, wanted).round().astype(np.int64)


def _within(part: tuple[float, float], cut: float) -> tuple[float, float]:
    """A part of what is left when `cut` is taken off both ends, as a part of the whole."""
    return cut + part[0] * (1 - 2 * cut), cut + part[1] * (1 - 2 * cut)


def _vectors(
    samples: np.ndarray, rows: tuple[float, float], columns: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """int8 [N, D] and whether each was flipped, of this part of samples [N, PRINT_SIZE]."""
    grid = np.arange(PRINT_LUMA)
    waves = np.cos(np.pi * (2 * grid + 1) * np.arange(5)[:, None] / (2 * PRINT_LUMA))  # [5, PRINT_LUMA]
    down, across = (waves @ overlap_weights(PRINT_LUMA, PRINT_LUMA, part) for part in (rows, columns))
    basis = np.einsum("fi,fj->fij", down[ROWS], across[COLUMNS]).reshape(len(FREQUENCIES), -1)
    luma = samples[:, : PRINT_LUMA**2] @ basis.T.astype(np.float32)  # [N, F]
    luma /= np.linalg.norm(luma, axis=1, keepdims=True) + FLAT
    odd = COLUMNS % 2 == 1
    flipped = luma[:, odd].sum(axis=1) < 0
    luma[:, odd] *= np.where(flipped, -1, 1)[:, None]
    weights = [overlap_weights(1, PRINT_CHROMA, part)[0] for part in (rows, columns)]
    chroma = samples[:, PRINT_LUMA**2 :].reshape(-1, 2, PRINT_CHROMA, PRINT_CHROMA)
    mean = (np.einsum("ncij,i,j->nc", chroma, *weights) - 128) / 128
    vectors = np.concatenate([luma, mean], axis=1) * SCALE
    return np.rint(vectors).clip(-127, 127).astype(np.int8), flipped


def _joined(parts: list[tuple[np.ndarray, ...]]) -> Moments:
    if not parts:
        none = np.empty(0, bool)
        return Moments(
            vectors=np.empty((0, len(FREQUENCIES) + 2), np.int8),
            owner=np.empty(0, np.int32),
            flipped=none,
            cut=none,
        )
    vectors, owner, flipped, cut = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((cut, owner))
    vectors, owner, flipped, cut = (column[order] for column in (vectors, owner, flipped, cut))
    return Moments(vectors=vectors, owner=owner, flipped=flipped, cut=cut)


def _pairs_of_grid(view: Moments, rng: np.random.Generator) -> np.ndarray:
    """Pairs packed as lower << 33 | higher << 1 | mirrored, unique, of the vectors that share a cell."""
    order, cell = _by_cell(view.vectors, rng)
    found = [np.empty(0, np.int64)]
    for step in range(1, CROWD + 1):
        same = np.flatnonzero(cell[step:] == cell[:-step])
        if not len(same):
            break
        a, b = order[same], order[same + step]
        useful = (view.owner[a] != view.owner[b]) & ~(view.cut[a] & view.cut[b])
        a, b = a[useful], b[useful]
        apart = view.vectors[a].astype(np.int16) - view.vectors[b]
        near = np.einsum("nd,nd->n", apart, apart, dtype=np.int32) <= (NEAR * SCALE) ** 2
        a, b = a[near], b[near]
        low, high = np.sort(np.stack([view.owner[a], view.owner[b]]).astype(np.int64), axis=0)
        found.append(np.unique(low << 33 | high << 1 | (view.flipped[a] ^ view.flipped[b])))
    return np.unique(np.concatenate(found))


def _by_cell(vectors: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """(order, cell): vector numbers by cell and inside a cell along a line, and their cells, uint64."""
    directions = rng.standard_normal((vectors.shape[1], PROJECTIONS + 1)).astype(np.float32)
    shifts = rng.uniform(0, 1, PROJECTIONS).astype(np.float32)
    mixers = rng.integers(1, 2**63, PROJECTIONS, dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(vectors), np.uint64)
    for start in range(0, len(vectors), 1 << 18):  # a few megabytes at a time
        along = vectors[start : start + (1 << 18)].astype(np.float32) @ directions / SCALE
        cells = np.floor(along[:, :PROJECTIONS] / WIDTH + shifts).astype(np.int64).astype(np.uint64)
        mixed = (cells * mixers).sum(axis=1, dtype=np.uint64)
        fine = ((along[:, -1] / 16 + 0.5).clip(0, 1) * 65535).astype(np.uint64)
        keys[start : start + (1 << 18)] = (mixed & ~np.uint64(0xFFFF)) | fine
    order = np.argsort(keys)
    return order, keys[order] >> np.uint64(16)
