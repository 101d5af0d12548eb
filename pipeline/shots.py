"""Frame differences → shot boundaries → shots. Pure functions on arrays.

In: one descriptor a frame (what the picture looks like on a coarse grid) and the frame rate. Out:
boundaries (cut, dissolve, wipe, fade) with a confidence, and the shots between them. Never: pixels at
full size, files, clocks.

The steps: `descriptors` → distances between frames up to half a second apart → `hard_cuts`, `fades`,
`dissolves` → `find_boundaries` merges them → `split`. Thresholds were set on real montages with known
cuts: there, hard cuts score 0.28 to 1.1 and the fastest continuous motion 0.36, but never more than 2.1
times its neighbourhood.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import ShotConfig

LUMA_CELLS, CHROMA_CELLS = 16, 8  # cells along a side of the grid
LUMA_SIZE, CHROMA_SIZE = LUMA_CELLS**2, CHROMA_CELLS**2
DIMENSIONS = LUMA_SIZE + 2 * CHROMA_SIZE
FLASH_S = 0.15  # what looks the same again after this long was a flash, not a cut
PLAIN = 4.0  # grid standard deviation (0-255) below which a picture is one plain colour
LONG_PLAIN_S = 1.0  # a plain stretch this long is a shot of its own
BLEND = 0.145  # of the change: how far the frames of a dissolve may lie from a blend of its two ends
DISSOLVE_S = (0.15, 0.3, 0.5, 0.75)  # half widths of the windows in which a gradual change is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Frames `first` to `frame` - 1 belong to the transition (none for a cut); `frame` begins the new
    shot."""

    first: int
    frame: int
    kind: str  # cut | dissolve | wipe | fade
    confidence: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Frames `start` to `end` - 1; transitions at its ends are left out."""

    start: int
    end: int
    boundary_in: str
    boundary_out: str
    confidence: float  # the lower of its two boundaries


def descriptors(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """uint8 [B, DIMENSIONS]: cell means of the three planes (uint8 [B, H, W]; at least a pixel a cell)."""
    cells = (_cells(y, LUMA_CELLS), _cells(u, CHROMA_CELLS), _cells(v, CHROMA_CELLS))
    return np.concatenate([np.rint(c).astype(np.uint8) for c in cells], axis=1)


def find_boundaries(
    frames: np.ndarray, fps: float, config: ShotConfig, gaps: Sequence[int] = ()
) -> list[Boundary]:
    """All boundaries of a video, in order. frames: uint8 [N, DIMENSIONS]; at `gaps` frames are missing:
    cuts too."""
    cuts = [c for c in hard_cuts(frames, fps, config) if c.frame not in gaps]
    cuts += [Boundary(first=g, frame=g, kind="cut", confidence=1.0) for g in gaps]
    softer = fades(frames, fps, config, cuts)
    softer += dissolves(frames, fps, config, cuts + softer)
    found: list[Boundary] = []
    for boundary in sorted([*cuts, *softer], key=lambda b: (b.frame, b.first)):
        if found and boundary.first - found[-1].frame < config.min_shot_s * fps - 1:
            if boundary.confidence <= found[-1].confidence:
                continue
            found.pop()
        found.append(boundary)
    return found


def split(boundaries: list[Boundary], count: int) -> list[Shot]:
    """The shots between the boundaries of a video of `count` frames."""
    starts = [Boundary(first=0, frame=0, kind="start", confidence=1.0), *boundaries]
    ends = [*boundaries, Boundary(first=count, frame=count, kind="end", confidence=1.0)]
    return [
        Shot(
            start=a.frame,
            end=b.first,
            boundary_in=a.kind,
            boundary_out=b.kind,
            confidence=min(a.confidence, b.confidence),
        )
        for a, b in zip(starts, ends, strict=True)
        if b.first > a.frame
    ]


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """How unlike two pictures are, [..., DIMENSIONS] to [...]: mean absolute cell difference of the three
    planes,
    each 0 to 1, plus a quarter of the luma structure that does not correlate (0 to 2)."""
    a, b = a.astype(np.float32), b.astype(np.float32)
    return _colour_difference(a, b) + 0.25 * (1 - _correlation(a[..., :LUMA_SIZE], b[..., :LUMA_SIZE]))


def hard_cuts(frames: np.ndarray, fps: float, config: ShotConfig) -> list[Boundary]:
    """A cut at t: every one of the last frames differs from every one of the next (so a flash or a
    doubled frame is
    none), by more than `cut_threshold` and by `cut_ratio` times the largest change nearby (so fast motion
    is none)."""
    count = len(frames)
    reach = min(max(round(FLASH_S * fps), 2), 6)
    apart = [_apart(frames, k) for k in range(reach + 4)]  # apart[k][s]: frames s and s + k
    found = []
    for t in (np.flatnonzero(apart[1] >= config.cut_threshold) + 1).tolist():
        before, after = range(1, min(3, t) + 1), range(min(reach, count - t))
        least = min(float(apart[i + j][t - i]) for i in before for j in after)
        near = [float(apart[1][s - 1]) for s in range(max(1, t - reach), min(count, t + reach + 1)) if s != t]
        ratio = float(apart[1][t - 1]) / (max(near, default=0.0) + 0.01)
        if least >= config.cut_threshold and ratio >= config.cut_ratio:
            confidence = min(1.0, least / (2 * config.cut_threshold)) * min(
                1.0, ratio / (2 * config.cut_ratio)
            )
            found.append(Boundary(first=t, frame=t, kind="cut", confidence=round(confidence**0.5, 3)))
    return found


def fades(frames: np.ndarray, fps: float, config: ShotConfig, cuts: list[Boundary]) -> list[Boundary]:
    """Runs of plain pictures (black, white) between pictures: a boundary each; a long run becomes a shot."""
    luma = frames[:, :LUMA_SIZE].astype(np.float32)
    plain = luma.std(axis=1) < PLAIN
    edges = np.flatnonzero(np.diff(np.concatenate([[False], plain, [False]]).astype(np.int8)))
    at_cuts = {c.frame for c in cuts}
    found = []
    for start, end in edges.reshape(-1, 2):
        if start == 0 or end == len(frames):  # fade in from, or out to, a plain picture
            continue
        if end - start >= LONG_PLAIN_S * fps:
            kept = [Boundary(first=int(s), frame=int(s), kind="fade", confidence=1.0) for s in (start, end)]
            found += [b for b in kept if b.frame not in at_cuts]
            continue
        margin = max(1, round(0.4 * fps))
        a, b = frames[max(0, start - margin)], frames[min(len(frames) - 1, end + margin - 1)]
        change = float(difference(a, b))
        first, last = _ramp(luma, int(start), int(end), margin)
        abrupt = end - start <= FLASH_S * fps and last - first <= end - start + 1
        if change >= config.cut_threshold and not abrupt and not at_cuts & set(range(first, last + 1)):
            confidence = min(1.0, change / (2 * config.cut_threshold))
            found.append(Boundary(first=first, frame=last, kind="fade", confidence=round(confidence, 3)))
    return found


def dissolves(frames: np.ndarray, fps: float, config: ShotConfig, others: list[Boundary]) -> list[Boundary]:
    """Gradual changes from one picture to another (dissolve, wipe): across a window the picture changes
    much, and
    does so on a straight way: the steps add up to little more than the change. Motion wanders: its steps
    add up to
    far more. The narrowest window that sees the whole change wins."""
    count = len(frames)
    values = frames.astype(np.float32)
    steps = _colour_difference(values[1:], values[:-1])
    travelled = np.concatenate([[0.0], np.cumsum(steps, dtype=np.float64)])
    taken = np.zeros(count, bool)
    for other in others:
        taken[max(0, other.first - 2) : other.frame + 2] = True
    scored: list[tuple[float, int, int]] = []  # (straightness, middle, half width)
    for half in sorted({max(3, round(s * fps)) for s in DISSOLVE_S}):
        if 2 * half >= count:
            break
        early, late = values[: -2 * half], values[2 * half :]
        change = _colour_difference(early, late)
        unlike = 1 - _correlation(early[:, :LUMA_SIZE], late[:, :LUMA_SIZE])
        way = travelled[2 * half :] - travelled[: -2 * half]
        straight = change / (way + 0.02)
        good = (change >= config.dissolve_change) & (unlike >= config.dissolve_unlike)
        for s in np.flatnonzero(good & (straight >= config.dissolve_straightness)):
            if not taken[s : s + 2 * half + 1].any():
                scored.append((float(straight[s]), int(s) + half, half))
    contrast = values[:, :LUMA_SIZE].std(axis=1)
    found: list[Boundary] = []
    for straightness, middle, half in sorted(scored, key=lambda c: (-c[0], c[1])):
        a, b = middle - half, middle + half
        if taken[a : b + 1].any() or min(contrast[a], contrast[b]) < 1.5 * PLAIN:
            continue
        first, frame = _extent(values, a, b, reach=round(fps))
        kind = _gradual_kind(values, steps, max(0, first - 1), frame, around=max(3, round(0.3 * fps)))
        if kind:
            taken[min(a, first) : max(b, frame) + 1] = True
            confidence = round(min(1.0, straightness), 3)
            found.append(Boundary(first=first, frame=frame, kind=kind, confidence=confidence))
    return found


def _cells(planes: np.ndarray, cells: int) -> np.ndarray:
    """Area averages of uint8 [B, H, W] over a grid: float32 [B, cells * cells].

    Two products with matrices of ones and zeros: sums below 2^24 are exact in float32 in any order."""
    down, across = (_membership(side, cells) for side in planes.shape[1:])  # [H, cells], [W, cells]
    sums = down.T @ (planes.astype(np.float32) @ across)
    return (sums / np.outer(down.sum(axis=0), across.sum(axis=0))).reshape(len(planes), cells * cells)


def _membership(side: int, cells: int) -> np.ndarray:
    """float32 [side, cells]: one where a pixel along a side belongs to a cell."""
    starts = np.arange(cells) * side // cells
    return np.equal.outer(np.searchsorted(starts, np.arange(side), "right") - 1, np.arange(cells)).astype(
        "f4"
    )


def _gradual_kind(values: np.ndarray, steps: np.ndarray, a: int, b: int, around: int) -> str:
    """What happens between pictures a and b: "dissolve" when each frame between is a blend of the two,
    "wipe" when
    each cell lies between its two values, and the change is faster than what happens around it, else ""
    (motion)."""
    if b - a < 3:
        return ""
    change = values[b] - values[a]
    total = float(np.abs(change).sum())
    inner = values[a + 1 : b]
    done = (inner - values[a]) @ change / float(change @ change)  # [b - a - 1]
    unblended = float(np.abs(inner - values[a] - done[:, None] * change).sum(axis=1).mean()) / total
    if unblended <= BLEND:
        return "dissolve"
    low, high = np.minimum(values[a], values[b]), np.maximum(values[a], values[b])
    outside = float((np.maximum(low - inner, 0) + np.maximum(inner - high, 0)).sum(axis=1).mean()) / total
    before, after = steps[max(0, a - around) : a], steps[b : b + around]
    usual = max(float(part.mean()) if len(part) else 0.0 for part in (before, after))
    return "wipe" if outside <= 0.03 and float(steps[a:b].mean()) > 1.4 * (usual + 0.002) else ""


def _apart(frames: np.ndarray, k: int) -> np.ndarray:
    """difference(frame s, frame s + k) for every s: [N - k]."""
    if k == 0 or k >= len(frames):
        return np.zeros(len(frames) if k == 0 else 0, np.float32)
    return difference(frames[:-k], frames[k:])


def _colour_difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cells = np.abs(a - b)
    luma, chroma = cells[..., :LUMA_SIZE], cells[..., LUMA_SIZE:]
    return (luma.mean(axis=-1) + 2 * chroma.mean(axis=-1)) / 255


def _correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Correlation of two grids over their last axis; two plain pictures count as uncorrelated."""
    a = a - a.mean(axis=-1, keepdims=True)
    b = b - b.mean(axis=-1, keepdims=True)
    floor = LUMA_SIZE * 4.0  # a standard deviation of 2 of 255: coding noise
    return (a * b).sum(-1) / np.sqrt(((a * a).sum(-1) + floor) * ((b * b).sum(-1) + floor))


def _ramp(luma: np.ndarray, start: int, end: int, margin: int) -> tuple[int, int]:
    """(first, frame): the plain run widened over the frames whose contrast is still rising or falling."""
    contrast = luma.std(axis=1)
    first = start
    while first > max(0, start - margin) and contrast[first - 1] < 0.9 * contrast[max(0, first - 3)]:
        first -= 1
    last = end
    top = len(contrast) - 1
    while last < min(top, end + margin) and contrast[last] < 0.9 * contrast[min(top, last + 2)]:
        last += 1
    return first, last


def _extent(values: np.ndarray, a: int, b: int, reach: int) -> tuple[int, int]:
    """(first, frame) of the change seen between frames a and b: where the way from one picture to the
    other is 5 % and 95 % done, then outwards while the frames go on that way (the window may be too
    narrow)."""
    change = values[b] - values[a]
    way = change / float(change @ change)
    done = (values[a : b + 1] - values[a]) @ way  # [b - a + 1], 0 to 1
    first = a + int(np.argmax(done > 0.05))
    frame = max(first, min(b, b - int(np.argmax(done[::-1] < 0.95)) + 1))
    least = 0.35 * float(done[frame - a] - done[max(first - 1 - a, 0)]) / (frame - first + 1)
    earliest, latest = max(1, first - reach), min(len(values) - 1, frame + reach)
    while first > earliest and float((values[first - 1] - values[first - 2]) @ way) >= least:
        first -= 1
    while frame < latest and float((values[frame + 1] - values[frame]) @ way) >= least:
        frame += 1
    return first, frame
