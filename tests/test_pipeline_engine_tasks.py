"""Tasks of about the same time: which rows are in which, and that a resumed run finds the same borders."""

import numpy as np
import pyarrow as pa
import pytest

from pipeline.engine.tasks import (
    LEAST_TASK_S,
    MOST_TASK_BYTES,
    MOST_TASK_ROWS,
    MOST_TASK_S,
    Costs,
    plan_sized_tasks,
    task_numbers,
    task_target_s,
)
from pipeline.errors import UsageError
from pipeline.stages.costs import clip_costs, source_costs

RNG = np.random.default_rng(0)
PRINT = "f" * 16


def costs(seconds: np.ndarray, nbytes: np.ndarray | int = 0) -> Costs:
    return Costs(seconds=np.asarray(seconds, float), nbytes=np.broadcast_to(nbytes, len(seconds)).astype(int))


def by_task(numbers: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.bincount(numbers, values)


@pytest.mark.parametrize("count", [1, 30, 3000, 100_000])
def test_tasks_take_about_the_target_and_keep_the_order(count: int) -> None:
    seconds = RNG.exponential(0.5, count) + 0.001
    numbers = task_numbers(costs(seconds))
    target_s = task_target_s(seconds)
    assert numbers[0] == 0
    assert set(np.diff(numbers).tolist()) <= {0, 1}
    lasting_s = by_task(numbers, seconds)
    alone = np.bincount(numbers) == 1
    assert (lasting_s[~alone] <= target_s + 1e-3).all()
    after_s = lasting_s[:-1] + seconds[np.flatnonzero(np.diff(numbers)) + 1]  # with the first of the next
    assert (after_s > target_s - 1e-3).all()  # no task ends while there is room


def test_a_small_corpus_is_spread_and_a_large_one_has_long_tasks() -> None:
    assert task_target_s(np.full(12, 1.0)) == LEAST_TASK_S
    assert task_target_s(np.full(2560, 1.0)) == 10.0
    assert task_target_s(np.full(1_000_000, 1.0)) == MOST_TASK_S


def test_tasks_are_bounded_in_rows_and_bytes() -> None:
    assert np.bincount(task_numbers(costs(np.full(20_000, 1e-4)))).max() == MOST_TASK_ROWS
    assert np.bincount(task_numbers(costs(np.full(20, 1e-4)), 3)).tolist() == [3] * 6 + [2]
    nbytes = np.array([1, 1, MOST_TASK_BYTES + 1, 1, MOST_TASK_BYTES - 1, 1])
    assert task_numbers(costs(np.full(6, 1e-4), nbytes)).tolist() == [0, 0, 1, 2, 2, 3]


def test_a_row_far_above_the_target_is_alone() -> None:
    assert task_numbers(costs([1e-3, 1e-3, 500.0, 1e-3, 1e-3])).tolist() == [0, 0, 1, 2, 2]


@pytest.mark.parametrize("per_task", [0, 7])
def test_whatever_is_done_the_other_tasks_are_those_of_an_undisturbed_run(per_task: int) -> None:
    table = pa.table({"id": [f"{i:04d}" for i in range(500)]})
    cost = costs(RNG.exponential(0.5, 500) + 0.001)
    whole = plan_sized_tasks(table, "id", set(), PRINT, cost, per_task=per_task)
    assert [i for task in whole for i in task.inputs["id"].to_pylist()] == table["id"].to_pylist()
    finished = [task for task in whole if RNG.random() < 0.5]
    done = {i for task in finished for i in task.inputs["id"].to_pylist()}
    resumed = plan_sized_tasks(table, "id", done, PRINT, cost, per_task=per_task)
    assert [t.key for t in resumed] == [t.key for t in whole if t not in finished]
    assert len(whole) > 10


def test_nothing_to_do_is_no_task() -> None:
    empty = pa.table({"id": pa.array([], pa.string())})
    assert plan_sized_tasks(empty, "id", set(), PRINT, costs(np.zeros(0))) == []
    one = pa.table({"id": ["a"]})
    assert plan_sized_tasks(one, "id", {"a"}, PRINT, costs(np.ones(1))) == []


def test_costs_are_of_every_row_and_above_nothing() -> None:
    for seconds in (np.zeros(2), np.array([1.0, np.nan])):
        with pytest.raises(UsageError, match="seconds above 0"):
            costs(seconds)
    with pytest.raises(UsageError):
        Costs(seconds=np.ones(2), nbytes=np.zeros(3, int))


def test_videos_cost_more_than_pictures_and_larger_files_more_than_smaller() -> None:
    uris = ["a.JPG", "b.mp4", "s3://x/y.tar#c.png", "d.mp4", "e.jpg"]
    inputs = pa.table({"uri": uris, "size_bytes": [1000, 1000, 1000, 10_000_000, 10_000_000]})
    jpg, video, png, long, large = source_costs(inputs).seconds.tolist()
    assert jpg == png < video < long
    assert jpg < large < long
    with_words, without = (clip_costs(3, frames=8, tokens=n) for n in (100, 0))
    assert (with_words.seconds > without.seconds).all()
