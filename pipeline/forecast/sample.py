"""Which parts of which sources are analysed to speak for the rest.

In: headers, a budget in seconds of footage, a seed. Out: units: a still, a video of at most SPAN_S, or a
piece of that length of a longer one (where it can be sought: pipeline/onepass/pieces.py). Pure.

Every unit has the same chance. Of whole sources drawn at random, those longer than the budget could never be
drawn, and those that fit would be the shorter ones, whose cuts, copies and rejected clips are not those of
the long ones; drawn by size, a few long ones would use the budget up. Pieces make units alike, so equal
chances serve every line of the plan, and ratio estimators (pipeline/forecast/estimates.py) put back what
lengths still differ by. The draw is systematic, every k-th unit in the order of their uris from a random
one on: folders are mostly of one origin, and each then sends its share.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.forecast.headers import Header

T = TypeVar("T")

SPAN_S = 15.0  # of a piece; what decoding before it costs (LOOK_BACK_S) would weigh more on shorter ones
LAST_LONGER = 0.1  # of a piece: as pipeline/onepass/pieces.py counts them
STILLS = 48  # at most
FEWEST = 3  # units of video, however large they are for the budget: fewer have no spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Piece `piece` of `pieces` of a source; a still or a short video is one piece."""

    header: Header
    piece: int = 0
    pieces: int = 1

    @property
    def seconds(self) -> float:
        """Of its footage; 0 of a still."""
        if self.pieces == 1:
            return self.header.length_s
        return SPAN_S if self.piece < self.pieces - 1 else self.header.length_s - SPAN_S * self.piece

    @property
    def key(self) -> str:
        """Names the unit among those of all sources."""
        return f"{self.header.source_key}-{self.piece}"


def units_of(header: Header, *, cut: bool) -> list[Unit]:
    """The units of one source, in order."""
    pieces = math.ceil(header.length_s / SPAN_S - LAST_LONGER) if cut and header.may_be_cut else 1
    return [Unit(header=header, piece=k, pieces=max(1, pieces)) for k in range(max(1, pieces))]


def drawn(headers: Sequence[Header], budget_s: float, seed: int, *, cut: bool) -> list[Unit]:
    """The units to analyse: stills, and videos of `budget_s` seconds in all, on average over seeds: to leave
    out a draw that comes out longer would favour the short ones. `cut`: whether the analysis can be run on
    pieces."""
    ordered = sorted(headers, key=lambda header: header.uri)
    videos = [u for h in ordered if h.kind == "video" for u in units_of(h, cut=cut)]
    stills = [u for h in ordered if h.kind == "image" for u in units_of(h, cut=False)]
    start = random.Random(seed).random()
    fitting = [unit for unit in videos if unit.seconds <= max(budget_s, SPAN_S * (1 + LAST_LONGER))]
    mean_s = sum(unit.seconds for unit in fitting) / max(1, len(fitting))
    number = int(budget_s / mean_s) if mean_s else len(fitting)
    return [*every_kth(fitting, max(number, FEWEST), start), *every_kth(stills, STILLS, start)]


def every_kth(items: Sequence[T], number: int, start: float) -> list[T]:
    """`number` of the items at equal distances, from the place `start` (0 to 1) of the first of them on."""
    number = min(number, len(items))
    return [items[int((n + start) * len(items) / number)] for n in range(number)]
