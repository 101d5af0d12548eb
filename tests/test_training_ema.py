"""The moving average: its profile is a power of time, as wide as asked, whatever the length of the run."""

import pytest
import torch
from torch import nn

from training.ema import Ema, gamma_of


@pytest.mark.parametrize(("sigma_rel", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_the_exponent_is_the_published_one(sigma_rel: float, gamma: float) -> None:
    assert gamma_of(sigma_rel) == pytest.approx(gamma, abs=0.01)


@pytest.mark.parametrize("steps", [200, 1000])
def test_the_window_is_a_fixed_share_of_the_run(steps: int) -> None:
    source = nn.Linear(1, 1, bias=False).double()
    ema = Ema(source, sigma_rel=0.10)
    for step in range(1, steps + 1):
        nn.init.constant_(source.weight, step)
        ema.update(source, step)
    centre = (ema.gamma + 1) / (ema.gamma + 2)  # mean of t under the density t^gamma on 0..1
    assert float(ema.model.weight) / steps == pytest.approx(centre, abs=0.01)


def test_the_first_update_forgets_the_start() -> None:
    source = nn.Linear(2, 2)
    ema = Ema(source, sigma_rel=0.10)
    nn.init.constant_(source.weight, 3.0)
    ema.update(source, 1)
    assert torch.equal(ema.model.weight, source.weight)
    assert not ema.model.weight.requires_grad
