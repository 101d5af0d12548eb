"""The pack plan: every sample once an epoch, no pack over budget, one integer of state for any world size."""

import pytest

from pipeline.errors import ConfigError
from training.packing import PackPlan, plan_epoch
from training.rng import keyed


def lengths(count: int, seed: int = 0, largest: int = 400) -> list[int]:
    return [int(n) for n in keyed("lengths", seed).integers(20, largest, count)]


@pytest.mark.parametrize("count", [1, 2, 57, 1000])
@pytest.mark.parametrize("epoch", [0, 3])
def test_an_epoch_holds_every_sample_once_and_no_pack_is_over_budget(count: int, epoch: int) -> None:
    tokens = lengths(count)
    packs = plan_epoch(tokens, 1000, seed=7, epoch=epoch)
    assert sorted(row for pack in packs for row in pack) == list(range(count))
    assert all(0 < sum(tokens[row] for row in pack) <= 1000 for pack in packs)


def test_packs_are_nearly_full() -> None:
    tokens = lengths(3000, largest=1500)
    assert sum(tokens) / (16_000 * len(plan_epoch(tokens, 16_000, seed=0, epoch=0))) > 0.97


def test_epochs_and_seeds_differ_and_repeat() -> None:
    tokens = lengths(100)
    assert plan_epoch(tokens, 1000, seed=0, epoch=0) == plan_epoch(tokens, 1000, seed=0, epoch=0)
    neighbours = [set(plan_epoch(tokens, 1000, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0))]
    assert not neighbours[0] & neighbours[1]
    assert not neighbours[0] & neighbours[2]


@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_one_sequence_whatever_their_number(world: int) -> None:
    tokens = lengths(40)
    alone = PackPlan(tokens, 1000, seed=0)
    expected = [alone.locate(position) for position in range(30)]
    ranks = [PackPlan(tokens, 1000, seed=0) for _ in range(world)]
    steps = 30 // world
    together = [ranks[r].locate(i * world + r) for i in range(steps) for r in range(world)]
    assert together == expected[: steps * world]


def test_any_position_can_be_asked_in_any_order() -> None:
    tokens = lengths(40)
    walked = PackPlan(tokens, 1000, seed=0)
    in_order = [walked.locate(position) for position in range(60)]
    jumping = PackPlan(tokens, 1000, seed=0)
    assert [jumping.locate(position) for position in reversed(range(60))] == in_order[::-1]
    assert len({epoch for epoch, _ in in_order}) > 2


def test_a_sample_larger_than_a_pack_is_refused_with_the_cure() -> None:
    with pytest.raises(ConfigError, match="tokens_per_pack=1200"):
        plan_epoch([100, 1200], 1000, seed=0, epoch=0)
