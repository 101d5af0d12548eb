"""Every case of the zoo.

In: a seed. Out: the cases, by axis. Never: a file.
"""

from pipeline.zoo import alphas, clocks, colours, containers, geometry, names, stills, streams
from pipeline.zoo.case import Case
from pipeline.zoo.pictures import seeded_corners

AXES = (containers, geometry, clocks, streams, colours, alphas, stills, names)


def all_cases(seed: int) -> list[Case]:
    """Every case, its corners in the seed's order; names are unique."""
    corners = seeded_corners(seed)
    return [case for axis in AXES for case in axis.cases(corners)]


def chosen_cases(words: str, seed: int) -> list[Case]:
    """Those whose name holds the words; all for none."""
    return [case for case in all_cases(seed) if words in case.name]
