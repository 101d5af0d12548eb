"""The same executor on Ray Data: the only file that imports ray.

In: a stage and its tasks. Out: receipts as tasks end. One task is one block; each worker is an actor
that sets the stage up once and commits its parts itself, so only small receipts travel. A worker that
dies costs the task it was on (tried once more); the stream goes on without it.
"""

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
    """A Worker as Ray Data calls it: a batch of one task in, its receipt out."""

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
        need = stage.resources
        items = [{"key": task.key, "inputs": _ipc(task.inputs)} for task in tasks]
        receipts = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _TaskActor,
            fn_constructor_args=(stage, root),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(len(tasks), self._workers or _fit(need.cpus, need.gpus))),
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            max_restarts=-1,
            max_task_retries=1,
        )
        for row in receipts.iter_rows():
            key, seconds, counts, error, fatal = json.loads(row["receipt"])
            if fatal:
                raise getattr(errors, fatal[0])(fatal[1], expected=fatal[2], fix=fatal[3])
            yield Receipt(key=key, seconds=seconds, counts=counts, error=error)


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
