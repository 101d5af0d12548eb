"""Schedules: up, held, down to zero; never above one, never below."""

import pytest

from pipeline.schedule import warm_cosine, warm_hold_fall


@pytest.mark.parametrize("steps", [1, 7, 100])
@pytest.mark.parametrize("warmup_steps", [0, 1, 5])
def test_a_share_stays_between_nothing_and_all_and_ends_at_nothing(steps: int, warmup_steps: int) -> None:
    curves = (
        [warm_hold_fall(s, steps, warmup_steps=warmup_steps, decay_share=0.4) for s in range(steps + 1)],
        [warm_cosine(s, steps, warmup_steps=warmup_steps) for s in range(steps + 1)],
    )
    for curve in curves:
        assert all(0 <= share <= 1 for share in curve)
        assert curve[-1] == pytest.approx(0, abs=1e-12)
        assert curve[0] > 0


def test_it_warms_holds_and_falls() -> None:
    curve = [warm_hold_fall(s, 100, warmup_steps=10, decay_share=0.3) for s in range(101)]
    assert curve[:10] == pytest.approx([n / 10 for n in range(1, 11)])
    assert set(curve[10:70]) == {1.0}
    assert curve[70:] == pytest.approx([(100 - s) / 30 for s in range(70, 101)])


def test_a_cosine_is_half_way_in_the_middle() -> None:
    assert warm_cosine(50, 100, warmup_steps=3) == pytest.approx(0.5)
    assert warm_cosine(0, 100, warmup_steps=4) == 0.25
