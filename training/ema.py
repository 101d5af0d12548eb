"""A moving average of the weights whose window is a fixed share of the run, however long it gets.

In: a model after each step. Out: its averaged twin, float32. EDM2's power-function profile (Karras et al.
2024, Eq. 121–127): no half-life to choose, none of the start is remembered.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import nn


def gamma_of(sigma_rel: float) -> float:
    """The exponent whose profile has the relative width `sigma_rel` (Eq. 126 solved for γ)."""
    roots = np.roots([1, 7, 16 - sigma_rel**-2, 12 - sigma_rel**-2])
    return float(max(roots[np.isreal(roots)].real))


class Ema:
    """`model` is the average; `update(source, step)` after step 1, 2, 3, …"""

    def __init__(self, source: nn.Module, sigma_rel: float) -> None:
        self.model = copy.deepcopy(source).eval().requires_grad_(False)
        self.gamma = gamma_of(sigma_rel)

    @torch.no_grad()
    def update(self, source: nn.Module, step: int) -> None:
        keep = (1 - 1 / step) ** (self.gamma + 1)  # Eq. 127: 0 at the first step
        for mine, theirs in zip(self.model.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, 1 - keep)
