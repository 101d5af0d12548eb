"""The same executor on a Ray cluster: the only file that imports ray.

In: a stage and its tasks. Out: receipts as tasks end. Each worker is an actor that sets the stage up once and
commits its parts itself, so only small receipts travel. Who gets which task: pipeline/engine/crew.py. What
the death of a worker costs: pipeline/engine/culprits.py.

Not Ray Data: tasks are few and large and their answers small, so that it has nothing to stream, and its pool
of actors tries a task that killed its worker for ever or never, does not tell a lost node from a deadly row,
and costs 7.5 ms of the driver a task. Here the driver holds at most two tasks a worker in the object store,
and workers that do not fit yet stay with Ray as demand, which an autoscaler sees.
"""

import contextlib
import logging
import os
import re
import socket
import sys
import threading
import time
from collections.abc import Generator, Sequence
from functools import partial
from typing import Any

import ray
from ray.util.metrics import Counter, Histogram
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import errors
from pipeline.ending import undisturbed
from pipeline.engine import measures
from pipeline.engine.answers import Answer, AnsweringWorker
from pipeline.engine.crew import Crew, Event, What
from pipeline.engine.culprits import Ended, receipts
from pipeline.engine.proof import Question, asked
from pipeline.engine.resources import let_waiting_threads_sleep, show_gpus
from pipeline.engine.runner import Beat, Receipt
from pipeline.engine.shares import Amounts, Claim, Claims, amounts, lack, refuse_too_large
from pipeline.engine.stage import Resources, Stage, Task

LOG = logging.getLogger(__name__)
PROOF_S = 120.0  # a node that has not answered by then is judged by its workers, which ask again
REACHED_S = 10.0  # to connect to a head; ray.init asks one that is not there for many minutes
LOOK_S = 2.0  # how old a view of the nodes may be
STARTING = threading.Lock()
ADVICE = r"\.? Ensure that |\n"  # in what Ray says of a token, and after its first line
NODE_ALIVE = "worker process has died"  # what Ray says of an actor's death that its node's raylet reported


class RayExecutor:
    """Runs on the cluster at $RAY_ADDRESS, else on a Ray started on this machine."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._proven: set[tuple[str, str]] = set()  # (root, node) that share the driver's storage
        self._proving, self._stopped = threading.Lock(), threading.Event()
        self._cluster = _Cluster(self._stopped)
        self._counters = _Counters()

    def gpus(self) -> float:
        _start()
        return float(ray.cluster_resources().get("GPU", 0.0))

    def stop(self) -> None:
        """Every stage that is executed ends with KeyboardInterrupt, wherever its thread waits."""
        self._stopped.set()

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        _start()
        need = stage.resources
        refuse_too_large(need, self._cluster.nodes(), "any node", ["CPU", "memory"])  # GPUs are waited for
        with asked(root) as question, self._cluster.claims.entered(amounts(need)) as claim:
            there = ray.put((stage, question, logging.getLogger("pipeline").getEffectiveLevel()))

            def crew(tasks: Sequence[Task], **how: Any) -> Generator[Ended | Beat]:
                place = _Actors(need, there, self._cluster, claim, self._workers)
                return Crew(place, stage, tasks, **how).run()

            try:
                with self._proving:
                    self._prove(question)
                for receipt in receipts(tasks, crew, partial(crew, keep=False)):
                    if isinstance(receipt, Receipt):
                        self._counters.count(stage.name, receipt)
                    yield receipt
            except KeyboardInterrupt:
                self.stop()  # stages beside this one too
                raise
            finally:
                if self._stopped.is_set() and len(self._cluster.claims.all) == 1:
                    ray.shutdown()  # no worker commits anything after this run has let go of the corpus

    def _prove(self, question: Question) -> None:
        """Lets each node that may run tasks answer, but for those that have; StorageError for one that does
        not share the storage. On a node that joins later each worker reads the question itself."""
        waiting = {}
        refusals: list[errors.StorageError] = []
        for node in ray.nodes():
            key = (question.root, node["NodeID"])
            if node["Alive"] and node["Resources"].get("CPU") and key not in self._proven:
                there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                ask = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_answer)
                waiting[ask.remote(question)] = (key, f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})")
        if not waiting:
            return
        answered, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=PROOF_S)
        for ref in answered:
            key, name = waiting[ref]
            try:
                answer = ray.get(ref)
            except ray.exceptions.RayError as fault:  # gone again, or it cannot run this code
                LOG.info("the node %s did not answer: %s", name, fault)
                continue
            if isinstance(answer, errors.StorageError):
                refusals.append(answer)
                continue
            try:
                question.hear(answer, name)
                self._proven.add(key)
            except errors.StorageError as error:
                refusals.append(error)
        if refusals:  # raised when every other answer is taken in, so that none is left lying there
            raise refusals[0]


class _Counters:
    """Ray's own metrics of what tasks did, which its nodes offer to Prometheus where they were started with
    ray[default]; without it they lead nowhere."""

    def __init__(self) -> None:
        self._counters: dict[str, Counter] = {}
        self._seconds: Histogram | None = None

    def count(self, stage: str, receipt: Receipt) -> None:
        if self._seconds is None:
            about = "How long a task took where it ran."
            self._seconds = Histogram(
                measures.SECONDS, about, boundaries=list(measures.BOUNDS_S), tag_keys=("stage",)
            )
        self._seconds.observe(receipt.seconds, tags={"stage": stage})
        for name, labels, amount in measures.increments(stage, receipt):
            if name not in self._counters:
                self._counters[name] = Counter(name, tag_keys=measures.LABELS[name])
            self._counters[name].inc(amount, tags=labels)


class _Cluster:
    """What the nodes have, for the stages that run at the same time."""

    def __init__(self, stopped: threading.Event) -> None:
        self.claims, self.stopped = Claims(), stopped
        self._nodes: list[Amounts] = []
        self._seen_s = float("-inf")

    def nodes(self) -> list[Amounts]:
        """What each living node with CPUs has, at most LOOK_S old."""
        with self.claims.lock:
            if time.monotonic() - self._seen_s > LOOK_S:
                living = [node["Resources"] for node in ray.nodes() if node["Alive"]]
                self._nodes = [
                    {"CPU": has["CPU"], "GPU": has.get("GPU", 0.0), "memory": has.get("memory", 0.0) / 2**30}
                    for has in living
                    if has.get("CPU")
                ]
                self._seen_s = time.monotonic()
            return self._nodes

    def room(self, claim: Claim, need: Resources) -> int:
        """How many workers a stage may have, those included that are not there yet. Where every stage has its
        share, each asks for as many again: that is the demand which makes a cluster grow, and what begins
        on a new node at once."""
        nodes = self.nodes()
        with self.claims.lock:
            counts = [self.claims.share(other, nodes) for other in self.claims.all]
            content = all(c.present >= n for c, n in zip(self.claims.all, counts, strict=True))
            share = counts[self.claims.all.index(claim)]
        return max(share + (max(1, share) if content else 0), need.min_workers, 1)


class _TaskWorker:
    """A worker, as an actor. One that asked for no GPU sees none: Ray shows it all of them."""

    def __init__(self, orders: tuple[Stage, Question, int]) -> None:
        stage, question, level = orders
        if not stage.resources.gpus:
            show_gpus(os.environ, ())
        self._node = f"{socket.gethostname()} ({ray.get_runtime_context().get_node_id()[:8]})"
        self._worker = AnsweringWorker(stage, question, self._node, level)

    def node(self) -> str:
        return self._node

    def run(self, task: Task, commit: bool) -> dict[str, Any]:
        return self._worker.run(task, commit=commit).to_dict()


class _Actors:
    """The actors of one stage, as a crew's place."""

    queues = True

    def __init__(
        self, need: Resources, orders: Any, cluster: _Cluster, claim: Claim, workers: int | None
    ) -> None:
        self._need, self._orders, self._cluster, self._claim = need, orders, cluster, claim
        self._most = workers or sys.maxsize
        self._kind = ray.remote(
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            memory=int(need.memory_gb * 2**30),
            max_restarts=0,
            max_task_retries=0,
        )(_TaskWorker)
        self._awaited: dict[Any, tuple[Any, bool]] = {}  # what Ray will give → (its worker, is it an answer)

    def room(self, have: int, present: int, wanted: int) -> int:
        if self._cluster.stopped.is_set():
            raise KeyboardInterrupt
        self._claim.wanted, self._claim.present = min(wanted, self._most), present
        return min(self._most, self._cluster.room(self._claim, self._need))

    def hire(self) -> Any:
        actor = self._kind.remote(self._orders)
        self._awaited[actor.node.remote()] = (actor, False)
        return actor

    def send(self, worker: Any, task: Task, commit: bool) -> None:
        self._awaited[worker.run.remote(task, commit)] = (worker, True)

    def events(self, timeout_s: float) -> list[Event[Any]]:
        if not self._awaited:
            time.sleep(timeout_s)
            return []
        first, _ = ray.wait(list(self._awaited), num_returns=1, timeout=timeout_s)
        if not first:
            return []
        done, _ = ray.wait(list(self._awaited), num_returns=len(self._awaited), timeout=0)
        return [self._event(ref) for ref in done]

    def _event(self, ref: Any) -> Event[Any]:
        worker, is_answer = self._awaited.pop(ref)
        try:
            value = ray.get(ref)
        except ray.exceptions.RayError as error:
            what = What.DIED if _node_lives(error) else What.LOST
            return Event(worker=worker, what=what, text=" ".join(str(error).split()))
        if is_answer:
            return Event(worker=worker, what=What.ANSWERED, answer=Answer.from_dict(value))
        return Event(worker=worker, what=What.READY, text=value)

    def dismiss(self, worker: Any) -> None:
        self._awaited = {ref: its for ref, its in self._awaited.items() if its[0] is not worker}
        with contextlib.suppress(ray.exceptions.RayError):
            ray.kill(worker)

    def lack(self) -> str:
        return lack(self._claim.need, self._cluster.nodes())


def _node_lives(error: ray.exceptions.RayError) -> bool:
    """Whether an actor's end was its own. A node that is gone is noticed by the driver before Ray knows why
    its actors are unreachable; a death that Ray can explain was reported by the node itself."""
    if isinstance(error, ray.exceptions.ActorDiedError):
        return not error.preempted and (error.actor_init_failed or NODE_ALIVE in str(error))
    return not isinstance(error, ray.exceptions.ActorUnavailableError)


def _answer(question: Question) -> str | errors.StorageError:
    """A node's answer, or why it has none. Ray hands back exceptions only as errors of its own."""
    try:
        return question.answer()
    except errors.StorageError as error:
        return error


def _start() -> None:
    """Joins or starts Ray at the first task, so that a run with nothing to do costs nothing."""
    with STARTING:
        if not ray.is_initialized():
            _keep_stdout_clean()
            _join()


def _join() -> None:
    """UsageError in one line where there is no cluster, or none that takes this command."""
    let_waiting_threads_sleep(os.environ)  # workers set it too, but here they have it from their start
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it takes SIGTERM for a crash
    # Of a Ray that starts here: its default of 15 leaves a worker 3 % of a core that somebody else uses.
    os.environ.setdefault("RAY_worker_niceness", "0")
    try:
        settings = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
        if at := re.fullmatch(r"([\w.-]+):(\d+)", os.environ.get("RAY_ADDRESS", "")):
            socket.create_connection((at[1], int(at[2])), REACHED_S).close()
            _ask(at[0])
        undisturbed(partial(ray.init, **settings))
    except Exception as error:  # Ray has several, of no common kind
        address = os.environ.get("RAY_ADDRESS")
        where = f"join the Ray at {address}" if address else "start Ray here"
        raise errors.UsageError(
            f"cannot {where}: {re.split(ADVICE, str(error))[0]}",
            fix="check RAY_ADDRESS and, where the cluster asks for a token, RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH; or run with --executor local",
        ) from error


def _ask(address: str) -> None:
    """Raises what the head has against this command, such as a wrong token. ray.init asks twenty times for
    that, in as many seconds and as many lines on stderr, and then says only that it failed."""
    try:
        from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    except ImportError:  # a Ray without tokens
        return
    ensure_token_if_auth_enabled(create_token_if_missing=False)
    own, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        ray._raylet.GcsClient(address=address)
    finally:
        os.dup2(own, 2)
        os.close(own)
        os.close(nowhere)


def _keep_stdout_clean() -> None:
    """What Ray prints goes to stderr or to the log: a run that loses nodes must not write dumps of raylets
    into the JSON on stdout. Its C++ writes to file descriptor 1, its listener of errors to sys.stdout."""
    out, is_own = sys.stdout, sys.stdout is sys.__stdout__
    if is_own and out is not None and out.fileno() == 1:
        out.flush()
        own = os.dup(1)
        os.dup2(2, 1)
        sys.stdout = os.fdopen(own, "w", buffering=1, encoding=out.encoding, errors=out.errors)
    ray._private.worker.print_to_stdstream = _to_log


def _to_log(data: dict[str, Any], *_: Any, **__: Any) -> None:
    LOG.info("Ray (%s): %s", data.get("pid"), "\n".join(data.get("lines", ())))
