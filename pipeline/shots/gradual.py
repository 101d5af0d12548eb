"""Dissolves and wipes: spans over which one shot turns into another, and how probable each is. Pure.

In: descriptors and the frame rate. Out: spans, evidence, probabilities. Never: fades through a plain colour
(pipeline/shots/boundaries.py finds those by the plain frames).

Spans are proposed where the change across a window is large and straight, or much larger than that in the
windows beside it. Then two logistic models, one for dissolves and one for wipes, weigh what happens inside:
a dissolve blends its two ends, a wipe switches place after place from one to the other, in order; motion,
zoom, exposure and passing objects change little, leave the palette, are explained by a shift, or return.
Fitted on 110 montages of real footage and 480 toy videos (objects that move and grow over plain walls), all
with exact transitions.
"""

from collections.abc import Iterator

import numpy as np

from pipeline.shots.cuts import probability
from pipeline.shots.descriptor import PLACES, apart, contrast, looks, unexplained_by_shift
from pipeline.shots.fades import black_or_white

HALF_S = (0.12, 0.2, 0.33, 0.5, 0.8, 1.15)  # half widths of the windows
LEAST_CHANGE, LEAST_STRAIGHT, LEAST_RATIO = 0.05, 0.35, 1.2  # of a proposed window
LEAST_CONTRAST = 6.0  # of 255: a transition from or to a black or white picture below it is a fade
SMALL_CHANGE = -1.5  # logarithm of `changes`: what changes less than 0.22 most likely moves
EDGE_S = 0.1  # a transition this close to an end of the video would leave no shot there
RETURN_S = 0.5  # what looks the same again after this long was a flash or a passing object
DISSOLVE = (
    7.108,
    -4.123,
    5.559,
    4.053,
    -5.905,
    -3.577,
    3.678,
    2.926,
    3.0,
    -2.632,
    6.522,
)  # weights of 1 and of the columns of `evidence`
WIPE = (0.757, -2.939, 4.452, 2.937, -5.118, 5.058, -4.926, 1.084, 2.639, 3.442, 3.883)

# Of 1 and of `changes`: sorts out most spans before the costly look.
SCREEN = (2.83, -1.83, 4.42, 6.63, -5.46)
LEAST_HOPE = 0.03  # keeps 99.9 % of the spans that come out probable, 32 % of all

_X, _Y = ((np.indices((8, 8))[axis].ravel() + 0.5) / 8 - 0.5 for axis in (1, 0))
ORDERS = np.stack(
    [np.ones(64), _X, _Y, np.hypot(_X, _Y), np.arctan2(_Y, _X) / 3], axis=1
)  # line, iris, clock


def transitions(frames: np.ndarray, fps: float, closed: np.ndarray) -> Iterator[tuple[int, int, str, float]]:
    """(first frame, first frame of the new shot, kind, probability) of all proposed spans, the best of
    overlapping ones first: the most probable that sees most of the change, and little else. closed: bool [N],
    frames that belong to other boundaries; no span touches them."""
    seen = looks(frames)
    spans = propose(frames, seen, fps, closed)
    changed = changes(seen, spans)
    worth = probability(changed, SCREEN) >= LEAST_HOPE
    spans = spans[worth]
    columns = evidence(frames, seen, spans, changed[worth], fps)
    kinds = np.stack([probability(columns, DISSOLVE), probability(columns, WIPE)])  # [2, K]
    best = kinds.max(axis=0)
    for k in np.argsort(-best * np.exp(columns[:, 0]) * columns[:, 2], kind="stable").tolist():
        kind = ("dissolve", "wipe")[int(kinds[:, k].argmax())]
        yield int(spans[k, 0]) + 1, int(spans[k, 1]), kind, float(best[k])


def propose(frames: np.ndarray, seen: np.ndarray, fps: float, closed: np.ndarray) -> np.ndarray:
    """int [K, 2]: the last frame before and the first after of every span worth weighing."""
    count, places = len(frames), seen[:, :PLACES]
    travelled = np.concatenate([[0.0], np.cumsum(apart(places, 1), dtype=np.float64)])
    shut = np.concatenate([[0], np.cumsum(closed)])
    inside = round(EDGE_S * fps)
    shown = (contrast(frames) >= LEAST_CONTRAST) | ~black_or_white(frames)[0]
    shown[:inside] = shown[count - inside :] = False
    found: set[tuple[int, int]] = set()
    for half in sorted({max(3, round(s * fps)) for s in HALF_S}):
        wide = 2 * half
        if wide >= count:
            break
        change = apart(places, wide)  # [N - wide]
        free = (shut[wide + 1 :] == shut[: -wide - 1]) & (change >= LEAST_CHANGE)
        straight = change / (travelled[wide:] - travelled[:-wide] + 0.02)
        beside = np.pad(apart(seen, half), (half, wide))  # [N + wide]: change of the half window before s
        ratio = apart(seen, wide) / (
            np.maximum(beside[: len(change)], beside[wide + half :][: len(change)]) + 0.04
        )
        starts = _peaks(np.where(free, straight, 0), half, LEAST_STRAIGHT)
        starts |= _peaks(np.where(free, ratio, 0), half, LEAST_RATIO)
        for a in np.flatnonzero(starts).tolist():
            found |= {(a, a + wide), extent(places, a, a + wide, reach=round(fps))}
    spans = [
        (p, q) for p, q in sorted(found) if q - p >= 3 and shown[p] and shown[q] and shut[q] == shut[p + 1]
    ]
    return np.array(spans, np.int64).reshape(-1, 2)


def extent(places: np.ndarray, a: int, b: int, reach: int) -> tuple[int, int]:
    """(last frame before, first frame after) the change seen between frames a and b: where the way from one
    picture to the other is 5 % and 95 % done, then outwards while the frames go on that way (the window may
    be too narrow)."""
    change = places[b] - places[a]
    way = change / (float(change @ change) + 1e-9)
    done = (places[a : b + 1] - places[a]) @ way  # [b - a + 1], 0 to 1
    first = a + int(np.argmax(done > 0.05))
    frame = max(first, min(b, b - int(np.argmax(done[::-1] < 0.95)) + 1))
    least = 0.35 * float(done[frame - a] - done[max(first - 1 - a, 0)]) / (frame - first + 1)
    earliest, latest = max(1, first - reach), min(len(places) - 1, frame + reach)
    while first > earliest and float((places[first - 1] - places[first - 2]) @ way) >= least:
        first -= 1
    while frame < latest and float((places[frame + 1] - places[frame]) @ way) >= least:
        frame += 1
    return max(0, first - 1), min(frame, len(places) - 1)


def changes(seen: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """[K, 4]: the change of places and of the palette (log), and how straight each goes (1: every step adds
    to the change)."""
    first, last = spans.T
    rows = np.empty((len(spans), 4), np.float32)
    for view, part in enumerate((seen[:, :PLACES], seen[:, PLACES:])):
        travelled = np.concatenate([[0.0], np.cumsum(apart(part, 1), dtype=np.float64)])
        net = np.abs(part[last] - part[first]).sum(axis=1)
        rows[:, view] = np.log(net + 0.01)
        rows[:, 2 + view] = net / (travelled[last] - travelled[first] + 0.01)
    return rows


def evidence(
    frames: np.ndarray, seen: np.ndarray, spans: np.ndarray, changed: np.ndarray, fps: float
) -> np.ndarray:
    """[K, 10]. Columns: `changes`; how far the frames between lie from a blend of the ends, and from having
    each cell like one end (log, of the change); what the best camera shift leaves (log); whether the picture
    returns soon (log, of 1.1: it does not); how well place predicts when a cell changes (to 1); by how much
    the change of places is below SMALL_CHANGE (log, to 0)."""
    rows = np.empty((len(spans), 10), np.float32)
    rows[:, :4] = changed
    for row, (p, q) in zip(rows, spans.tolist(), strict=True):
        unblended, unswitched, order = _inside(seen[p : q + 1, :PLACES])
        again = _returns(seen, p, q, max(round(RETURN_S * fps), q - p))
        row[4:6] = np.log([unblended + 0.02, unswitched + 0.02])
        row[7:9] = np.log(again + 0.1), order
    structure, _ = unexplained_by_shift(frames[spans[:, 0]], frames[spans[:, 1]])
    rows[:, 6] = np.log(structure + 0.05)
    rows[:, 9] = np.minimum(changed[:, 0] - SMALL_CHANGE, 0)
    return rows


def _inside(places: np.ndarray) -> tuple[float, float, float]:
    """(unblended, unswitched, order) of a span, ends included: [L, PLACES]."""
    start, end, inner = places[0], places[-1], places[1:-1]
    change = end - start
    total = float(np.abs(change).sum()) + 1e-3
    done = (inner - start) @ change / (float(change @ change) + 1e-9)  # [L - 2]
    unblended = np.abs(inner - start - done[:, None] * change).sum(axis=1).mean() / total
    unswitched = np.minimum(np.abs(inner - start), np.abs(inner - end)).sum(axis=1).mean() / total
    luma = change[:64]
    weight = np.abs(luma) * (np.abs(luma) > 8 / 255 / 64)
    if not weight.any():
        return float(unblended), float(unswitched), 0.0
    share = (inner[:, :64] - start[:64]) / np.where(weight > 0, luma, 1)
    when = 1 - np.clip(share, 0, 1).mean(axis=0)  # [64], 0: at the start of the span
    weight = weight / weight.sum()
    spread = float(weight @ (when - weight @ when) ** 2)
    root = np.sqrt(weight + 1e-6)
    solution, *_ = np.linalg.lstsq(ORDERS * root[:, None], when * root, rcond=None)
    order = 1 - float(weight @ (when - ORDERS @ solution) ** 2) / (spread + 0.002)
    return float(unblended), float(unswitched), order


def _returns(seen: np.ndarray, p: int, q: int, reach: int) -> float:
    """The least difference between one end and the frames beyond the other, over that of the ends."""
    whole = float(np.abs(seen[q] - seen[p]).sum()) + 0.02
    before, after = seen[max(0, p - reach) : p], seen[q + 1 : q + 1 + reach]
    back = min(
        float(np.abs(before - seen[q]).sum(axis=1).min(initial=whole)),
        float(np.abs(after - seen[p]).sum(axis=1).min(initial=whole)),
    )
    return back / whole


def _peaks(score: np.ndarray, reach: int, least: float) -> np.ndarray:
    """bool [N]: at least `least` and the largest within `reach`."""
    padded = np.pad(score, reach, constant_values=-1)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    return (score >= least) & (score >= highest)
