"""Which frames a pass keeps pictures of. Pure: times and descriptors in, frame numbers out.

In: times and descriptors of consecutive frames, a batch at a time. Out: the numbers of the
*candidates*, and which of them to look at closely. Never: pixels.

Which frames a filmstrip needs is known only when the shots are. Candidates are the frames on both sides of
a jump, then frames at ever wider spacing, because a shot that has lasted t seconds needs frames about t / 7
apart: 0.1 s at first, 0.8 s after three seconds. A slow change that comes to rest counts as a jump; during
one, frames are at most 0.4 s apart. A shot of a second has two close-ups or more. What makes a frame a
candidate lies at most LOOK_BACK_S before it: a pass that begins that much earlier than a frame decides as
one from the start does, however the frames fall into batches.
"""

from collections.abc import Collection, Sequence

import numpy as np

from pipeline.shots.descriptor import DIMENSIONS, contrast, difference

JUMP = 0.15  # difference (descriptor.py) of frames that may belong to two shots
SLOW_S, UNSETTLED_S = 0.5, 0.6  # a slow change is one over 0.5 s; a jump has left that span after 0.6 s
SPACINGS = ((0.4, 0.1), (1.6, 0.2), (3.2, 0.4))  # until so long after a jump, so far apart
CHANGING_S, WIDE_S = 0.4, 0.8  # and after that, while the picture changes and while it does not
CLOSE_S, CLOSE_WIDE_S = 0.8, 1.6  # spacing of close-ups, first and then
LOOK_BACK_S = SPACINGS[-1][0] + UNSETTLED_S + SLOW_S
PLAIN = 4.0  # contrast (of 255) of a picture without structure
STRUCTURE = 0.25  # what `difference` gives for structure that does not correlate at all
EPSILON_S = 1e-3  # of time stamps


class Chooser:
    """Decides frame after frame. `opens`: the first frame is the first of the video."""

    def __init__(self, *, opens: bool = True) -> None:
        self._count = 0  # frames of earlier batches
        self._times_s = np.zeros(0)  # of the recent frames, a little more than SLOW_S of them
        self._grids = np.zeros((0, DIMENSIONS), np.uint8)
        self._slow = 0.0  # how far the last frame is from the one SLOW_S before it
        self._jump_s = self._anchor_s = -np.inf  # the last jump; the last jump or end of a slow change
        self._opens = opens

    def choose(self, times_s: Sequence[float], grids: np.ndarray, gaps: Collection[int]) -> dict[int, bool]:
        """Number of a frame (0: the pass's first) → whether to look closely, of the next frames. The frame
        before them may be chosen too, even again. Before the frames `gaps` others are missing, so that the
        picture jumps. grids: descriptors, uint8 [B, DIMENSIONS]."""
        old = len(self._times_s)
        times, grids = np.concatenate([self._times_s, times_s]), np.concatenate([self._grids, grids])
        new = np.arange(old, len(times))
        last = np.maximum(new - 1, 0)
        steps = _change(grids[new], grids[last])  # [B]
        back = np.minimum(np.searchsorted(times, times[new] - SLOW_S - EPSILON_S), last)
        slow = _change(grids[new], grids[back])  # [B]
        chosen: dict[int, bool] = {}
        for k, (time_s, step, change) in enumerate(zip(times_s, steps.tolist(), slow.tolist(), strict=True)):
            frame = self._count + k
            before_s = float(times[old + k - 1]) if old + k else -np.inf
            if old + k == 0 and self._opens:
                self._jump_s = self._anchor_s = time_s
                chosen[frame] = True
            elif step >= JUMP or frame in gaps:
                self._jump_s = self._anchor_s = time_s
                chosen.setdefault(frame - 1, False)
                chosen[frame] = True
            elif self._slow >= JUMP > change and time_s - self._jump_s >= UNSETTLED_S:
                self._anchor_s = time_s
                chosen[frame] = True
            else:
                since_s = time_s - self._anchor_s + EPSILON_S
                near = [spacing_s for until_s, spacing_s in SPACINGS if since_s < until_s]
                origin_s = self._anchor_s if near else 0.0
                spacing_s = min([*near, CHANGING_S if change >= JUMP else WIDE_S])
                close_s = CLOSE_S if since_s < CLOSE_WIDE_S else CLOSE_WIDE_S
                if _passes(before_s, time_s, origin_s, spacing_s):
                    chosen[frame] = _passes(before_s, time_s, origin_s, close_s)
            self._slow = change
        self._count += len(times_s)
        recent = int(np.searchsorted(times, times[-1] - 2 * SLOW_S))
        self._times_s, self._grids = times[recent:], grids[recent:]
        return chosen


def _change(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The difference of pairs [B], less the structure that plain pictures (fades, black) seem to change."""
    change = difference(a, b)
    if change.max(initial=0.0) >= JUMP:
        change -= STRUCTURE * ((contrast(a) < PLAIN) & (contrast(b) < PLAIN))
    return change


def _passes(before_s: float, time_s: float, origin_s: float, spacing_s: float) -> bool:
    """Whether a multiple of the spacing, counted from the origin, lies after one time and not after the
    other."""
    return (time_s - origin_s + EPSILON_S) // spacing_s > (before_s - origin_s + EPSILON_S) // spacing_s
