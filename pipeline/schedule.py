"""Learning-rate schedules: the share of the full rate at a step, as pure functions.

In: a step counted from 0, and the length of the run. Out: a share, 0…1. Every training of this project takes
one of the two. Never: a rate, an optimiser, a state.
"""

import math


def warm_hold_fall(step: int, steps: int, *, warmup_steps: int, decay_share: float) -> float:
    """Linear warm-up, flat, then linear to zero over the last `decay_share` (0…1) of the steps.

    >>> [warm_hold_fall(step, 8, warmup_steps=2, decay_share=0.5) for step in range(9)]
    [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    warm = (step + 1) / max(1, warmup_steps)
    left = (steps - step) / max(1.0, decay_share * steps)
    return max(0.0, min(1.0, warm, left))


def warm_cosine(step: int, steps: int, *, warmup_steps: int) -> float:
    """Linear warm-up under half a cosine from 1 to 0 over the whole run.

    >>> [round(warm_cosine(step, 4, warmup_steps=0), 2) for step in range(5)]
    [1.0, 0.85, 0.5, 0.15, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    return warm * 0.5 * (1.0 + math.cos(math.pi * step / steps))
