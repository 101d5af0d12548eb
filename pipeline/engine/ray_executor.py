"""The same executor on Ray Data: the only file that imports ray.

In: a stage and its tasks. Out: receipts as tasks end. One task is one block; each worker is an actor
that sets the stage up once and commits its parts itself, so only small receipts travel.

A worker that dies takes with it the task it was on and those queued on it. Each of these is tried once
more in a process of its own. A task that kills that one too is halved, without committing anything, until
the rows are found that kill a process by themselves, twice; then it runs without them, and they become
`failed` rows. A process that dies with no row to work on convicts nobody: its tasks stay lost.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline import errors
from pipeline.engine.runner import Receipt, Worker
from pipeline.engine.stage import Stage, Task

DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)  # not a lost node or cluster


class _TaskActor:
    """A Worker as Ray calls it: a batch of one task in, its receipt out."""

    def __init__(self, stage: Stage, root: str) -> None:
        self._stage, self._root = stage, root
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        with pa.ipc.open_stream(batch["inputs"][0]) as stream:
            return {"receipt": [self.run(Task(key=str(batch["key"][0]), inputs=stream.read_all()))]}

    def run(self, task: Task, *, commit: bool = True) -> str:
        try:  # Ray Data drops a block that raises; what must end the run has to travel as a value
            self._worker = self._worker or Worker(self._stage, self._root)
            receipt, fatal = self._worker.run(task, commit=commit), None
        except errors.FramemillError as error:
            receipt = Receipt(key=task.key, error=str(error))
            fatal = [type(error).__name__, error.what, error.expected, error.fix]
        return json.dumps([receipt.key, receipt.seconds, receipt.counts, receipt.error, fatal])


class RayExecutor:
    """Runs on the cluster at $RAY_ADDRESS, else on a Ray started on this machine."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Iterator[Receipt]:
        _start()
        unanswered = {task.key: task for task in tasks}
        for answers in (self._pooled, self._alone, self._without_culprits):
            for answer in answers(stage, list(unanswered.values()), root):
                key, seconds, counts, error, fatal = json.loads(answer)
                if fatal:
                    raise getattr(errors, fatal[0])(fatal[1], expected=fatal[2], fix=fatal[3])
                del unanswered[key]
                yield Receipt(key=key, seconds=seconds, counts=counts, error=error)

    def _pooled(self, stage: Stage, tasks: list[Task], root: str) -> Iterator[str]:
        """Answers of a pool of workers; none for the tasks that a dying worker took with it."""
        need = stage.resources
        items = [{"key": task.key, "inputs": _ipc(task.inputs)} for task in tasks]
        answers = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _TaskActor,
            fn_constructor_args=(stage, root),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(len(items), self._workers or _fit(need.cpus, need.gpus))),
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            max_restarts=-1,
            max_task_retries=0,  # Ray Data would try for ever
        )
        for row in answers.iter_rows():
            yield row["receipt"]

    def _alone(self, stage: Stage, tasks: list[Task], root: str) -> Iterator[str]:
        """Answers of processes that run one task each; none for a task that kills its process."""
        for _, answer, _ in _processes(stage, tasks, root):
            if answer:
                yield answer

    def _without_culprits(self, stage: Stage, tasks: list[Task], root: str) -> Iterator[str]:
        """Answers of the tasks without the rows that kill a process by themselves."""
        convicted: dict[str, set[int]] = {task.key: set() for task in tasks}
        for task, rows in _culprits(stage, tasks, root):
            convicted[task.key] |= rows
        spared = [replace(task, poisoned=frozenset(convicted[task.key])) for task in tasks]
        yield from self._alone(stage, [task for task in spared if task.poisoned], root)


def _culprits(stage: Stage, tasks: list[Task], root: str) -> list[tuple[Task, set[int]]]:
    """(task, one row of it) for every row that kills its process twice with no other row in work."""

    def deadly(suspects: list[tuple[Task, set[int]]]) -> list[tuple[Task, set[int]]]:
        probes = [replace(t, poisoned=frozenset(range(t.inputs.num_rows)) - rows) for t, rows in suspects]
        ended = _processes(stage, probes, root, commit=False)
        return [suspects[number] for number, _, died in ended if died]

    if not tasks or deadly([(tasks[0], set())]):  # it is the stage that dies, not a row of it
        return []
    suspects = [(task, set(range(task.inputs.num_rows))) for task in tasks]
    while any(len(rows) > 1 for _, rows in suspects):
        suspects = deadly([(task, half) for task, rows in suspects for half in _halves(rows)])
    return deadly(suspects)


def _halves(rows: set[int]) -> list[set[int]]:
    ordered, middle = sorted(rows), (len(rows) + 1) // 2
    return [half for half in (set(ordered[:middle]), set(ordered[middle:])) if half]


def _processes(
    stage: Stage, tasks: Sequence[Task], root: str, *, commit: bool = True
) -> Iterator[tuple[int, str, bool]]:
    """(number of the task, its answer or "", whether its process died) as they end, a process a task."""
    need = stage.resources
    run_one = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0, max_calls=1)(_run_one)
    waiting = {run_one.remote(stage, root, task, commit): number for number, task in enumerate(tasks)}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        number = waiting.pop(done)
        try:
            yield number, ray.get(done), False
        except ray.exceptions.RayError as error:
            yield number, "", isinstance(error, DIED)


def _run_one(stage: Stage, root: str, task: Task, commit: bool) -> str:
    return _TaskActor(stage, root).run(task, commit=commit)


def _start() -> None:
    """Joins or starts Ray at the first task, so that a run with nothing to do costs nothing."""
    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes back in receipts
        ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    # Ray 2.60 warns of `**ray_remote_args` and has no other way yet to say max_restarts to a pool of actors.
    warnings.filterwarnings("ignore", message=".ray_remote_args. is deprecated")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a lost task is named by the runner, not fatal
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _fit(cpus: float, gpus: float) -> int:
    """How many such workers the cluster holds."""
    have = ray.cluster_resources()
    by_gpu = have.get("GPU", 0.0) // gpus if gpus else float("inf")
    fit = int(min(have.get("CPU", 1.0) // max(cpus, 0.01), by_gpu))
    if fit < 1:
        raise errors.UsageError(
            f"a worker needs {cpus} CPUs and {gpus} GPUs", expected=f"a node with them; Ray has {have}"
        )
    return fit


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
