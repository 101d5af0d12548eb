"""Dissolves and wipes: spans over which one shot turns into another, and how probable each is. Pure.

In: descriptors and the frame rate. Out: spans, evidence, probabilities. Never: fades through a plain colour
(pipeline/shots/boundaries.py finds those by the plain frames).

Spans are proposed where the change across a window is large and straight, or much larger than that in the
windows beside it. Then two logistic models, one for dissolves and one for wipes, weigh what happens inside:
a dissolve blends its two ends, a wipe switches place after place from one to the other, in order; motion,
zoom, exposure and passing objects change little, leave the palette, are explained by a shift, or return
(the weights: pipeline/shots/weights.py).
"""

from collections.abc import Iterator

import numpy as np

from pipeline.shots.descriptor import (
    LEVELS,
    PLACES,
    PLACES_LUMA,
    PLACES_SIDE,
    apart,
    contrast,
    looks,
    unexplained_by_shift,
)
from pipeline.shots.fades import black_or_white
from pipeline.shots.logistic import fields, probability
from pipeline.shots.weights import Models

HALF_S = (0.12, 0.2, 0.33, 0.5, 0.8, 1.15)  # half widths of the windows
LEAST_CHANGE, LEAST_STRAIGHT, LEAST_RATIO = 0.05, 0.35, 1.2  # of a proposed window
LEAST_CONTRAST = 6.0  # of 255: a transition from or to a black or white picture below it is a fade
SMALL_CHANGE = -1.5  # logarithm of `changes`: what changes less than 0.22 most likely moves
EDGE_S = 0.1  # a transition this close to an end of the video would leave no shot there
RETURN_S = 0.5  # what looks the same again after this long was a flash or a passing object
VISIBLE_LEVELS = 8.0  # a cell that changes by less does not tell when it switches

CHANGES = fields(
    "places",  # the change of places (log) …
    "palette",  # … and of the palette (log)
    "places_straight",  # how straight each goes (1: every step adds to the change)
    "palette_straight",
)
EVIDENCE = fields(
    *(CHANGES.names or ()),
    "unblended",  # how far the frames between lie from a blend of the ends (log, of the change) …
    "unswitched",  # … and from having each cell like one end
    "unshifted",  # what the best camera shift leaves (log)
    "stays_away",  # the picture does not return soon (log, of 1.1: it does not)
    "order",  # how well place predicts when a cell changes (to 1)
    "small",  # by how much the change of places is below SMALL_CHANGE (log, to 0)
)
LEAST_HOPE = 0.03  # keeps 99.9 % of the spans that come out probable, 37 % of all (22,460 of the fit)

_X, _Y = ((np.indices((PLACES_SIDE,) * 2)[axis].ravel() + 0.5) / PLACES_SIDE - 0.5 for axis in (1, 0))
ORDERS = np.stack(
    [np.ones(PLACES_LUMA), _X, _Y, np.hypot(_X, _Y), np.arctan2(_Y, _X) / 3], axis=1
)  # line, iris, clock


def transitions(
    frames: np.ndarray, fps: float, closed: np.ndarray, models: Models
) -> Iterator[tuple[int, int, str, float]]:
    """(first frame, first frame of the new shot, kind, probability) of all proposed spans, the best of
    overlapping ones first: the most probable that sees most of the change, and little else. closed: bool [N],
    frames that belong to other boundaries; no span touches them."""
    views = looks(frames)
    spans = propose(frames, views, fps, closed)
    changed = changes(views, spans)
    worth = probability(changed, models.screen) >= LEAST_HOPE
    spans = spans[worth]
    rows = evidence(frames, views, spans, changed[worth], fps)
    kinds = np.stack([probability(rows, models.dissolve), probability(rows, models.wipe)])  # [2, K]
    best = kinds.max(axis=0)
    rank = best * np.exp(rows["places"]) * rows["places_straight"]
    for k in np.argsort(-rank, kind="stable").tolist():
        kind = ("dissolve", "wipe")[int(kinds[:, k].argmax())]
        yield int(spans[k, 0]) + 1, int(spans[k, 1]), kind, float(best[k])


def propose(frames: np.ndarray, views: np.ndarray, fps: float, closed: np.ndarray) -> np.ndarray:
    """int [K, 2]: the last frame before and the first after of every span worth weighing. views: their
    `looks`; closed: as of `transitions`."""
    count, places = len(frames), views[:, :PLACES]
    travelled = np.concatenate([[0.0], np.cumsum(apart(places, 1), dtype=np.float64)])
    shut = np.concatenate([[0], np.cumsum(closed)])
    inside = round(EDGE_S * fps)
    pictured = (contrast(frames) >= LEAST_CONTRAST) | ~black_or_white(frames)[0]
    pictured[:inside] = pictured[count - inside :] = False
    proposed: set[tuple[int, int]] = set()
    for half in sorted({max(3, round(s * fps)) for s in HALF_S}):
        wide = 2 * half
        if wide >= count:
            break
        change = apart(places, wide)  # [N - wide]
        free = (shut[wide + 1 :] == shut[: -wide - 1]) & (change >= LEAST_CHANGE)
        straight = change / (travelled[wide:] - travelled[:-wide] + 0.02)
        beside = np.pad(apart(views, half), (half, wide))  # [N + wide]: change of the half window before s
        ratio = apart(views, wide) / (
            np.maximum(beside[: len(change)], beside[wide + half :][: len(change)]) + 0.04
        )
        starts = _peaks(np.where(free, straight, 0), half, LEAST_STRAIGHT)
        starts |= _peaks(np.where(free, ratio, 0), half, LEAST_RATIO)
        for a in np.flatnonzero(starts).tolist():
            proposed |= {(a, a + wide), extent(places, a, a + wide, reach=round(fps))}
    spans = [
        (p, q)
        for p, q in sorted(proposed)
        if q - p >= 3 and pictured[p] and pictured[q] and shut[q] == shut[p + 1]
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


def changes(views: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """What the ends of each span and the way between them tell: CHANGES [K]."""
    first, last = spans.T
    rows = np.empty(len(spans), CHANGES)
    for name, part in (("places", views[:, :PLACES]), ("palette", views[:, PLACES:])):
        travelled = np.concatenate([[0.0], np.cumsum(apart(part, 1), dtype=np.float64)])
        net = np.abs(part[last] - part[first]).sum(axis=1)
        rows[name] = np.log(net + 0.01)
        rows[f"{name}_straight"] = net / (travelled[last] - travelled[first] + 0.01)
    return rows


def evidence(
    frames: np.ndarray, views: np.ndarray, spans: np.ndarray, changed: np.ndarray, fps: float
) -> np.ndarray:
    """What speaks for a transition over each span: EVIDENCE [K]. changed: their `changes`."""
    rows = np.empty(len(spans), EVIDENCE)
    for name in CHANGES.names or ():
        rows[name] = changed[name]
    for row, (p, q) in zip(rows, spans.tolist(), strict=True):
        unblended, unswitched, order = _inside(views[p : q + 1, :PLACES])
        again = _returns(views, p, q, max(round(RETURN_S * fps), q - p))
        row["unblended"], row["unswitched"] = np.log([unblended + 0.02, unswitched + 0.02])
        row["stays_away"], row["order"] = np.log(again + 0.1), order
    structure, _ = unexplained_by_shift(frames[spans[:, 0]], frames[spans[:, 1]])
    rows["unshifted"] = np.log(structure + np.float32(0.05))
    rows["small"] = np.minimum(changed["places"] - np.float32(SMALL_CHANGE), 0)
    return rows


def _inside(places: np.ndarray) -> tuple[float, float, float]:
    """(unblended, unswitched, order) of a span, ends included: [L, PLACES]."""
    start, end, inner = places[0], places[-1], places[1:-1]
    change = end - start
    total = float(np.abs(change).sum()) + 1e-3
    done = (inner - start) @ change / (float(change @ change) + 1e-9)  # [L - 2]
    unblended = np.abs(inner - start - done[:, None] * change).sum(axis=1).mean() / total
    unswitched = np.minimum(np.abs(inner - start), np.abs(inner - end)).sum(axis=1).mean() / total
    luma = change[:PLACES_LUMA]
    weight = np.abs(luma) * (np.abs(luma) > VISIBLE_LEVELS / LEVELS / PLACES_LUMA)
    if not weight.any():
        return float(unblended), float(unswitched), 0.0
    share = (inner[:, :PLACES_LUMA] - start[:PLACES_LUMA]) / np.where(weight > 0, luma, 1)
    when = 1 - np.clip(share, 0, 1).mean(axis=0)  # [PLACES_LUMA], 0: at the start of the span
    weight = weight / weight.sum()
    spread = float(weight @ (when - weight @ when) ** 2)
    root = np.sqrt(weight + 1e-6)
    solution, *_ = np.linalg.lstsq(ORDERS * root[:, None], when * root, rcond=None)
    order = 1 - float(weight @ (when - ORDERS @ solution) ** 2) / (spread + 0.002)
    return float(unblended), float(unswitched), order


def _returns(views: np.ndarray, p: int, q: int, reach: int) -> float:
    """The least difference between one end and the frames beyond the other, over that of the ends."""
    whole = float(np.abs(views[q] - views[p]).sum()) + 0.02
    before, after = views[max(0, p - reach) : p], views[q + 1 : q + 1 + reach]
    back = min(
        float(np.abs(before - views[q]).sum(axis=1).min(initial=whole)),
        float(np.abs(after - views[p]).sum(axis=1).min(initial=whole)),
    )
    return back / whole


def _peaks(score: np.ndarray, reach: int, least: float) -> np.ndarray:
    """bool [N]: at least `least` and the largest within `reach`."""
    padded = np.pad(score, reach, constant_values=-1)
    highest = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1).max(axis=1)
    return (score >= least) & (score >= highest)
