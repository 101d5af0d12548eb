"""Runs the tasks of a stage: each is processed and committed where it ran, and answers with a receipt.

In: a stage, its open tasks, an executor. Out: committed parts and a summary. A task whose worker dies
or whose stage breaks is lost and named; the others go on. Running again is the resume.
"""

import logging
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.engine.resources import threads_restored, use_threads, visible_gpus
from pipeline.engine.stage import Resources, Stage, Task, attempt, set_up
from pipeline.progress import Progress, silent
from pipeline.storage import Storage

LOG = logging.getLogger(__name__)
WORKER_DIED = "its worker died; run the command again to retry it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one task. `error` is empty when its part was committed."""

    key: str
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """`counts` are the stage's own (ok, failed, …) summed over tasks; `lost` are tasks without a part."""

    stage: str
    tasks: int
    lost: tuple[Receipt, ...]
    counts: dict[str, int]
    seconds: float

    @property
    def failed(self) -> int:
        return self.counts.get("failed", 0)


class Executor(Protocol):
    """Runs tasks somewhere and yields their receipts as they come, in any order."""

    def gpus(self) -> float:
        """How many GPUs it can give to workers."""

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]: ...


def granted(wanted: Resources, executor: Executor) -> Resources:
    """What a worker gets whose model would like this: the same, without GPUs where there are too few."""
    return wanted if not wanted.gpus or executor.gpus() >= wanted.gpus else replace(wanted, gpus=0.0)


class Worker:
    """One worker of a stage: set up once, on the threads that the stage is given, then task after task."""

    def __init__(self, stage: Stage, root: str) -> None:
        use_threads(stage.resources.cpus)
        set_up(stage)
        self._stage, self._storage = stage, Storage(root)

    def run(self, task: Task, *, commit: bool = True) -> Receipt:
        """Processes and commits one task, the done-marker last; without `commit` only the first."""
        started = time.monotonic()
        counts, error = attempt(lambda: self._process(task, commit))
        return Receipt(key=task.key, seconds=time.monotonic() - started, counts=counts or {}, error=error)

    def _process(self, task: Task, commit: bool) -> dict[str, int]:
        result = self._stage.process(task)
        for output in result.outputs if commit else ():
            self._storage.write_bytes(output.path, output.data)
        return result.counts


class LocalExecutor:
    """A plain loop in this process, which a debugger can step through. What kills a worker kills the run:
    the same command resumes it."""

    def gpus(self) -> float:
        return len(visible_gpus())

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        with threads_restored():
            worker = Worker(stage, root)
            for task in tasks:
                yield worker.run(task)


def run(
    stage: Stage,
    tasks: Sequence[Task],
    executor: Executor,
    root: str,
    progress: Progress = silent,
) -> RunSummary:
    """Runs the tasks and calls progress(done, total, counts so far) after each; sets up nothing for none."""
    started = time.monotonic()
    LOG.info("%s: %d tasks to do, on %s", stage.name, len(tasks), type(executor).__name__)
    counts: Counter[str] = Counter()
    receipts: dict[str, Receipt] = {}
    if tasks:
        progress(0, len(tasks), {})
        # Closed here, also by a signal: no worker outlives the stage, and commits nothing after it.
        with closing(executor.execute(stage, tasks, root)) as ended:
            for receipt in ended:
                receipts[receipt.key] = receipt
                counts.update(receipt.counts)
                progress(len(receipts), len(tasks), dict(counts))
    ends = [receipts.get(task.key, Receipt(key=task.key, error=WORKER_DIED)) for task in tasks]
    lost = tuple(receipt for receipt in ends if receipt.error)
    for receipt in lost:
        LOG.info("%s: task %s is lost: %s", stage.name, receipt.key, receipt.error)
    seconds = time.monotonic() - started
    LOG.info("%s: done in %.1f s, %s", stage.name, seconds, dict(counts))
    return RunSummary(stage=stage.name, tasks=len(tasks), lost=lost, counts=dict(counts), seconds=seconds)
