"""The weights of the shot models, fitted: `python -m infra.fit.shots` prints them. Nothing here by hand.

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
        "constant": 2.337,
        "lasting": 3.043,
        "over_livelier": 2.638,
        "over_calmer": 1.109,
        "unshifted": 2.508,
        "stays_away": 4.119,
    },
    dissolve={
        "constant": 7.108,
        "places": -4.123,
        "palette": 5.559,
        "places_straight": 4.053,
        "palette_straight": -5.905,
        "unblended": -3.577,
        "unswitched": 3.678,
        "unshifted": 2.926,
        "stays_away": 3.0,
        "order": -2.632,
        "small": 6.522,
    },
    wipe={
        "constant": 0.757,
        "places": -2.939,
        "palette": 4.452,
        "places_straight": 2.937,
        "palette_straight": -5.118,
        "unblended": 5.058,
        "unswitched": -4.926,
        "unshifted": 1.084,
        "stays_away": 2.639,
        "order": 3.442,
        "small": 3.883,
    },
    screen={
        "constant": 2.83,
        "places": -1.83,
        "palette": 4.42,
        "places_straight": 6.63,
        "palette_straight": -5.46,
    },
)
