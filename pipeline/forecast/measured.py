"""A stage that measures itself: seconds and bytes of each slice of a task, and of loading what it needs.

In: a stage, an executor. Out: beside the stage's own outputs a JSON file a task under MEASURED. Runs in
workers, whose processes it counts: the CPU seconds are those of the worker and its decoding child.

What a stage loads, it loads in setup() or when it is first used. So a worker's first slice is worked on
twice: what the first time, with setup, took longer than the second is the loading.
"""

import json
import os
import resource
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.corpus import tables
from pipeline.engine.runner import Beat, Executor, Receipt
from pipeline.engine.stage import Output, Resources, Stage, Task, TaskResult
from pipeline.storage import Storage, Stream, read_parquet

MEASURED = "measured"
Slices = Sequence[Sequence[int]]  # row numbers of a task
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Seconds on the clock, and of all processors."""

    wall_s: float = 0.0
    cpu_s: float = 0.0

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(wall_s=self.wall_s - other.wall_s, cpu_s=self.cpu_s - other.cpu_s)

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(wall_s=self.wall_s + other.wall_s, cpu_s=self.cpu_s + other.cpu_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """What working on the rows `rows` of the task `key` took, and the bytes of what came of it."""

    key: str
    rows: tuple[int, ...]
    spent: Spent
    nbytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """Of one stage. `inputs` are the rows of its tasks by key; `load` is None where no worker said."""

    slices: tuple[Slice, ...]
    inputs: Mapping[str, list[dict[str, Any]]]
    load: Spent | None
    resources: Resources

    def rows_of(self, piece: Slice) -> list[dict[str, Any]]:
        """The rows that a slice worked on."""
        return [self.inputs[piece.key][n] for n in piece.rows]


class MeasuredStage:
    """The stage with its tasks cut into the slices given for their keys; tasks without are one slice."""

    def __init__(self, stage: Stage, slices: Mapping[str, Slices]) -> None:
        self.name, self.version, self.resources = stage.name, stage.version, stage.resources
        self._stage, self._slices = stage, slices
        self._setup = Spent()
        self._fresh = True

    def setup(self) -> None:
        before = _now()
        self._stage.setup()
        self._setup = _now() - before

    def process(self, task: Task) -> TaskResult:
        slices = self._slices.get(task.key) or [range(task.inputs.num_rows)]
        rows, results, load = [], [], None
        for numbers in slices:
            part = Task(key=task.key, inputs=task.inputs.take(pa.array(numbers, pa.int64())))
            result, spent = self._timed(part)
            if self._fresh:
                again = self._timed(part)[1]
                load, spent, self._fresh = self._setup + spent - again, again, False
            results.append(result)
            nbytes = sum(len(output.data) for output in result.outputs)
            rows.append({"rows": list(numbers), "nbytes": nbytes, **_plain(spent)})
        said = json.dumps({"slices": rows, "load": load and _plain(load)}).encode()
        path = f"{MEASURED}/{self.name}/{task.key}.json"
        return TaskResult(outputs=(Output(path=path, data=said), *_joined(results)))

    def _timed(self, task: Task) -> tuple[TaskResult, Spent]:
        before = _now()
        result = self._stage.process(task)
        return result, _now() - before


class Measuring:
    """An executor that has the stages it runs measured by another one. `per_slice`: rows of one kind that
    are worked on together."""

    def __init__(self, executor: Executor, per_slice: int) -> None:
        self._executor, self._per_slice = executor, per_slice
        self.measurements: Measurements | None = None

    def gpus(self) -> float:
        return self._executor.gpus()

    def stop(self) -> None:
        self._executor.stop()

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        slices = {task.key: _by_kind(task.inputs, self._per_slice) for task in tasks}
        yield from self._executor.execute(MeasuredStage(stage, slices), tasks, root)
        self.measurements = measurements_of(Storage(root), stage, tasks)


def _by_kind(rows: pa.Table, per_slice: int) -> list[list[int]]:
    """Row numbers, videos before stills, at most so many of one kind together."""
    kinds = rows["kind"].to_pylist()
    of_kind = [[n for n, kind in enumerate(kinds) if kind == wanted] for wanted in ("video", "image")]
    return [rows[at : at + per_slice] for rows in of_kind for at in range(0, len(rows), per_slice)]


def measurements_of(storage: Storage, stage: Stage, tasks: Sequence[Task]) -> Measurements:
    """What the workers of a measured stage have said, in the order of the tasks."""
    slices: list[Slice] = []
    load = None
    for task in tasks:
        path = f"{MEASURED}/{stage.name}/{task.key}.json"
        if not storage.exists(path):
            continue
        said = json.loads(storage.read_bytes(path))
        load = Spent(**said["load"]) if said["load"] else load
        slices += [
            Slice(
                key=task.key,
                rows=tuple(row["rows"]),
                spent=Spent(wall_s=row["wall_s"], cpu_s=row["cpu_s"]),
                nbytes=row["nbytes"],
            )
            for row in said["slices"]
        ]
    inputs = {task.key: task.inputs.to_pylist() for task in tasks}
    return Measurements(slices=tuple(slices), inputs=inputs, load=load, resources=stage.resources)


def _joined(results: Sequence[TaskResult]) -> list[Output]:
    """The outputs of the slices as those of one task: tables joined, other files one behind the other."""
    parts: dict[str, list[Output]] = {}
    for result in results:
        for output in result.outputs:
            parts.setdefault(output.path, []).append(output)
    return [_one(path, outputs) for path, outputs in parts.items()]


def _one(path: str, outputs: Sequence[Output]) -> Output:
    if len(outputs) == 1:
        return outputs[0]
    if not path.endswith(".parquet"):
        return Output(
            path=path, data=b"".join(bytes(o.data) for o in outputs if not isinstance(o.data, Stream))
        )
    rows = pa.concat_tables([read_parquet(pa.BufferReader(output.data), None) for output in outputs])
    return Output(path=path, data=tables.to_parquet(rows))


def _plain(spent: Spent) -> dict[str, float]:
    return {"wall_s": spent.wall_s, "cpu_s": spent.cpu_s}


def _now() -> Spent:
    own, waited = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = own.ru_utime + own.ru_stime + waited.ru_utime + waited.ru_stime
    return Spent(wall_s=time.monotonic(), cpu_s=cpu_s + sum(map(_cpu_s, _children())))


def _children() -> list[str]:
    """Of this process, where the system says so (Linux)."""
    try:
        lists = [(task / "children").read_text() for task in Path("/proc/self/task").iterdir()]
    except OSError:
        return []
    return [child for text in lists for child in text.split()]


def _cpu_s(process: str) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(fields[11]) + int(fields[12])) * TICK_S
