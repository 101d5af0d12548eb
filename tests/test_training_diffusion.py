"""The flow: its ends, its draws and its samplers on velocities whose answer is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.config import FlowConfig
from training.diffusion import (
    channel_weights,
    corrupt,
    draw_noise,
    draw_times,
    euler,
    heun,
    sample_losses,
    shifted,
    time_grid,
    time_of_quantile,
)
from training.layout import layout_of, tokens_of

FLOW = FlowConfig(logit_mean=0, shift=1)


def test_corruption_runs_from_clean_to_noise() -> None:
    clean, noise = torch.randn(6, 4), torch.randn(6, 4)
    assert torch.equal(corrupt(clean, noise, torch.zeros(6, 1)), clean)
    torch.testing.assert_close(corrupt(clean, noise, torch.ones(6, 1)), noise)


def test_times_follow_the_quantiles_and_the_shift() -> None:
    assert time_of_quantile(0.5, FLOW.shift_tokens, FLOW) == pytest.approx(0.5)
    assert time_of_quantile(0.5, 4 * FLOW.shift_tokens, FLOW) == pytest.approx(2 / 3)
    assert shifted(0, 999, FLOW) == 0
    assert shifted(1, 999, FLOW) == 1
    ids = [str(n) for n in range(4000)]
    times = draw_times(ids, [FLOW.shift_tokens] * len(ids), seed=0, epoch=0, flow=FLOW)
    for quantile in (0.1, 0.5, 0.9):
        drawn = float((times < time_of_quantile(quantile, FLOW.shift_tokens, FLOW)).float().mean())
        assert drawn == pytest.approx(quantile, abs=0.03)


def test_draws_belong_to_the_sample_not_to_its_place() -> None:
    shapes = [(4, 1, 4, 4), (4, 2, 2, 2)]
    forward = draw_noise(["a", "b"], shapes, 0, 0)
    backward = draw_noise(["b", "a"], shapes[::-1], 0, 0)
    torch.testing.assert_close(forward[: tokens_of(shapes[0])], backward[tokens_of(shapes[1]) :])
    assert not torch.equal(forward, draw_noise(["a", "b"], shapes, 0, 1))
    twins = draw_noise(["a", "b"], [shapes[0]] * 2, 0, 0)
    assert not torch.equal(*twins.chunk(2))
    times = draw_times(["a", "b"], [4, 2], 0, 0, FLOW)
    assert torch.equal(times.flip(0), draw_times(["b", "a"], [2, 4], 0, 0, FLOW))


def test_each_sample_weighs_the_same_and_invalid_or_given_cells_nothing() -> None:
    layout = layout_of([(4, 3, 4, 4), (4, 1, 3, 3)], [0.5, 0.5])
    target = torch.zeros(layout.segments.total, 16)
    predicted = torch.where(layout.sample[:, None] == 0, torch.tensor(2.0), torch.tensor(3.0)).expand_as(
        target
    )
    assert sample_losses(predicted, target, layout).tolist() == [4.0, 9.0]
    weights = channel_weights([1.0, 4.0, 9.0, 16.0], power=0.5)
    assert weights.tolist() == pytest.approx([0.4] * 4 + [0.8] * 4 + [1.2] * 4 + [1.6] * 4)
    assert sample_losses(predicted, target, layout, weights=weights)[0] == pytest.approx(4.0)
    given = layout.seconds == 0
    spoilt = torch.where(given[:, None], predicted + 100, predicted)
    assert sample_losses(spoilt, target, layout, given).tolist() == [4.0, 0.0]
    outside = torch.where(layout.valid, predicted, predicted + 100)
    assert sample_losses(outside, target, layout).tolist() == [4.0, 9.0]


def test_the_time_grid_runs_from_noise_to_clean() -> None:
    times = time_grid(7, 500, FLOW)
    assert (times[0], times[-1], len(times)) == (1, 0, 8)
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("sampler", [euler, heun])
def test_samplers_are_exact_on_a_straight_flow(sampler: Callable[..., Tensor]) -> None:
    clean, noise = torch.randn(5, 3), torch.randn(5, 3)
    out = sampler(lambda x, t: noise - clean, noise, time_grid(4, 128, FLOW))
    torch.testing.assert_close(out, clean, atol=1e-5, rtol=1e-5)


def test_heun_is_more_exact_than_euler_on_a_curved_flow() -> None:
    def curved(x: Tensor, t: float) -> Tensor:
        return x * (1 + t)

    start = torch.ones(1, 1, dtype=torch.float64)
    exact = torch.exp(torch.tensor(-1.5, dtype=torch.float64))  # x(0) = x(1)·exp(−∫₀¹ (1 + t) dt)
    times = [1 - n / 20 for n in range(21)]
    wrong = {f: float((f(curved, start, times) - exact).abs()) for f in (euler, heun)}
    assert wrong[heun] < wrong[euler] / 10
