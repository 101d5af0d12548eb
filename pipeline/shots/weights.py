"""The weights of the shot models: written by a fit, nothing here by hand.

`python -m infra.fit.shots WORK --media DIR --write` puts them here, `--check` compares; its files, seeds and
figures are in infra/bench/RESULTS.md.

In: nothing. Out: MODELS. Never: evidence (pipeline/shots/cuts.py and gradual.py say what each name means).
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Weights by the name of the evidence (pipeline/shots/logistic.py)."""

    cut: Mapping[str, float]
    dissolve: Mapping[str, float]
    wipe: Mapping[str, float]
    screen: Mapping[str, float]  # sorts out most spans before the costly look


MODELS = Models(
    cut={
        "constant": 3.703,
        "lasting": 3.168,
        "over_livelier": 3.778,
        "over_calmer": 1.178,
        "unshifted": 4.143,
        "stays_away": 6.283,
    },
    dissolve={
        "constant": 7.836,
        "places": -0.269,
        "palette": 2.939,
        "places_straight": -3.569,
        "palette_straight": -1.996,
        "unblended": -6.086,
        "unswitched": 4.683,
        "unshifted": 3.036,
        "stays_away": 1.339,
        "order": -6.724,
        "small": 4.172,
    },
    wipe={
        "constant": 0.915,
        "places": 1.354,
        "palette": 2.774,
        "places_straight": 3.252,
        "palette_straight": -3.353,
        "unblended": 7.028,
        "unswitched": -7.482,
        "unshifted": 2.13,
        "stays_away": 3.846,
        "order": 4.163,
        "small": 0.43,
    },
    screen={
        "constant": 2.941,
        "places": -0.456,
        "palette": 3.692,
        "places_straight": 6.585,
        "palette_straight": -4.389,
    },
)
