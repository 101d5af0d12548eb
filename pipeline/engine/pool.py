"""The same executor on the cores of this machine: a process a worker, none of them this one.

In: a stage and its tasks. Out: receipts as tasks end. Each worker (pipeline/engine/pool_worker.py) is started
afresh and sets the stage up once; it commits its parts itself, so only small receipts come back. Stages that
run at the same time, each on a thread, share the machine. Who gets which task: pipeline/engine/crew.py. What
the death of a worker costs: pipeline/engine/culprits.py.

Not concurrent.futures: one dead process breaks that pool for all its tasks. Not multiprocessing's processes:
they import the caller's main module again, which not every caller can bear (a script without a guard, code
from stdin). Never a fork: Arrow and OpenMP have threads by then.
"""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from pipeline.engine.answers import Answer
from pipeline.engine.crew import Crew, Event, What
from pipeline.engine.culprits import Ended, receipts
from pipeline.engine.proof import Question, asked
from pipeline.engine.resources import allowed_cpus, memory_gb, set_threads, show_gpus, visible_gpus
from pipeline.engine.runner import WORKER_DIED, Beat, Receipt
from pipeline.engine.shares import Amounts, Claim, Claims, amounts, fits, lack, refuse_too_large
from pipeline.engine.stage import Resources, Stage, Task
from pipeline.errors import UsageError

SOURCE_ROOT = Path(__file__).resolve().parents[2]


class PoolExecutor:
    """Runs on `workers` processes; by default on as many as this process has cores for, and on one of its
    own even where that is one: a single task, too, may hold a row that kills, and must not kill the run."""

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"{workers} workers", expected="at least 1")
        self._machine = Machine(workers)
        self._stopped = threading.Event()

    def gpus(self) -> float:
        return len(visible_gpus())

    def stop(self) -> None:
        """Every stage that is executed ends with KeyboardInterrupt, wherever its thread waits."""
        self._stopped.set()

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        if type(stage).__module__ == "__main__":
            raise UsageError(
                f"the stage {stage.name} stands in the main script, which workers do not import",
                fix="move its class to a module, or run it with LocalExecutor",
            )
        with asked(root) as question, self._machine.entered(stage.resources) as claim:

            def crew(tasks: Sequence[Task], **how: Any) -> Generator[Ended | Beat]:
                place = _Processes(stage, question, self._machine, claim, self._stopped)
                return Crew(place, stage, tasks, **how).run()

            def alone(tasks: Sequence[Task], *, commit: bool = True) -> Generator[Ended | Beat]:
                # One at a time: a process that dies for want of memory beside others convicts nobody's row.
                return crew(tasks, keep=False, limit=1, commit=commit)

            yield from receipts(tasks, crew, alone)


class Machine:
    """What this machine has for the workers of stages that run at the same time: its cores, or as many
    workers as the user said; memory; GPUs, by name."""

    def __init__(self, workers: int | None) -> None:
        self._workers = workers
        gpus = visible_gpus()
        self._whole: Amounts = {"CPU": allowed_cpus(), "GPU": len(gpus), "memory": memory_gb()}
        self._claims = Claims()
        self._taken: list[Amounts] = []
        self._free_gpus = dict.fromkeys(gpus, 1.0)

    @contextlib.contextmanager
    def entered(self, need: Resources) -> Iterator[Claim]:
        """A stage's claim while it runs. UsageError for one that needs more than there is."""
        refuse_too_large(need, [self._whole], "this machine", ["CPU", "GPU", "memory"])
        with self._claims.entered(self._cost(need)) as claim:
            yield claim

    def _cost(self, need: Resources) -> Amounts:
        """A worker on part of a core takes a whole one. Where the user said how many there may be, each
        counts as one, and its memory is the user's affair."""
        cost = amounts(need)
        if self._workers is None:
            return cost | {"CPU": max(1.0, need.cpus)}
        return {"CPU": 1.0} | {name: cost[name] for name in ("GPU",) if name in cost}

    def _node(self) -> Amounts:
        return self._whole if self._workers is None else {**self._whole, "CPU": float(self._workers)}

    def share(self, claim: Claim) -> int:
        """How many workers the stage should have: one at least, also where there are more stages than
        cores."""
        return max(1, self._claims.share(claim, [self._node()]))

    def take(self, claim: Claim, have: int) -> tuple[str, ...] | None:
        """The GPUs of one more worker of a stage that has so many; None where others have what it would
        take."""
        with self._claims.lock:
            free = {n: whole - sum(t.get(n, 0.0) for t in self._taken) for n, whole in self._node().items()}
            crowded = not have and not self._claims.share(claim, [self._node()])
            gpus = self._gpus(claim.need.get("GPU", 0.0))
            if gpus is None or not (crowded or fits(claim.need, free)):
                return None
            for name in gpus:
                self._free_gpus[name] -= min(1.0, claim.need["GPU"])
            self._taken.append(claim.need)
            return gpus

    def give_back(self, claim: Claim, gpus: tuple[str, ...]) -> None:
        with self._claims.lock:
            self._taken.remove(claim.need)
            for name in gpus:
                self._free_gpus[name] += min(1.0, claim.need["GPU"])

    def _gpus(self, amount: float) -> tuple[str, ...] | None:
        """The freest GPUs for a worker that takes so much; none of them for one that takes none."""
        count, part = max(1, round(amount)) if amount else 0, min(1.0, amount)
        names = sorted(self._free_gpus, key=lambda name: -self._free_gpus[name])[:count]
        free = len(names) == count and all(self._free_gpus[name] + 1e-6 >= part for name in names)
        return tuple(names) if free else None

    def lack(self, claim: Claim) -> str:
        return lack(claim.need, [self._node()]).replace("the cluster", "this machine")


class _Processes:
    """The processes of one stage, as a crew's place."""

    queues = False

    def __init__(
        self, stage: Stage, question: Question, machine: Machine, claim: Claim, stopped: threading.Event
    ) -> None:
        self._stage, self._question, self._machine, self._claim = stage, question, machine, claim
        self._stopped = stopped
        self._processes: dict[Connection, _Process] = {}
        self._new: list[_Process] = []

    def room(self, have: int, present: int, wanted: int) -> int:
        if self._stopped.is_set():
            raise KeyboardInterrupt
        self._claim.wanted = wanted
        return self._machine.share(self._claim)

    def hire(self) -> "_Process | None":
        gpus = self._machine.take(self._claim, len(self._processes))
        if gpus is None:
            return None
        process = _Process(self._stage, self._question, gpus)
        self._processes[process.connection] = process
        self._new.append(process)
        return process

    def send(self, worker: "_Process", task: Task, commit: bool) -> None:
        worker.send(task, commit)

    def events(self, timeout_s: float) -> "list[Event[_Process]]":
        if self._new:  # its messages wait for it
            ready, self._new = self._new, []
            return [Event(worker=process, what=What.READY, text=socket.gethostname()) for process in ready]
        events = []
        for connection in wait(list(self._processes), timeout_s):
            assert isinstance(connection, Connection)
            process = self._processes[connection]
            answer = process.answer()
            what = What.DIED if answer is None else What.ANSWERED
            text = WORKER_DIED if answer is None else ""
            events.append(Event(worker=process, what=what, answer=answer, text=text))
        return events

    def dismiss(self, worker: "_Process") -> None:
        del self._processes[worker.connection]
        worker.close()
        self._machine.give_back(self._claim, worker.gpus)

    def lack(self) -> str:
        return self._machine.lack(self._claim)


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
        self._say((stage, question, logging.getLogger("pipeline").getEffectiveLevel()))

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
