"""The same executor on the cores of this machine: a process a worker, none of them this one.

In: a stage and its tasks. Out: receipts as tasks end. Each worker (pipeline/engine/pool_worker.py) is started
afresh and sets the stage up once; it commits its parts itself, so only small receipts come back. What the
death of a worker costs: pipeline/engine/culprits.py.

Not concurrent.futures: one dead process breaks that pool for all its tasks. Not multiprocessing's processes:
they import the caller's main module again, which not every caller can bear (a script without a guard, code
from stdin). Never a fork: Arrow and OpenMP have threads by then.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

from pipeline.engine.answers import Answer
from pipeline.engine.culprits import Ended, receipts
from pipeline.engine.proof import Question, asked
from pipeline.engine.resources import allowed_cpus, memory_gb, set_threads, show_gpus, visible_gpus
from pipeline.engine.runner import Receipt
from pipeline.engine.stage import Resources, Stage, Task
from pipeline.errors import UsageError

SOURCE_ROOT = Path(__file__).resolve().parents[2]


class PoolExecutor:
    """Runs on `workers` processes; by default on as many as this process has cores for, and on one of its
    own even where that is one: a single task, too, may hold a row that kills, and must not kill the run."""

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers", expected="at least 1")
        self._workers = workers

    def gpus(self) -> float:
        return len(visible_gpus())

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        if type(stage).__module__ == "__main__":
            raise UsageError(
                f"the stage {stage.name} stands in the main script, which workers do not import",
                fix="move its class to a module, or run it with LocalExecutor",
            )
        shares = gpu_shares(stage.resources.gpus, visible_gpus())
        limit = min(self._workers or worker_limit(stage.resources), len(shares) or sys.maxsize)
        with asked(root) as question:
            run = partial(_run, stage, question, shares or [()] * limit)

            def pooled(tasks: Sequence[Task]) -> Iterator[Answer]:
                return (ended.answer for ended in run(tasks, limit=limit, keep=True) if ended.answer)

            # One at a time: a process that dies for want of memory beside others convicts nobody's row.
            yield from receipts(tasks, pooled, partial(run, limit=1, keep=False))


def worker_limit(need: Resources) -> int:
    """As many workers as have the cores and the memory that they need; at least one."""
    return max(1, min(int(allowed_cpus() // max(need.cpus, 1.0)), int(memory_gb() // need.memory_gb)))


def gpu_shares(gpus: float, visible: Sequence[str]) -> list[tuple[str, ...]]:
    """The GPUs of each worker that needs `gpus` of them, as many workers as fit; empty where none is."""
    if not gpus:
        return []
    if gpus > len(visible):
        raise UsageError(f"a worker needs {gpus:g} GPUs", expected=f"as many here; there are {len(visible)}")
    if gpus < 1:
        return [(name,) for _ in range(int(1 / gpus)) for name in visible]
    whole = int(gpus)
    return [tuple(visible[at : at + whole]) for at in range(0, len(visible) - whole + 1, whole)]


def _run(
    stage: Stage,
    question: Question,
    shares: Sequence[tuple[str, ...]],
    tasks: Sequence[Task],
    *,
    limit: int,
    keep: bool,
    commit: bool = True,
) -> Iterator[Ended]:
    """How each task ended, up to `limit` at once: in processes that go on to the next task with `keep`, else
    in one of its own each."""
    waiting, busy = deque(enumerate(tasks)), dict[Connection, tuple[_Process, int]]()
    free = deque(shares)  # of the GPUs: a process that ends gives its share to the next

    def next_task(process: _Process) -> None:
        number, task = waiting.popleft()
        process.send(task, commit)
        busy[process.connection] = (process, number)

    try:
        while waiting or busy:
            while waiting and len(busy) < limit:
                next_task(_Process(stage, question, free.popleft()))
            for ready in wait(list(busy)):
                assert isinstance(ready, Connection)
                process, number = busy.pop(ready)
                answer = process.answer()
                if answer and keep and waiting:
                    next_task(process)
                else:
                    process.close()
                    free.append(process.gpus)
                yield Ended(number=number, answer=answer, died=answer is None)
    finally:
        for process, _ in busy.values():
            process.close()


class _Process:
    """One worker process. It has its own process group: Ctrl-C reaches this process, which ends it, and not
    a decoder in the middle of a file, whose death would be written down as the file's failure."""

    def __init__(self, stage: Stage, question: Question, gpus: tuple[str, ...]) -> None:
        self.gpus = gpus
        own, its = socket.socketpair()
        paths = [str(SOURCE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        set_threads(environment, stage.resources.cpus)
        show_gpus(environment, gpus)
        with its:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.engine.pool_worker", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=2,  # stdout is for this command's result
                env=environment,
                pass_fds=[its.fileno()],
                process_group=0,
            )
        self.connection = Connection(own.detach())
        self._say([str(Path(path).resolve()) for path in sys.path])  # the stage's module lies there
        self._say((stage, question))

    def send(self, task: Task, commit: bool) -> None:
        self._say((task, commit))

    def answer(self) -> Answer | None:
        """None when the process died before it gave one."""
        try:
            return Answer.from_dict(self.connection.recv())
        except (EOFError, OSError):
            return None

    def close(self) -> None:
        """Ends the process, and after it (so that it sees none of them die) its decoders."""
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(ProcessLookupError):  # nobody is left of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self.connection.close()

    def _say(self, message: object) -> None:
        """A process that is dead by now is noticed when it does not answer."""
        try:
            self.connection.send(message)
        except (BrokenPipeError, ConnectionResetError):
            return
