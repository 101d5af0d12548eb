"""Runs the tasks of a stage: each is processed and committed where it ran, and answers with a receipt.

In: a stage, its open tasks, an executor. Out: committed parts and a summary. A task whose worker dies
or whose stage breaks is lost and named; the others go on, but for an environment that fails task after task,
which stops the stage. A receipt counts when its part is seen from here. Running again is the resume.
"""

import logging
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence, Set
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.config import StageResources
from pipeline.engine.proof import Question
from pipeline.engine.resources import threads_restored, use_threads, visible_gpus
from pipeline.engine.stage import UNSET, Loss, Resources, Stage, Task, TaskResult, attempt, set_up
from pipeline.errors import StorageError
from pipeline.progress import Progress, silent
from pipeline.storage import Storage

LOG = logging.getLogger(__name__)
WORKER_DIED = "its worker died; run the command again to retry it"
LOST, RETRIED, NODES = "lost", "retried", "nodes"  # what progress says beside the stage's own counts
NOT_TRIED = "not tried: the stage was stopped"
FAULTS_IN_A_ROW = 5  # of the environment, in tasks that ended one after another, which stop a stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of one task. `error` is empty when its part was committed, whose done-marker is the file
    `part`; it is the environment's fault where `environment` says so. `node` and `started_s` (unix time) are
    of the try that ended it; `tries` is how often it was begun. `amounts` (rows, bytes and those of the
    stage) and `failures` (by class of reason) are for whoever keeps receipts."""

    key: str
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    part: str = ""
    error: str = ""
    environment: bool = False
    node: str = ""
    started_s: float = 0.0
    tries: int = 1
    amounts: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


def ignored(receipt: Receipt) -> None:
    """What is done with a receipt that nobody keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """What a stage does while none of its tasks ends. `running` tasks, the longest of which has run for
    `longest_s` on `node`; `waiting_for` says what workers wait for that are not there yet."""

    running: int = 0
    longest_s: float = 0.0
    node: str = ""
    waiting_for: str = ""

    def facts(self) -> dict[str, object]:
        """As progress says it."""
        waiting = {"waiting for": self.waiting_for} if self.waiting_for else {}
        if not self.running:
            return {**waiting}
        tasks = "1 task" if self.running == 1 else f"{self.running} tasks"
        return {"running": f"{tasks}, the longest for {self.longest_s:.0f} s on {self.node}", **waiting}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """`counts` are the stage's own (ok, failed, …) summed over tasks; `lost` are tasks without a part,
    `retried` those begun more than once; `nodes` took part. `failures`: failed items by class of reason."""

    stage: str
    tasks: int
    lost: tuple[Receipt, ...]
    counts: dict[str, int]
    seconds: float
    retried: int = 0
    nodes: tuple[str, ...] = ()
    failures: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        return self.counts.get("failed", 0)


class StageStopped(StorageError):
    """The environment failed task after task. What was done by then, and what was not, is the `summary`."""

    def __init__(self, what: str, *, expected: str = "", fix: str = "", summary: RunSummary) -> None:
        super().__init__(what, expected=expected, fix=fix)
        self.summary = summary


class Executor(Protocol):
    """Runs tasks somewhere and yields their receipts as they come, in any order, and now and then a Beat.
    Closed early, it starts no further task. Several stages may be executed at once, each on a thread."""

    def gpus(self) -> float:
        """How many GPUs it can give to workers."""

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]: ...


def granted(
    wanted: Resources, executor: Executor, section: str = "", settings: StageResources = UNSET
) -> Resources:
    """What a worker gets whose model would like this: what the section of the config sets; else the same,
    without GPUs where there are too few. A GPU that the user asked for is waited for."""
    if wanted.gpus and settings.gpus is None and executor.gpus() < wanted.gpus:
        wanted = replace(wanted, gpus=0.0)
    return wanted.set_to(section, settings)


class Worker:
    """One worker of a stage: set up once, on the threads that the stage is given, then task after task; not
    at all where it does not see the driver's storage."""

    def __init__(self, stage: Stage, root: str, question: Question | None = None) -> None:
        if question is not None:
            question.read()
        use_threads(stage.resources.cpus)
        set_up(stage)
        self._stage, self._storage = stage, Storage(root)

    def run(self, task: Task, *, commit: bool = True) -> Receipt:
        """Processes and commits one task, the done-marker last; without `commit` only the first."""
        started, started_s = time.monotonic(), time.time()
        done = attempt(lambda: self._process(task, commit))
        receipt = Receipt(
            key=task.key,
            seconds=time.monotonic() - started,
            node=socket.gethostname(),
            started_s=started_s,
        )
        if isinstance(done, Loss):
            return replace(receipt, error=done.reason, environment=done.environment)
        part, result = done
        amounts = {"rows": task.inputs.num_rows, "bytes": sum(len(output.data) for output in result.outputs)}
        amounts |= result.amounts
        return replace(receipt, counts=result.counts, part=part, amounts=amounts, failures=result.failures)

    def _process(self, task: Task, commit: bool) -> tuple[str, TaskResult]:
        """Where the done-marker lies, "" where nothing was committed, and what the stage gave."""
        result = self._stage.process(task)
        outputs = result.outputs if commit else ()
        for output in outputs:
            self._storage.write_bytes(output.path, output.data)
        return outputs[-1].path if outputs else "", result


class LocalExecutor:
    """A plain loop in this process, which a debugger can step through. What kills a worker kills the run:
    the same command resumes it. A second stage waits for the first: a process has one number of threads."""

    def __init__(self) -> None:
        self._busy = threading.Lock()

    def gpus(self) -> float:
        return len(visible_gpus())

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        with self._busy, threads_restored():
            worker = Worker(stage, root)
            for task in tasks:
                yield worker.run(task)


def run(
    stage: Stage,
    tasks: Sequence[Task],
    executor: Executor,
    root: str,
    progress: Progress = silent,
    on_receipt: Callable[[Receipt], None] = ignored,
) -> RunSummary:
    """Runs the tasks and calls on_receipt(receipt) and progress(done, total, counts so far) after each; sets
    up nothing for none.

    Raises:
        StageStopped: the environment failed FAULTS_IN_A_ROW tasks one after another, with no success between.
    """
    started = time.monotonic()
    LOG.info("%s: %d tasks to do, on %s", stage.name, len(tasks), type(executor).__name__)
    receipts: dict[str, Receipt] = {}
    facts: Counter[str] = Counter()
    nodes: set[str] = set()
    faults: list[Receipt] = []  # of the environment, since the last success
    if tasks:
        progress(0, len(tasks), {})
        # Closed here, also by a signal: no worker outlives the stage, and commits nothing after it.
        with closing(executor.execute(stage, tasks, root)) as ended:
            for receipt in ended:
                if isinstance(receipt, Beat):
                    LOG.info("%s: %s", stage.name, receipt.facts())
                    progress(len(receipts), len(tasks), dict(facts) | receipt.facts())
                    continue
                receipts[receipt.key] = receipt
                LOG.info("%s: %s", stage.name, _line(receipt))
                on_receipt(receipt)
                nodes |= {receipt.node}
                facts.update(receipt.counts | ({LOST: 1} if receipt.error else {}))
                facts.update({RETRIED: 1} if receipt.tries > 1 else {})
                progress(len(receipts), len(tasks), dict(facts) | _spread(nodes))
                faults = [*faults, receipt] if receipt.environment else faults if receipt.error else []
                if len(faults) == FAULTS_IN_A_ROW:
                    break
        receipts = _with_parts(receipts, root)
    stopped = len(faults) == FAULTS_IN_A_ROW
    missing = NOT_TRIED if stopped else WORKER_DIED
    all_receipts = [receipts.get(task.key, Receipt(key=task.key, error=missing)) for task in tasks]
    lost = tuple(receipt for receipt in all_receipts if receipt.error)
    for receipt in lost:
        LOG.info("%s: task %s is lost: %s", stage.name, receipt.key, receipt.error)
    counts = _summed(receipt.counts for receipt in all_receipts)
    if len(lost) > facts[LOST]:  # those without a receipt or a part, too
        progress(len(tasks), len(tasks), counts | {LOST: len(lost)})
    seconds = time.monotonic() - started
    LOG.info("%s: done in %.1f s, %s", stage.name, seconds, counts)
    summary = RunSummary(
        stage=stage.name,
        tasks=len(tasks),
        lost=lost,
        counts=counts,
        seconds=seconds,
        retried=facts[RETRIED],
        nodes=tuple(sorted(nodes - {""})),
        failures=_summed(receipt.failures for receipt in all_receipts),
    )
    if stopped:
        raise StageStopped(
            f"the stage {stage.name} was stopped: {FAULTS_IN_A_ROW} tasks in a row were lost to faults that "
            f"are not their own, the last with: {faults[-1].error}",
            fix=f"mend that and run the same command again: it does the {len(lost)} open tasks",
            summary=summary,
        )
    return summary


def _line(receipt: Receipt) -> str:
    """What became of a task, for the log."""
    where = f"{receipt.seconds:.1f} s on {receipt.node or 'no node'}, try {receipt.tries}"
    return f"task {receipt.key}: {receipt.error or receipt.counts}, {where}"


def _spread(nodes: Set[str]) -> dict[str, object]:
    """How many nodes took part, where there is more than one."""
    return {NODES: len(nodes - {""})} if len(nodes - {""}) > 1 else {}


def _summed(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for of_task in counts:
        total.update(of_task)
    return dict(total)


def _with_parts(receipts: Mapping[str, Receipt], root: str) -> dict[str, Receipt]:
    """The receipts; those whose parts cannot be seen from here are lost ones."""
    storage = Storage(root)
    folders = {os.path.dirname(receipt.part) for receipt in receipts.values() if receipt.part}
    listed = {os.path.join(folder, name) for folder in folders for name in storage.list(folder)}

    def checked(receipt: Receipt) -> Receipt:
        # A listing of NFS may be half a minute old; a name that was never looked up before is looked up now.
        if not receipt.part or receipt.part in listed or storage.exists(receipt.part):
            return receipt
        error = f"its part is not in {root}: where it ran, that is another place, or the part was deleted"
        return replace(receipt, counts={}, part="", error=error)

    return {key: checked(receipt) for key, receipt in receipts.items()}
