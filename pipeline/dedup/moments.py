"""Which clips may be copies of one another? Prints of all clips in, pairs worth aligning out.

In: prints (pipeline/dedup/prints.py), in chunks. Out: pairs of row numbers, each as seen or mirrored. Never:
all pairs, or a decision: the work grows with the clips and their look-alikes, and pipeline/dedup/alignment.py
looks closer.

A print is sampled at a few *moments*. Each becomes a short vector of low frequencies (DCT-II) of its luma,
at unit contrast, and its mean chroma, so that brightness, contrast and scale leave it where it was. It is
flipped so that its odd frequencies add up to a positive number: mirrored copies meet. It is made of the whole
picture, of its middle, which logos leave alone, of its upper part, which subtitles leave alone, and of strips
along its four edges, of which a large overlay in a corner or along an edge leaves at least one alone; and of
each with 4 % cut off every side, so that cropped copies meet too. A strip at the left or right is not
flipped: its mirror image lies on the other side. Vectors that fall into the same cell of a
random grid (p-stable hashing, Datar et al. 2004) and are truly near make a pair; several grids, because near
vectors may lie on both sides of a border.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from pipeline.dedup.prints import PRINT_CHROMA, PRINT_HZ, PRINT_LUMA, PRINT_MAX, PRINT_SIZE, overlap_weights
from pipeline.engine.resources import allowed_cpus
from pipeline.errors import UsageError

LEAST, MOST, EVERY_S = 5, 16, 1.0  # moments of a clip: at least, at most, and how far apart in between
CROP = 0.04  # a side
PROJECTIONS, WIDTH = 12, 0.6  # numbers that make a cell; its extent
MAX_CLIPS = 1 << 30  # two clip numbers and two bits are packed into one int64
NEAR = 0.16  # distance between vectors of a pair; copies measure 0.01 to 0.15, strangers mostly 0.7 and more
NEAR_STRIP = 0.12  # a strip holds less: of 40,000 strangers 1,078 pairs lay within 0.16, 39 within this
LINE = 4096  # places on the line of a cell per unit of length
REACH = np.uint64(2.5 * NEAR * LINE)  # 2.5 standard deviations of what NEAR may come to on a random line
MOST_THREADS = (
    8  # grids searched at a time (NumPy lets them run beside each other), each in memory of its own
)
BLOCK = 1 << 16  # vectors whose cells are computed at a time
CROWD = 16  # in a full cell a vector is compared with this many neighbours, not with all
SIDE = 6  # frequencies down and across of a view
NARROW = 3  # frequencies across a strip
SCALE = 100.0  # vectors are kept as int8: value x SCALE
NOTHING = np.empty((0, PRINT_SIZE), np.float32)
FLAT = 36.0  # added to a picture's contrast: what is nearly plain has no structure to speak of


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A part of the picture of which vectors are made."""

    rows: tuple[float, float]  # shares of the picture's height
    columns: tuple[float, float]  # and of its width
    down: int = SIDE  # frequencies
    across: int = SIDE
    grids: int = 8
    near: float = NEAR
    strip: bool = False  # it is so small a part that nearness in it says little of the whole

    @property
    def frequencies(self) -> np.ndarray:
        """int64 [F, 2], down and across."""
        pairs = [(u, v) for u in range(self.down) for v in range(self.across) if 0 < u + v <= SIDE]
        return np.array(pairs)

    @property
    def symmetrical(self) -> bool:
        """A mirrored picture shows the mirrored view."""
        return bool(np.isclose(sum(self.columns), 1))


WHOLE, MIDDLE, FIRST, LAST = (0.0, 1.0), (0.18, 0.82), (0.0, 5 / 12), (7 / 12, 1.0)  # shares of a side
VIEWS = (
    View(rows=WHOLE, columns=WHOLE),
    View(rows=MIDDLE, columns=MIDDLE),
    View(rows=(0.0, 0.65), columns=WHOLE),
    *(
        View(rows=part, columns=WHOLE, down=NARROW, grids=2, near=NEAR_STRIP, strip=True)
        for part in (FIRST, LAST)
    ),
    *(
        View(rows=WHOLE, columns=part, across=NARROW, grids=2, near=NEAR_STRIP, strip=True)
        for part in (FIRST, LAST)
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Vectors of all moments of all clips, each moment whole and with CROP cut off, sorted by clip."""

    owner: np.ndarray  # int32 [N], the clip
    cut: np.ndarray  # bool [N], CROP is cut off
    vectors: tuple[np.ndarray, ...]  # a view: int8 [N, D]
    flipped: tuple[np.ndarray, ...]  # a view: bool [N], the vector shows the picture mirrored


def moments(chunks: Iterable[tuple[np.ndarray, Sequence[np.ndarray]]]) -> Moments:
    """The vectors of all prints. A chunk is the numbers of some clips and their prints; the result does not
    depend on how they are cut into chunks."""
    owners: list[np.ndarray] = [np.empty(0, np.int32)]
    parts: list[list[tuple[np.ndarray, np.ndarray]]] = [[_vectors(NOTHING, view, 0.0)] for view in VIEWS]
    for numbers, prints in chunks:
        if not len(numbers):
            continue
        if max(numbers) >= MAX_CLIPS:
            raise UsageError(
                f"clip number {max(numbers)}",
                expected=f"at most {MAX_CLIPS:,} clips compared at a time",
                fix="deduplicate parts of the corpus",
            )
        picked = [p[_picked(len(p))] for p in prints]
        samples = np.concatenate(picked).astype(np.float32)
        owners.append(np.repeat(np.asarray(numbers, np.int32), [len(p) for p in picked]))
        for part, view in zip(parts, VIEWS, strict=True):
            both = [_vectors(samples, view, cut) for cut in (0.0, CROP)]
            # Interleaved, so that a moment's two vectors are neighbours: [2K, D] and [2K].
            vectors, flipped = (np.stack(pair, axis=1) for pair in zip(*both, strict=True))
            part.append((vectors.reshape(-1, vectors.shape[2]), flipped.ravel()))
    owner = np.repeat(np.concatenate(owners), 2)
    cut = np.tile([False, True], len(owner) // 2)
    order = slice(None) if (owner[1:] >= owner[:-1]).all() else np.argsort(owner, kind="stable")
    columns = []
    while parts:  # a view at a time, so that no more than one lies in memory twice
        columns.append([np.concatenate(column)[order] for column in zip(*parts.pop(0), strict=True)])
    return Moments(
        owner=owner[order],
        cut=cut,
        vectors=tuple(vectors for vectors, _ in columns),
        flipped=tuple(flipped for _, flipped in columns),
    )


def candidate_pairs(clips: Moments, *, across: int | None = None, seed: int = 0) -> np.ndarray:
    """int64 [P, 4], sorted and unique: two clips (the lower number first), whether one is mirrored, and
    whether only strips of them are near. With `across` only pairs of a clip before that number with one from
    it on."""
    side = clips.owner if across is None else clips.owner >= across  # a pair's two sides differ
    grids = [(number, grid) for number, view in enumerate(VIEWS) for grid in range(view.grids)]

    def search(grid: tuple[int, int]) -> np.ndarray:
        pairs = _pairs_of_grid(clips, grid[0], side, np.random.default_rng([seed, *grid]))
        return pairs << 1 | VIEWS[grid[0]].strip

    packed = np.empty(0, np.int64)
    with ThreadPoolExecutor(min(MOST_THREADS, allowed_cpus())) as pool:
        for more in pool.map(search, grids):
            packed = np.union1d(packed, more)
    packed = packed[np.diff(packed >> 1, prepend=-1) != 0]  # near as a whole comes before near in a strip
    return np.stack([packed >> 32, (packed >> 2) % MAX_CLIPS, (packed >> 1) & 1, packed & 1], axis=1)


@lru_cache(maxsize=PRINT_MAX)
def _picked(count: int) -> np.ndarray:
    """Which of `count` samples are moments: evenly spread, first and last included."""
    wanted = min(count, max(LEAST, min(MOST, round(count / PRINT_HZ / EVERY_S) + 1)))
    picked = np.linspace(0, count - 1, wanted).round().astype(np.int64)
    picked.flags.writeable = False  # it is shared between calls
    return picked


def _within(part: tuple[float, float], cut: float) -> tuple[float, float]:
    """A part of what is left when `cut` is taken off both ends, as a part of the whole."""
    return cut + part[0] * (1 - 2 * cut), cut + part[1] * (1 - 2 * cut)


def _vectors(samples: np.ndarray, view: View, cut: float) -> tuple[np.ndarray, np.ndarray]:
    """int8 [N, D] and whether each was flipped, of a view of samples [N, PRINT_SIZE] without `cut` of every
    side."""
    rows, columns = _within(view.rows, cut), _within(view.columns, cut)
    grid, (u, v) = np.arange(PRINT_LUMA), view.frequencies.T
    waves = np.cos(np.pi * (2 * grid + 1) * np.arange(SIDE)[:, None] / (2 * PRINT_LUMA))  # [SIDE, PRINT_LUMA]
    down, across = (waves @ overlap_weights(PRINT_LUMA, PRINT_LUMA, part) for part in (rows, columns))
    basis = np.einsum("fi,fj->fij", down[u], across[v]).reshape(len(u), -1)
    luma = samples[:, : PRINT_LUMA**2] @ basis.T.astype(np.float32)  # [N, F]
    luma /= np.linalg.norm(luma, axis=1, keepdims=True) + FLAT
    odd = v % 2 == 1
    flipped = (luma[:, odd].sum(axis=1) < 0) & view.symmetrical
    luma[:, odd] *= np.where(flipped, -1, 1)[:, None]
    weights = [overlap_weights(1, PRINT_CHROMA, part)[0] for part in (rows, columns)]
    mean_of_plane = np.kron(np.eye(2, dtype=np.float32), np.outer(*weights).ravel())  # [2, chroma cells]
    mean = (samples[:, PRINT_LUMA**2 :] @ mean_of_plane.T - 128) / 128
    vectors = np.concatenate([luma, mean], axis=1) * SCALE
    return np.rint(vectors).clip(-127, 127).astype(np.int8), flipped


def _pairs_of_grid(clips: Moments, view: int, side: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pairs packed as lower << 31 | higher << 1 | mirrored, unique, of the vectors that share a cell."""
    keys, leading, fresh = _keys(clips.vectors[view], clips.owner, rng)
    pairs = [np.empty(0, np.int64)]
    for some in _parts(leading, fresh):
        pairs.append(_pairs_among(clips, view, side, some, keys[some]))
    return np.unique(np.concatenate(pairs))


def _keys(
    vectors: np.ndarray, owner: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(keys, leading, fresh): uint64 [N], 48 bits of cell and 16 of the place on a line, where near vectors
    of a cell lie within REACH; uint8 [N], the first bits of the cell; bool [N], the vector is not in the cell
    of its clip's moment before, nor of its own moment uncut."""
    directions = rng.standard_normal((vectors.shape[1], PROJECTIONS + 1)).astype(np.float32)
    directions[:, :PROJECTIONS] /= WIDTH * SCALE
    directions[:, PROJECTIONS] *= LINE / SCALE
    shifts = rng.uniform(0, 1, PROJECTIONS).astype(np.float32)
    mixers = rng.integers(1, 2**63, PROJECTIONS, dtype=np.uint64) | np.uint64(1)
    keys, leading = np.empty(len(vectors), np.uint64), np.empty(len(vectors), np.uint8)
    fresh = np.ones(len(vectors), bool)
    for start in range(0, len(vectors), BLOCK):
        some = slice(start, start + BLOCK)
        along = vectors[some].astype(np.float32) @ directions  # [BLOCK, PROJECTIONS + 1]
        cells = np.floor(along[:, :PROJECTIONS] + shifts).astype(np.int64).view(np.uint64)
        cell = np.einsum("np,p->n", cells, mixers) >> np.uint64(16)
        fine = (along[:, PROJECTIONS] + 32768).clip(0, 65535).astype(np.uint64)
        keys[some], leading[some] = (cell << np.uint64(16)) | fine, cell >> np.uint64(40)
        who = owner[some]
        fresh[some][2:] &= (cell[2:] != cell[:-2]) | (who[2:] != who[:-2])  # whole and cut take turns
        fresh[some][1::2] &= cell[1::2] != cell[::2]
    return keys, leading, fresh


def _parts(leading: np.ndarray, fresh: np.ndarray) -> list[np.ndarray]:
    """The fresh vectors by the leading bits of their cells, each part small enough for the cache."""
    numbers = np.flatnonzero(fresh)
    bits = int(np.clip(np.ceil(np.log2(max(len(numbers), 1) / BLOCK)), 0, 8))
    part = leading[numbers] >> (8 - bits) if bits else np.zeros(len(numbers), np.uint8)
    by_part = numbers[np.argsort(part, kind="stable")]
    return np.split(by_part, np.cumsum(np.bincount(part, minlength=1 << bits))[:-1])


def _pairs_among(
    clips: Moments, view: int, side: np.ndarray, some: np.ndarray, key: np.ndarray
) -> np.ndarray:
    """Packed pairs of these vectors: near ones of two sides, at least one of them whole."""
    order = np.argsort(key)
    key, order = key[order], some[order]
    kept = _shared_runs(key, side[order])
    key, order = key[kept], order[kept]
    side, cut, owner = side[order], clips.cut[order], clips.owner[order].astype(np.int64)
    vectors, flipped = clips.vectors[view][order].astype(np.int16), clips.flipped[view][order]
    pairs = [np.empty(0, np.int64)]
    for step in range(1, CROWD + 1):
        same = key[step:] - key[:-step] <= REACH
        if not same.any():
            break
        a = np.flatnonzero(same & (side[step:] != side[:-step]) & ~(cut[step:] & cut[:-step]))
        apart = vectors[a] - vectors[a + step]
        a = a[np.einsum("nd,nd->n", apart, apart, dtype=np.int32) <= (VIEWS[view].near * SCALE) ** 2]
        b = a + step
        low, high = np.minimum(owner[a], owner[b]), np.maximum(owner[a], owner[b])
        pairs.append(low << 31 | high << 1 | (flipped[a] ^ flipped[b]))
    return np.unique(np.concatenate(pairs))


def _shared_runs(key: np.ndarray, side: np.ndarray) -> np.ndarray:
    """bool [N]: in a run of near keys (sorted) that holds vectors of more than one side; few are."""
    if not len(key):
        return np.zeros(0, bool)
    first = np.flatnonzero(np.concatenate([[True], key[1:] - key[:-1] > REACH]))
    shared = np.minimum.reduceat(side, first) != np.maximum.reduceat(side, first)
    return np.repeat(shared, np.diff(np.append(first, len(key))))
