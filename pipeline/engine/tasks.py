"""Tasks from a table of items: which rows, under which key.

In: item ids, a table, the stage's fingerprint. Out: part keys and tasks.
"""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.engine.stage import Task
from pipeline.settings import fingerprint


def part_key(stage_fingerprint: str, item_ids: Iterable[str]) -> str:
    """The name of the part that a stage makes from these items."""
    return f"{stage_fingerprint[:8]}-{fingerprint(list(item_ids))}"


def plan_tasks(
    inputs: pa.Table, id_column: str, done: set[str], stage_fingerprint: str, per_task: int
) -> list[Task]:
    """The rows not done yet, in table order, `per_task` to a task. Leaving whole finished tasks out of
    a sorted table leaves the borders of the others where they were, so a resumed run makes the same parts."""
    todo = inputs.filter(
        pc.invert(pc.is_in(inputs[id_column], value_set=pa.array(sorted(done), pa.string())))
    )
    chunks = [todo.slice(start, per_task) for start in range(0, todo.num_rows, per_task)]
    return [Task(key=part_key(stage_fingerprint, c[id_column].to_pylist()), inputs=c) for c in chunks]
