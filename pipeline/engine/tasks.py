"""Tasks from a table of items: which rows, under which key.

In: item ids, a table, the stage's fingerprint, what each row is taken to cost. Out: part keys and tasks. The
borders between tasks follow from the table and the costs alone, not from workers or from what is done: a
resumed run makes the parts of an undisturbed one, on any executor. Never: a clock.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.stage import Task
from pipeline.errors import UsageError
from pipeline.settings import fingerprint

# A stage's tasks last so long that their parts, receipts and commits cost next to nothing, and are enough of
# them to keep many workers busy to the end: a 256th of all the work, within bounds.
TASKS_WANTED = 256
LEAST_TASK_S, MOST_TASK_S = 2.0, 60.0
MOST_TASK_BYTES = 512 << 20  # of inputs; the filmstrips of videos are up to half of theirs
MOST_TASK_ROWS = 8192  # the filmstrips of so many stills fill less than 256 MB
TICKS_PER_S = 1e6  # sums of whole numbers have no rounding that a different order would change


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What each of N rows is taken to cost, in the order of their table."""

    seconds: np.ndarray  # float64 [N], above 0: of one worker
    nbytes: np.ndarray  # int64 [N], 0 or more: of what it reads, or of what it must hold

    def __post_init__(self) -> None:
        if self.seconds.shape != self.nbytes.shape or not (self.seconds > 0).all():
            raise UsageError("costs of rows", expected="seconds above 0 and bytes for every row")


def part_key(stage_fingerprint: str, item_ids: Iterable[str]) -> str:
    """The name of the part that a stage makes from these items."""
    return f"{stage_fingerprint[:8]}-{fingerprint(list(item_ids))}"


def plan_tasks(
    inputs: pa.Table, id_column: str, done: Collection[str], stage_fingerprint: str, per_task: int
) -> list[Task]:
    """The rows not done yet, in table order, `per_task` to a task. Leaving whole finished tasks out of
    a sorted table leaves the borders of the others where they were, so a resumed run makes the same parts."""
    todo = inputs.filter(_open(inputs[id_column], done))
    return _tasks(todo, id_column, stage_fingerprint, range(0, todo.num_rows, per_task))


def plan_sized_tasks(
    inputs: pa.Table,
    id_column: str,
    done: Collection[str],
    stage_fingerprint: str,
    costs: Costs,
    *,
    per_task: int = 0,
) -> list[Task]:
    """The rows not done yet, in table order, in tasks of about the same time (`task_numbers` over all rows,
    finished ones included; `costs` are of all of them). `per_task`: at most so many rows; 0: as fits."""
    mask = _open(inputs[id_column], done)
    todo = inputs.filter(mask)
    numbers = task_numbers(costs, per_task)[np.asarray(mask)]  # [rows of todo]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
    return _tasks(todo, id_column, stage_fingerprint, starts)


def task_numbers(costs: Costs, per_task: int = 0) -> np.ndarray:
    """Which task each of N rows belongs to: int64 [N], from 0, rising in table order. A task takes
    `task_target_s` seconds and holds at most MOST_TASK_BYTES and `per_task` rows (0: MOST_TASK_ROWS); a row
    beyond any of these is a task of its own."""
    ticks = np.rint(costs.seconds * TICKS_PER_S).astype(np.int64)
    passed, held = (np.concatenate([[0], np.cumsum(values)]) for values in (ticks, costs.nbytes))
    limits = ((passed, round(TICKS_PER_S * task_target_s(costs.seconds))), (held, MOST_TASK_BYTES))
    starts, at = [], 0
    while at < len(ticks):
        starts.append(at)
        ends = [int(np.searchsorted(sums, sums[at] + most, "right")) - 1 for sums, most in limits]
        at = max(at + 1, min(*ends, at + (per_task or MOST_TASK_ROWS)))
    return np.repeat(np.arange(len(starts)), np.diff([*starts, len(ticks)]))


def task_target_s(seconds: np.ndarray) -> float:
    """How long a task of rows that cost float64 [N] seconds should take."""
    return min(max(float(seconds.sum()) / TASKS_WANTED, LEAST_TASK_S), MOST_TASK_S)


def _open(ids: pa.ChunkedArray, done: Collection[str]) -> pa.ChunkedArray:
    """Which rows are not done: bool [N]."""
    return pc.invert(pc.is_in(ids, value_set=pa.array(done, pa.string())))


def _tasks(rows: pa.Table, id_column: str, stage_fingerprint: str, starts: Iterable[int]) -> list[Task]:
    """The rows cut at `starts`, which rise from 0."""
    borders = [*starts, rows.num_rows]
    chunks = [rows.slice(start, end - start) for start, end in pairwise(borders)]
    return [Task(key=part_key(stage_fingerprint, c[id_column].to_pylist()), inputs=c) for c in chunks]
