"""The same executor on Ray Data: the only file that imports ray.

In: a stage and its tasks. Out: receipts as tasks end. One task is one block; each worker is an actor
that sets the stage up once and commits its parts itself, so only small receipts travel. A worker that
dies takes with it the task it was on and those queued on it; each of these is then tried once more in
a process of its own, so that only a task that kills its worker again stays without a receipt.
"""

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext

from pipeline import errors
from pipeline.runner import Receipt, Worker
from pipeline.stage import Stage, Task


class _TaskActor:
    """A Worker as Ray calls it: a batch of one task in, its receipt out."""

    def __init__(self, stage: Stage, root: str) -> None:
        self._stage, self._root = stage, root
        self._worker: Worker | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        with pa.ipc.open_stream(batch["inputs"][0]) as stream:
            task = Task(key=str(batch["key"][0]), inputs=stream.read_all())
        try:  # Ray Data drops a block that raises; what must end the run has to travel as a value
            self._worker = self._worker or Worker(self._stage, self._root)
            receipt, fatal = self._worker.run(task), None
        except errors.FramemillError as error:
            receipt = Receipt(key=task.key, error=str(error))
            fatal = [type(error).__name__, error.what, error.expected, error.fix]
        return {"receipt": [json.dumps([receipt.key, receipt.seconds, receipt.counts, receipt.error, fatal])]}


class RayExecutor:
    """Runs on the cluster at $RAY_ADDRESS, else on a Ray started on this machine."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Iterator[Receipt]:
        _start()
        items = {task.key: {"key": task.key, "inputs": _ipc(task.inputs)} for task in tasks}
        for answers in (self._pooled, self._alone):
            for answer in answers(stage, list(items.values()), root):
                key, seconds, counts, error, fatal = json.loads(answer)
                if fatal:
                    raise getattr(errors, fatal[0])(fatal[1], expected=fatal[2], fix=fatal[3])
                del items[key]
                yield Receipt(key=key, seconds=seconds, counts=counts, error=error)

    def _pooled(self, stage: Stage, items: list[dict[str, Any]], root: str) -> Iterator[str]:
        """Answers of a pool of workers; none for the tasks that a dying worker took with it."""
        need = stage.resources
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

    def _alone(self, stage: Stage, items: list[dict[str, Any]], root: str) -> Iterator[str]:
        """Answers of processes that run one task each; none for a task that kills its process."""
        need = stage.resources
        run_one = ray.remote(num_cpus=need.cpus, num_gpus=need.gpus, max_retries=0, max_calls=1)(_run_one)
        waiting = [run_one.remote(stage, root, item) for item in items]
        while waiting:
            done, waiting = ray.wait(waiting)
            with contextlib.suppress(ray.exceptions.RayError):
                yield ray.get(done[0])


def _run_one(stage: Stage, root: str, item: dict[str, Any]) -> str:
    return _TaskActor(stage, root)({name: [value] for name, value in item.items()})["receipt"][0]


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
