"""The held-out loss: fixed clips, fixed noise, nine fixed noise levels; comparable from step to step and run
to run. In: a model and a dataset. Out: the mean loss and the loss at each level. Draws nothing from chance.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from training.config import FlowConfig, TrainConfig
from training.diffusion import corrupt, draw_noise, sample_losses, time_of_quantile
from training.layout import tokens_of
from training.loader import Batch, Dataset, choose_caption, make_batch
from training.model import NoiseLevels
from training.rng import hashed_share
from training.text import TextEncoder

QUANTILES = tuple(n / 10 for n in range(1, 10))  # of the training distribution of t
MIDDLE_SHARE = 0.5  # which caption of the configured mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Mean squared velocity error over the held-out clips."""

    loss: float
    by_quantile: tuple[float, ...]
    samples: int


def held_out_batches(dataset: Dataset, text: TextEncoder, config: TrainConfig) -> list[Batch]:
    """Up to `val_samples` clips, the same ones always, a few thousand tokens a batch."""
    samples = dataset.samples
    rows = sorted(dataset.val_rows.tolist(), key=lambda row: hashed_share(samples.clip_id(row)))
    return [
        make_batch(
            dataset,
            chunk,
            [choose_caption(dataset.texts.texts(row), MIDDLE_SHARE, config) for row in chunk],
            text,
            epoch=0,
        )
        for chunk in _within_budget(rows[: config.val_samples], samples.tokens, config.tokens_per_pack)
    ]


def _within_budget(rows: list[int], tokens: np.ndarray, budget: int) -> Iterator[list[int]]:
    chunk: list[int] = []
    for row in rows:
        if chunk and tokens[[*chunk, row]].sum() > budget:
            yield chunk
            chunk = []
        chunk.append(row)
    if chunk:
        yield chunk


@torch.inference_mode()
def validate(model: nn.Module, batches: list[Batch], flow: FlowConfig, dtype: torch.dtype) -> Validation:
    """The loss of `model` at nine quantiles of t, with noise that depends on the clip alone."""
    device = next(model.parameters()).device
    samples = sum(len(batch.sample_ids) for batch in batches)
    by_quantile = []
    for quantile in QUANTILES:
        total = 0.0
        for batch in (one.to(device) for one in batches):
            layout = batch.layout
            times = torch.tensor(
                [time_of_quantile(quantile, tokens_of(s), flow) for s in layout.shapes], device=device
            )
            noise = draw_noise(batch.sample_ids, layout.shapes, "validation").to(device)
            noisy = corrupt(batch.clean, noise, times[layout.sample, None])
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                predicted = model(noisy, NoiseLevels.of(times, layout), layout, batch.texts)
            total += float(sample_losses(predicted, noise - batch.clean, layout).sum())
        by_quantile.append(total / samples)
    return Validation(loss=sum(by_quantile) / len(QUANTILES), by_quantile=tuple(by_quantile), samples=samples)
