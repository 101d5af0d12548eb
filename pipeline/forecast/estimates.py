"""Ratio estimators over the sample, each with the range that the sample's own spread gives it. Pure.

In: counts of all sources, headers of those that were asked, what came of the analysed units. Out: arrays
float64 [1 + DRAWS]: the estimate, then the same from samples drawn again (the bootstrap). Arithmetic on such
arrays is arithmetic on estimates, and what belongs together is drawn together: the clips that decide the
kept ones decide the captioned ones.

A ratio is a sum over a sum: clips a second, kept of clips, seconds of work a million pixels. Four things are
done so that a small sample does not look surer than it is. Deviations are widened by √(n/(n - 1)) and by
Student's t over the normal quantile, and narrowed by √(1 - n/N) where a good part of all N units is in the
sample. To the units that a draw may pick a ghost is added, with an average denominator and a random share
of it (or, of a rate, some events): where the sample has no rejected clip at all, the others still may, and
a unit of thirty cuts may not be among the few that were drawn. Of rates of events half the draws are mirrored
on a log scale (what comes out at half the estimate when drawn again says that the truth may be twice it): few
units have most of the cuts, and a sample without them is too low more often than another is too high. Over
made-up footage, even and uneven, ranges from 10 to 40 of 120 units then hold the truth 90 to 92 times of a
hundred; 84 to 87 where one unit in ten has most of the cuts. And seconds are drawn with the noise of a
machine: the same work at another time takes other seconds.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.forecast.headers import Header

Array = NDArray[np.float64]
Numbers = Sequence[float] | Array
DRAWS = 1000
NONE: Array = np.zeros(1 + DRAWS)  # what a sum of estimates starts with
LOW, HIGH, NORMAL = 0.05, 0.95, 1.6449  # of the 90 % between, and the normal quantile at HIGH
FARTHEST = 3.0  # times that a draw may be off
# Standard deviation of the log of CPU seconds that one piece of work takes again: 0.05 to 0.1 on a machine of
# its own, whose clock and caches vary with the load; more where others work beside it.
NOISE = 0.08


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """An estimate and the ends of its range of 90 %."""

    value: float
    low: float
    high: float

    def as_dict(self, digits: int) -> dict[str, float]:
        """Rounded; the ends outwards, so that a rounded truth in the range stays there."""
        unit = 10.0**-digits
        low, high = math.floor(self.low / unit) * unit, math.ceil(self.high / unit) * unit
        return {"value": round(self.value, digits), "low": round(low, digits), "high": round(high, digits)}


def range_of(drawn: Array) -> Range:
    """The estimate of an array, with its quantiles."""
    low, high = np.quantile(drawn[1:], [LOW, HIGH])
    return Range(value=float(drawn[0]), low=float(min(low, drawn[0])), high=float(max(high, drawn[0])))


class Draws:
    """Samples of `n` things of `whole`, drawn again with replacement: row 0 is the sample itself."""

    def __init__(self, n: int, whole: float, rng: np.random.Generator) -> None:
        self.n, self._rng = n, rng
        self._ghosts = np.zeros(DRAWS + 1)  # how often the ghost is in each
        self._times = np.ones((DRAWS + 1, n))
        self._scale = 0.0
        if n:
            times = rng.multinomial(n, np.full(n + 1, 1 / (n + 1)), DRAWS)
            self._times[1:], self._ghosts[1:] = times[:, :n], times[:, n]
            rest = np.sqrt(max(0.0, 1 - n / max(whole, n)))
            self._scale = rest * np.sqrt(n / max(1, n - 1)) * student(max(1, n - 1)) / NORMAL

    def ratio(self, above: Numbers, below: Numbers, *, ghost: str = "", most: float = np.inf) -> Array:
        """Sum of `above` over sum of `below`; 0 where there is nothing below. A `ghost` has the mean of
        `below`, and above up to so much: "share" the mean of `below`, "double" twice that, "events" one, or
        half the most that a unit has."""
        tops, bottoms = np.asarray(above, float), np.asarray(below, float)
        if not self.n or not bottoms.sum():
            return np.zeros(DRAWS + 1)
        top, bottom = self._times @ tops, self._times @ bottoms
        if ghost:
            size = bottoms.mean()
            up_to = {"share": size, "double": 2 * size, "events": max(1.0, tops.max() / 2)}[ghost]
            luck = self._rng.random(DRAWS + 1) * up_to
            top, bottom = top + self._ghosts * luck, bottom + self._ghosts * size
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(bottom > 0, top / bottom, tops.sum() / bottoms.sum())
        spread = ratios[0] + (ratios - ratios[0]) * self._scale
        if ghost == "events" and ratios[0] > 0:
            factors = np.clip(ratios / ratios[0], 1 / FARTHEST, FARTHEST)
            mirrored = ratios[0] * factors**-self._scale
            spread[::2] = mirrored[::2]
        return np.clip(spread, 0.0, most)


def student(freedom: int) -> float:
    """The quantile at HIGH of Student's t, by Cornish and Fisher's expansion (Abramowitz and Stegun 26.7.5);
    a fifth too small at one degree of freedom."""
    z, n = NORMAL, float(freedom)
    terms = (
        z,
        (z**3 + z) / 4 / n,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96 / n**2,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384 / n**3,
    )
    return float(sum(terms))


def noise(rng: np.random.Generator) -> Array:
    """A factor for seconds: 1, then what another time may make of it."""
    return np.concatenate([[1.0], np.exp(rng.normal(0.0, NOISE, DRAWS))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Of all sources of one kind: how many can be read, their seconds and their work (Header.work)."""

    sources: Array
    seconds: Array
    work: Array


def totals(
    headers: Sequence[Header], sources: int, gigabytes: float, rng: np.random.Generator
) -> dict[str, Totals]:
    """By kind. Exact where every header was read; else numbers grow with the number of sources and what
    takes bytes, seconds and pixels, with the bytes."""
    draws = Draws(len(headers), sources, rng)
    ones, sizes = np.ones(len(headers)), np.array([h.size_bytes / 1e9 for h in headers])
    of_kind = {}
    for kind in ("video", "image"):
        is_kind = np.array([h.kind == kind for h in headers], float)
        seconds = np.array([h.length_s for h in headers]) * is_kind
        work = np.array([h.work(h.length_s) if h.kind else 0.0 for h in headers]) * is_kind
        of_kind[kind] = Totals(
            sources=draws.ratio(is_kind, ones) * sources,
            seconds=draws.ratio(seconds, sizes) * gigabytes,
            work=draws.ratio(work, sizes) * gigabytes,
        )
    return of_kind
