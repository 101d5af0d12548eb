"""Rectified flow matching: how a latent is corrupted, what the model must answer, how a sample is integrated.

In: clean tokens of a pack and its sample ids. Out: noisy tokens, targets and losses; or, from noise, clean
tokens. x_t = (1 − t)·x₀ + t·ε and v = ε − x₀ (Liu et al. 2023, Eq. 1; Esser et al. 2024, Eq. 13): t = 0 is
clean, t = 1 is noise. Every draw is keyed by (seed, epoch, sample id, purpose). Knows no model and no VAE.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from training.config import FlowConfig
from training.layout import PATCH, Layout, Shape, patchify
from training.rng import keyed, keyed_normal

Velocity = Callable[[Tensor, float], Tensor]  # (x [N, P], t) → dx/dt [N, P]


def shifted(t: float, tokens: int, flow: FlowConfig) -> float:
    """Moves t towards noise for samples of many tokens: redundancy hides noise (Esser et al., Eq. 23)."""
    by = flow.shift * math.sqrt(tokens / flow.shift_tokens)
    return by * t / (1 + (by - 1) * t)


def time_of_quantile(quantile: float, tokens: int, flow: FlowConfig) -> float:
    """The training distribution of t (logit-normal, then shifted) as its inverse CDF."""
    normal = NormalDist(flow.logit_mean, flow.logit_std).inv_cdf(min(max(quantile, 1e-6), 1 - 1e-6))
    return shifted(1 / (1 + math.exp(-normal)), tokens, flow)


def draw_times(
    sample_ids: Sequence[str], tokens: Sequence[int], seed: int, epoch: int, flow: FlowConfig
) -> Tensor:
    """One t a sample: float32 [S]."""
    pairs = zip(sample_ids, tokens, strict=True)
    times = [
        time_of_quantile(float(keyed(seed, epoch, name, "time").random()), count, flow)
        for name, count in pairs
    ]
    return torch.tensor(times, dtype=torch.float32)


def draw_noise(sample_ids: Sequence[str], shapes: Sequence[Shape], *key: int | str) -> Tensor:
    """Packed noise [N, P]; each sample's depends only on its id, its shape and the key."""
    pairs = zip(sample_ids, shapes, strict=True)
    return torch.cat([patchify(keyed_normal(shape, *key, name, "noise")) for name, shape in pairs])


def corrupt(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """x_t [N, P] for times [N, 1]."""
    return torch.lerp(clean, noise, times)


def channel_weights(std: Sequence[float], power: float) -> Tensor:
    """The weight of each entry of a token [P] in the loss: std^power of its channel, 1 on average."""
    weights = torch.tensor(std, dtype=torch.float32) ** power  # [C]
    return (weights / weights.mean()).repeat_interleave(PATCH * PATCH)


def sample_losses(
    predicted: Tensor,
    target: Tensor,
    layout: Layout,
    given: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean squared error of each sample, float32 [S], over its own valid cells that are not given."""
    counted = layout.valid if given is None else layout.valid & ~given[:, None]
    squared = (predicted - target).square() * counted  # [N, P]
    squared = squared.sum(1) if weights is None else squared @ weights  # [N]
    sums = torch.zeros(len(layout.shapes), device=squared.device).index_add(0, layout.sample, squared)
    cells = torch.zeros_like(sums).index_add(0, layout.sample, counted.sum(1, dtype=torch.float32))
    return sums / cells.clamp(min=1)


def time_grid(steps: int, tokens: int, flow: FlowConfig) -> list[float]:
    """Times from 1 to 0 for a sampler of `steps` steps, shifted as in training."""
    return [shifted(1 - step / steps, tokens, flow) for step in range(steps + 1)]


def euler(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """One evaluation a step."""
    for t, after in itertools.pairwise(times):
        x = x + (after - t) * velocity(x, t)
    return x


def heun(velocity: Velocity, x: Tensor, times: Sequence[float]) -> Tensor:
    """Two evaluations a step (Karras et al. 2022, Alg. 1, on the flow), one on the last."""
    for t, after in itertools.pairwise(times):
        slope = velocity(x, t)
        guess = x + (after - t) * slope
        x = guess if after == 0 else x + (after - t) * (slope + velocity(guess, after)) / 2
    return x
