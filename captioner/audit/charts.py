"""Inline SVG charts of the report: proportional bars, histograms, line charts.

In: numbers with names. Out: SVG with a title that says in words what it shows. Colours are classes of
the page's style, so that light and dark both work; coordinates are rounded, so equal numbers give
equal bytes. Values that are not finite are left out.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from captioner.audit.markup import Html, count, el, number
from captioner.audit.text import quantile

_WIDTH, _HEIGHT = 260, 150  # view box; drawn 235 to 370 px wide, so 11 px text stays legible
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 8, 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Named numbers; `style` is the class that colours them: kept, rejected, failed or pending. A value
    that is not finite was not measured."""

    name: str
    style: str
    values: Sequence[float] | np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Where values stand on an axis, and what stands at the ticks (None: even, round values)."""

    place: Callable[[Any], Any] = np.asarray
    ticks: Sequence[tuple[float, str]] | None = None


ASPECT = Scale(
    place=lambda aspect: np.log2(np.maximum(aspect, 1e-6)),
    ticks=((9 / 21, "9:21"), (9 / 16, "9:16"), (1, "1:1"), (16 / 9, "16:9"), (21 / 9, "21:9"), (4, "4:1")),
)


def proportional_bar(segments: Sequence[tuple[str, float]], whole: float) -> Html:
    """One bar of stacked (style, value) segments; `whole` is its full width. Text stands beside it."""
    drawn, x = [], 0.0
    for style, value in segments:
        width = 1000 * value / whole if whole else 0.0
        if width:
            drawn.append(el("rect", x=round(x, 2), y=0, width=round(width, 2), height=10, class_=style))
        x += width
    return el("svg", drawn, viewBox="0 0 1000 10", preserveAspectRatio="none", aria_hidden="true")


def histogram(
    title: str, unit: str, series: Sequence[Series], *, scale: Scale | None = None, bins: int = 24
) -> Html:
    """Stacked counts by value. The outer bins also hold the outer 1 % on either side; the note says so."""
    scale = scale or Scale()
    values = [_finite(s.values) for s in series]
    groups = [scale.place(v) for v in values]
    merged = np.sort(np.concatenate(groups))
    if not len(merged):
        return _figure(title, unit, "nothing measured", ())
    low, high = quantile(merged, 0.01), quantile(merged, 0.99)
    clipped = bool(merged[0] < low - 1e-12 or merged[-1] > high + 1e-12)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    if (merged == np.trunc(merged)).all():  # counts: every bin is as many whole numbers wide
        low, span = math.floor(low) - 0.5, math.ceil(high) - math.floor(low) + 1
        width = math.ceil(span / bins)
        bins = math.ceil(span / width)
        high = low + bins * width
    counts = [_bin(group, low, high, bins) for group in groups]
    tallest = max(sum(column) for column in zip(*counts, strict=True))
    step = (_WIDTH - _LEFT - _RIGHT) / bins
    drawn: list[Html] = []
    for i, column in enumerate(zip(*counts, strict=True)):
        base = float(_HEIGHT - _BOTTOM)
        for s, value in zip(series, column, strict=True):
            height = (_HEIGHT - _BOTTOM - _TOP) * value / tallest
            base -= height
            if value:
                x = round(_LEFT + i * step + 0.5, 1)
                box = {"x": x, "y": round(base, 1), "width": round(step - 1, 1), "height": round(height, 1)}
                drawn.append(el("rect", class_=s.style, **box))
    ticks = [(float(scale.place(v)), text) for v, text in scale.ticks or _ticks(low, high, 4)]
    drawn += _axes(ticks, low, high, [(0.0, "0"), (float(tallest), count(tallest))], 0.0, float(tallest))
    measured = [(s.name, np.sort(v)) for s, v in zip(series, values, strict=True) if len(s.values)]
    summaries = [f"{name}: {_summary(v)}" if len(series) > 1 else _summary(v) for name, v in measured]
    note = "; ".join(summaries) + (". The outer bars hold the outer 1\u00a0%." if clipped else ".")
    return _figure(title, unit, note, drawn)


def line_chart(
    title: str,
    x_name: str,
    y_name: str,
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]],
    *,
    note: str = "",
    marks: Sequence[float] = (),
) -> Html:
    """Curves of (style, points): a line each, a dot where there are few points; `marks` are upright lines."""
    curves = [(style, [p for p in points if all(map(math.isfinite, p))]) for style, points in lines]
    xs = [x for _, points in curves for x, _ in points]
    ys = sorted(y for _, points in curves for _, y in points)
    if not ys:
        return _figure(title, "", "no figures", ())
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = quantile(ys, 0.005), quantile(ys, 0.995)  # a spike must not flatten the curve
    margin = max((high_y - low_y) * 0.05, abs(high_y) * 1e-3, 1e-9)
    low_y, high_y = low_y - margin, high_y + margin

    def at(x: float, y: float) -> tuple[float, float]:
        y = min(max(y, low_y), high_y)
        return _across(x, low_x, high_x), _up(y, low_y, high_y)

    drawn = _axes(_ticks(low_x, high_x, 4), low_x, high_x, _ticks(low_y, high_y, 4), low_y, high_y)
    for mark in marks:
        x = _across(mark, low_x, high_x)
        drawn.append(el("line", x1=x, x2=x, y1=_TOP, y2=_HEIGHT - _BOTTOM, class_="mark"))
    for style, points in curves:
        placed = [at(x, y) for x, y in points]
        d = "M" + "L".join(f"{x:g} {y:g}" for x, y in placed)
        drawn.append(el("path", d=d, class_=f"curve {style}".strip()))
        if len(placed) <= 40:
            drawn += [el("circle", cx=x, cy=y, r=2, class_="dot") for x, y in placed]
    drawn.append(el("text", x_name, x=_WIDTH - _RIGHT, y=_HEIGHT - 4, text_anchor="end"))
    return _figure(title, y_name, note, drawn)


def thin(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """At most `most` points, each the mean of its neighbours: what a curve of this width can show."""
    size = math.ceil(len(points) / most) if points else 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def smooth(points: Sequence[tuple[float, float]], share: float = 0.05) -> list[tuple[float, float]]:
    """The centred running mean over `share` of the points."""
    half = max(int(len(points) * share / 2), 1)
    totals = [0.0]
    for _, y in points:
        totals.append(totals[-1] + y)
    out = []
    for i, (x, _) in enumerate(points):
        reach = min(half, i, len(points) - 1 - i)  # symmetric, so the ends do not lag
        out.append((x, (totals[i + reach + 1] - totals[i - reach]) / (2 * reach + 1)))
    return out


def _figure(title: str, unit: str, note: str, drawn: Sequence[Html]) -> Html:
    name = f"{title}, {unit}" if unit else title
    head = el("b", title)
    text = el("figcaption", head, f" · {unit}" if unit else "", el("br"), note)
    label = f"{name}: {note}" if note else name
    svg = el("svg", drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=label)
    return el("figure", svg, text) if drawn else el("figure", text)


def _axes(
    x_ticks: Sequence[tuple[float, str]],
    low_x: float,
    high_x: float,
    y_ticks: Sequence[tuple[float, str]],
    low_y: float,
    high_y: float,
) -> list[Html]:
    floor = _HEIGHT - _BOTTOM
    drawn = []
    for value, text in y_ticks:
        if low_y <= value <= high_y:
            y = _up(value, low_y, high_y)
            drawn.append(el("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="axis"))
            drawn.append(el("text", text, x=_LEFT - 5, y=round(y + 4, 1), text_anchor="end"))
    free = -math.inf
    for value, text in x_ticks:
        x = _across(value, low_x, high_x)
        half = 3.2 * len(text)  # half the width of 11 px digits
        if low_x <= value <= high_x and x - half > free:
            free = x + half + 4
            drawn.append(el("line", x1=x, x2=x, y1=floor, y2=floor + 4, class_="axis"))
            inside = min(max(x, half), _WIDTH - half)
            drawn.append(el("text", text, x=round(inside, 1), y=floor + 15, text_anchor="middle"))
    return drawn


def _across(value: float, low: float, high: float) -> float:
    return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - low) / (high - low), 1)


def _up(value: float, low: float, high: float) -> float:
    return round(_HEIGHT - _BOTTOM - (_HEIGHT - _BOTTOM - _TOP) * (value - low) / (high - low), 1)


def _finite(values: Sequence[float] | np.ndarray) -> np.ndarray:
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def _bin(values: np.ndarray, low: float, high: float, bins: int) -> list[int]:
    places = ((values - low) / (high - low) * bins).clip(0, bins - 1).astype(np.int64)
    return [int(n) for n in np.bincount(places, minlength=bins)]


def _ticks(low: float, high: float, wanted: int) -> list[tuple[float, str]]:
    """Round values inside the range: (0, 10, 4) -> 0, 2, 4, 6, 8, 10."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    form = f",.{digits}f" if digits <= 4 else ".0e"
    values = [(i * step, f"{i * step:{form}}".replace("-", "−")) for i in range(first, last + 1)]
    return values if all(a != b for (_, a), (_, b) in pairwise(values)) else values[:1]


def _summary(ordered: np.ndarray) -> str:
    """Median and the middle 90 % of sorted values."""
    if not len(ordered):
        return "not measured"
    low, middle, high = (number(quantile(ordered, share)) for share in (0.05, 0.5, 0.95))
    return f"median {middle}, 90\u00a0% within {low} to {high}"
