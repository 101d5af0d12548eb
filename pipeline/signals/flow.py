"""How the picture moves between frames: its parts, and what moves together.

In: small 8-bit luma planes of consecutive frames and their times. Out: a MOTION row a frame. Never: full-size
pixels, files, what the motion means (pipeline/signals/camera.py).

Motion is measured RATE_HZ times a second at most, whatever the frame rate. The steps: a shift of the whole
picture by matching sums of rows and columns (integral projections; Sauer and Schwartz 1996), so that fast
pans stay in reach; brightness gradients of each block at that shift (Lucas and Kanade 1981); one similarity
(shift, scale, turn) through the gradient constraints of all blocks rather than through their displacements,
so that a block with edges of one direction says what it can and no more (Bergen et al. 1992), with blocks
that disagree weighed down (iteratively reweighted least squares). Lengths are in long sides of the picture.
Integers up to the sums of blocks: how frames are cut into batches changes no value.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

RATE_HZ = 12.0  # a second
BATCH = 16  # frames measured at a time: one by one, calls would cost more than arithmetic
BLOCK = 8  # pixels along a side of a block, at a quarter of the pixels
REACH = 0.2  # largest shift of the whole picture between two frames, of its side
SURE = 0.8  # the shifted picture must match this much better
TEXTURE = 4.0  # variance of gradients that a block must exceed for its motion to be believed
MISFIT_PX = 0.35  # a block this far from the camera's motion counts half
ROUNDS = 3  # of reweighting
RIDGE = 0.02  # blocks that say "still": decides where nothing else does
FARTHEST_PX = 4.0  # gradients say nothing beyond
FAST_PX = 0.5  # textured blocks that seem to move further than this ask for a shift first
GAIN = 0.7  # a block follows the camera when its misfit is below this share of what it is for a still camera
MOST = 0.5  # share of the blocks with texture that must, or none is said to

DARK, LEAST_BLOCKS = 16, 8  # blocks darker than this (0-255) say nothing: bars, night; and so few say little

MOTION = np.dtype(
    [
        ("since", "i2"),  # frames since the one that this row compares with; 0 = nothing was compared
        ("moved", "f4"),  # mean displacement of the blocks, long sides
        ("dx", "f4"),  # camera: displacement of the picture's content to the right, long sides
        ("dy", "f4"),  # and down
        ("zoom", "f4"),  # and natural logarithm of its growth
        ("roll", "f4"),  # and its turn, radians clockwise
        ("agree", "f4"),  # share of the blocks that are not dark that follow the camera, 0 to 1
    ]
)


class Follower:
    """Measures motion along a video, many frames at a time. A frame is measured when it is the first in its
    RATE_HZ-th of a second of the video: a pass that begins some frames earlier than another gives the same
    rows from there on."""

    def __init__(self) -> None:
        self._planes: list[np.ndarray] = []  # uint8 [H, W] of frames to measure, after the last that was
        self._indices: list[int] = []  # all frames to measure so far
        self._rows: list[np.ndarray] = []  # of all but the first of them, as far as measured
        self._slot, self._count = -1, 0  # the last frame's RATE_HZ-th of a second; frames so far

    def follow(self, times_s: Sequence[float], planes: np.ndarray) -> None:
        """Takes in the next frames: their times and luma, uint8 [B, H, W]."""
        slots = np.floor(np.asarray(times_s) * RATE_HZ + 1e-3).astype(np.int64)
        for i in np.flatnonzero(np.diff(slots, prepend=self._slot)).tolist():
            self._planes.append(planes[i].copy())
            self._indices.append(self._count + i)
        self._slot, self._count = int(slots[-1]), self._count + len(planes)
        if len(self._planes) > BATCH:
            self._measure()

    def fill(self, rows: np.ndarray) -> None:
        """Writes the motion of all frames so far into rows [N] that have the fields of MOTION."""
        self._measure()
        compared = self._indices[1:]
        for name in MOTION.fields or ():
            rows[name][compared] = np.concatenate([np.zeros(0, MOTION), *self._rows])[name]
        rows["since"][compared] = np.diff(self._indices)

    def _measure(self) -> None:
        if len(self._planes) > 1:
            self._rows.append(motion(np.stack(self._planes)))
            del self._planes[:-1]


def motion(planes: np.ndarray) -> np.ndarray:
    """MOTION [B] between consecutive luma planes, uint8 [B + 1, H, W]."""
    small = _halved(planes)  # int16 [B + 1, H/2, W/2], sums of four pixels
    count, high, wide = len(planes) - 1, *small.shape[1:]
    rows = np.zeros(count, MOTION)
    if min(high, wide) < BLOCK + 2:
        return rows
    before, after = small[:-1], small[1:]
    gradients = _gradients(before, after)  # [B, 5, R, C]
    steps = _displacements(gradients)  # [2, B, R, C]
    shift = np.zeros((count, 2), int)
    for i in np.flatnonzero(_seems_fast(steps, gradients)):
        shift[i] = _shift(before[i], after[i])
    far = np.flatnonzero(shift.any(axis=1))
    if len(far):
        back = np.stack([np.roll(after[i], -shift[i], axis=(0, 1)) for i in far])
        inside = np.stack([_inside(shift[i], (high, wide), gradients.shape[2:]) for i in far])
        gradients[far] = _gradients(before[far], back) * inside[:, None]
        steps[:, far] = _displacements(gradients[far]) + shift[far].T[:, :, None, None]
    long_px = max(high, wide)
    whole = np.hypot(steps[0], steps[1])  # [B, R, C]
    rows["moved"] = whole.reshape(count, -1).mean(axis=1) / long_px
    fit, follows = _similarity(gradients, np.asarray(shift.any(axis=1)))  # [B, 4], bool [B, N]
    lit = _block_sums(small[1:, 1:-1, 1:-1]) > DARK * 4 * BLOCK**2
    rows["agree"] = follows.sum(axis=1) / np.maximum(lit.sum(axis=(1, 2)), LEAST_BLOCKS)
    rows["dx"] = (fit[:, 0] + shift[:, 1]) / long_px
    rows["dy"] = (fit[:, 1] + shift[:, 0]) / long_px
    rows["zoom"], rows["roll"] = fit[:, 2], fit[:, 3]
    return rows


def _gradients(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Block means of xx, yy, xy, xt, yt (products of brightness gradients): float32 [B, 5, R, C]."""
    both, change = before + after, after - before  # int16
    gy = (both[:, 2:, 1:-1] - both[:, :-2, 1:-1]).astype(np.int32)  # 16 times the gradient
    gx = (both[:, 1:-1, 2:] - both[:, 1:-1, :-2]).astype(np.int32)
    gt = change[:, 1:-1, 1:-1].astype(np.int32)  # 4 times the change
    squares = [_block_sums(p) / np.float32(256 * BLOCK**2) for p in (gx * gx, gy * gy, gx * gy)]
    changes = [_block_sums(p) / np.float32(64 * BLOCK**2) for p in (gx * gt, gy * gt)]
    return np.stack(squares + changes, axis=1)


def _displacements(gradients: np.ndarray) -> np.ndarray:
    """Displacement down and right of each block, pixels, [2, B, R, C]; still where there is no texture."""
    xx, yy, xy, xt, yt = np.moveaxis(gradients, 1, 0)
    determinant = (xx + 1) * (yy + 1) - xy * xy
    down, right = (xy * xt - (xx + 1) * yt) / determinant, (xy * yt - (yy + 1) * xt) / determinant
    return np.clip(np.stack([down, right]), -FARTHEST_PX, FARTHEST_PX)


def _similarity(gradients: np.ndarray, shifted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(right, down, log scale, clockwise turn) [B, 4] that most blocks agree on, and which blocks [B, N]
    follow it and not a still camera; no block of a shifted frame follows that. None does when most go other
                     ways."""
    count, _, high, wide = gradients.shape
    moves, arm = _moves(high, wide)
    flat = gradients.reshape(count, 5, high * wide)
    strength = flat[:, 0] + flat[:, 1]  # [B, N]
    textured = strength > TEXTURE
    evened = flat / (strength[:, None] + TEXTURE)  # each block counts alike
    xx, yy, xy, xt, yt = np.moveaxis(evened, 1, 0)
    right, down = moves
    squares = np.concatenate(
        [_outer(right, right), _outer(down, down), _outer(right, down) + _outer(down, right)]
    )
    weight = textured.astype(np.float32)
    for _ in range(ROUNDS):  # products a frame at a time, so that the batch changes nothing
        weighed = weight[:, None] * evened  # [B, 5, N]
        gram = weighed[:, None, :3].reshape(count, 1, -1) @ squares  # [B, 1, 16]
        side = weighed[:, None, 3:].reshape(count, 1, -1) @ moves.transpose(0, 2, 1).reshape(
            -1, 4
        )  # [B, 1, 4]
        fit = -np.linalg.solve(
            gram.reshape(count, 4, 4) + RIDGE * np.eye(4, dtype=np.float32), side[:, 0, :, None]
        )
        u, v = (fit.transpose(0, 2, 1) @ m for m in moves)  # [B, 1, N]
        misfit = np.hypot(
            xx * u[:, 0] + xy * v[:, 0] + xt, xy * u[:, 0] + yy * v[:, 0] + yt
        )  # [B, N], pixels
        weight = textured / (1 + (misfit / MISFIT_PX) ** 2) ** 2
    unmoved = np.where(shifted[:, None], np.inf, np.hypot(xt, yt))  # the misfit of a still camera
    follows = textured & (misfit < np.minimum(MISFIT_PX, GAIN * unmoved))
    follows &= (follows.sum(axis=1) >= MOST * textured.sum(axis=1))[:, None]
    return fit[..., 0] / np.array([1, 1, arm, arm], np.float32), follows


@lru_cache(maxsize=8)
def _moves(high: int, wide: int) -> tuple[np.ndarray, float]:
    """How each of high x wide blocks moves for one unit of shift right, shift down, growth and turn: float32
    [2, 4, N], right then down; and the length that makes growth and turn of the size of the shifts,
                     pixels."""
    y, x = (BLOCK * (np.arange(n, dtype=np.float32) - (n - 1) / 2) for n in (high, wide))
    px, py = np.tile(x, high), np.repeat(y, wide)  # [N], pixels from the centre
    arm, one = BLOCK * (high + wide) / 8, np.ones_like(px)
    return np.stack([[one, 0 * one, px / arm, -py / arm], [0 * one, one, py / arm, px / arm]]), arm


def _outer(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Products of the moves of each block: [4, N] twice to [N, 16]."""
    return (a[:, None] * b[None]).reshape(16, -1).T


def _seems_fast(steps: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """bool [B]: the blocks with texture move more than gradients can tell."""
    textured = gradients[:, 0] + gradients[:, 1] > TEXTURE
    way = (np.hypot(steps[0], steps[1]) * textured).sum(axis=(1, 2))
    return np.asarray(way > FAST_PX * textured.sum(axis=(1, 2)))


def _shift(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Whole-pixel (down, right) shift between two planes int16 [h, w]: the best match of the sums of their
    rows and of their columns; none when the planes themselves do not match better for it."""
    sides = [
        _best_shift(before.sum(axis=a, dtype=np.int32), after.sum(axis=a, dtype=np.int32)) for a in (1, 0)
    ]
    shift = np.array(sides)
    still, moved = _apart(before, after, shift), _apart(before, np.roll(after, -shift, axis=(0, 1)), shift)
    return shift if moved < SURE * still else 0 * shift


def _best_shift(before: np.ndarray, after: np.ndarray) -> int:
    """Between two profiles int32 [n]; of equal ones the shortest."""
    shifts, overlap, counts = _trials(len(before))
    padded = np.zeros(len(before) + len(shifts) - 1, np.int32)
    padded[len(shifts) // 2 : len(shifts) // 2 + len(before)] = after
    apart = np.abs(sliding_window_view(padded, len(before)) - before)  # [2 * reach + 1, n]
    costs = np.einsum("sn,sn->s", apart, overlap) / counts
    return int(shifts[np.lexsort((np.abs(shifts), costs))[0]])


@lru_cache(maxsize=8)
def _trials(side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For a profile of `side`: shifts to try [S], where each leaves the two overlapping [S, side], how far
    [S]."""
    reach = int(REACH * side)
    overlap = sliding_window_view(np.pad(np.ones(side, np.int32), reach), side)
    return np.arange(-reach, reach + 1), np.ascontiguousarray(overlap), overlap.sum(axis=1)


def _apart(a: np.ndarray, b: np.ndarray, margin: np.ndarray) -> float:
    """Mean absolute difference of two planes within a margin [2] of rows and columns."""
    down, right = np.abs(margin)
    part = slice(down, a.shape[0] - down), slice(right, a.shape[1] - right)
    return float(np.abs(a[part] - b[part]).mean())


def _inside(shift: np.ndarray, size: tuple[int, int], blocks: tuple[int, ...]) -> np.ndarray:
    """bool [R, C]: the blocks that the shift has left inside the picture."""
    inside = []
    for axis in (0, 1):
        first = np.arange(blocks[axis]) * BLOCK + shift[axis]
        inside.append((first >= 0) & (first + BLOCK + 2 <= size[axis]))
    return inside[0][:, None] & inside[1]


def _halved(planes: np.ndarray) -> np.ndarray:
    high, wide = planes.shape[1] // 2 * 2, planes.shape[2] // 2 * 2
    rows = planes[:, :high:2, :wide].astype(np.int16) + planes[:, 1:high:2, :wide]  # [B, H/2, W]
    return rows[:, :, ::2] + rows[:, :, 1::2]  # int16 [B, H/2, W/2]


def _block_sums(planes: np.ndarray) -> np.ndarray:
    """Sums of BLOCK x BLOCK parts of int32 [B, H, W]: int32 [B, R, C]."""
    high, wide = planes.shape[1] // BLOCK, planes.shape[2] // BLOCK
    rows = planes[:, : high * BLOCK, : wide * BLOCK].reshape(len(planes), high, BLOCK, wide * BLOCK)
    sums = rows.sum(axis=2, dtype=np.int32)  # [B, R, C * BLOCK]
    for side in (4, 2, 1):  # halves: faster than short sums
        pairs = sums.reshape(len(planes), high, wide, 2, side)
        sums = pairs[:, :, :, 0] + pairs[:, :, :, 1]
    return sums[..., 0]
