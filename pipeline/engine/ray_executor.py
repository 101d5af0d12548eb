"""The same executor on Ray Data: the only file that imports ray.

In: a stage and its tasks. Out: receipts as tasks end. One task is one block; each worker is an actor
that sets the stage up once and commits its parts itself, so only small receipts travel. What the death of a
worker costs: pipeline/engine/culprits.py.
"""

import json
import logging
import os
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import errors
from pipeline.ending import undisturbed
from pipeline.engine.answers import Answer, AnsweringWorker
from pipeline.engine.culprits import Ended, receipts
from pipeline.engine.proof import Question, asked
from pipeline.engine.resources import let_waiting_threads_sleep, show_gpus
from pipeline.engine.runner import Receipt
from pipeline.engine.stage import Resources, Stage, Task

LOG = logging.getLogger(__name__)
PROOF_S = 120.0  # a node that has not answered by then is judged by its workers, which ask again
DIED = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)  # not a lost node or cluster


class _TaskWorker:
    """A worker as Ray Data calls it: a batch of one task in, its answer as JSON out."""

    def __init__(self, stage: Stage, question: Question) -> None:
        self._worker = _worker(stage, question)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        with pa.ipc.open_stream(batch["inputs"][0]) as stream:
            task = Task(key=str(batch["key"][0]), inputs=stream.read_all())
        return {"answer": [json.dumps(self._worker.run(task).to_dict())]}


class RayExecutor:
    """Runs on the cluster at $RAY_ADDRESS, else on a Ray started on this machine."""

    def __init__(self, workers: int | None = None) -> None:
        self._workers = workers
        self._proven: set[tuple[str, str]] = set()  # (root, node) that share the driver's storage

    def gpus(self) -> float:
        _start()
        return float(ray.cluster_resources().get("GPU", 0.0))

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        _start()
        with asked(root) as question:
            try:
                self._prove(question)
                pooled, alone = partial(self._pooled, stage, question), partial(_alone, stage, question)
                yield from receipts(tasks, pooled, alone)
            except KeyboardInterrupt:
                ray.shutdown()  # no worker commits anything after this run has let go of the corpus
                raise

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

    def _pooled(self, stage: Stage, question: Question, tasks: Sequence[Task]) -> Iterator[Answer]:
        """Answers of a pool of workers; none for the tasks that a dying worker took with it."""
        need = stage.resources
        items = [{"key": task.key, "inputs": _ipc(task.inputs)} for task in tasks]
        answers = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _TaskWorker,
            fn_constructor_args=(stage, question),
            batch_size=1,
            compute=ActorPoolStrategy(size=min(len(items), self._workers or _fit(need))),
            num_cpus=need.cpus,
            num_gpus=need.gpus,
            memory=_bytes(need),
            max_restarts=-1,
            max_task_retries=0,  # Ray Data would try for ever
        )
        for row in answers.iter_rows():
            yield Answer.from_dict(json.loads(row["answer"]))


def _alone(
    stage: Stage, question: Question, tasks: Sequence[Task], *, commit: bool = True
) -> Iterator[Ended]:
    """How the tasks ended, a process a task."""
    need = stage.resources
    run_one = ray.remote(
        num_cpus=need.cpus, num_gpus=need.gpus, memory=_bytes(need), max_retries=0, max_calls=1
    )(_run_one)
    waiting = {run_one.remote(stage, question, task, commit): number for number, task in enumerate(tasks)}
    while waiting:
        (done,), _ = ray.wait(list(waiting), num_returns=1)
        number = waiting.pop(done)
        try:
            yield Ended(number=number, answer=Answer.from_dict(ray.get(done)))
        except ray.exceptions.RayError as error:
            yield Ended(number=number, died=isinstance(error, DIED))


def _run_one(stage: Stage, question: Question, task: Task, commit: bool) -> dict[str, Any]:
    return _worker(stage, question).run(task, commit=commit).to_dict()


def _answer(question: Question) -> str | errors.StorageError:
    """A node's answer, or why it has none. Ray hands back exceptions only as errors of its own."""
    try:
        return question.answer()
    except errors.StorageError as error:
        return error


def _worker(stage: Stage, question: Question) -> AnsweringWorker:
    """A worker in a process of Ray's. One that asked for no GPU sees none: Ray shows it all of them."""
    if not stage.resources.gpus:
        show_gpus(os.environ, ())
    return AnsweringWorker(stage, question)


def _start() -> None:
    """Joins or starts Ray at the first task, so that a run with nothing to do costs nothing."""
    if not ray.is_initialized():
        let_waiting_threads_sleep(os.environ)  # workers set it too, but here they have it from their start
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what matters comes back in receipts
        os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")  # it takes SIGTERM for a crash
        # Of a Ray that starts here: its default of 15 leaves a worker 3 % of a core that somebody else uses.
        os.environ.setdefault("RAY_worker_niceness", "0")
        try:
            settings = {"include_dashboard": False, "logging_level": logging.ERROR, "log_to_driver": False}
            undisturbed(partial(ray.init, **settings))
        except Exception as error:  # Ray has several, of no common kind
            address = os.environ.get("RAY_ADDRESS")
            where = f"join the Ray at {address}" if address else "start Ray here"
            raise errors.UsageError(
                f"cannot {where}: {str(error).partition(chr(10))[0]}",
                fix="check RAY_ADDRESS and, where the cluster asks for a token, RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN_PATH; or run with --executor local",
            ) from error
    # Ray 2.60 warns of `**ray_remote_args` and has no other way yet to say max_restarts to a pool of actors.
    warnings.filterwarnings("ignore", message=".ray_remote_args. is deprecated")
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a lost task is named by the runner, not fatal
    logging.getLogger("ray.data").setLevel(logging.ERROR)


def _bytes(need: Resources) -> int:
    return int(need.memory_gb * 2**30)


def _fit(need: Resources) -> int:
    """How many such workers the cluster holds."""
    have = ray.cluster_resources()
    if not have.get("CPU"):
        return 1  # a head without CPUs: nodes come with the work
    amounts = {"CPU": need.cpus, "GPU": need.gpus, "memory": _bytes(need)}
    fit = int(min(have.get(name, 0.0) // amount for name, amount in amounts.items() if amount))
    if fit < 1:
        raise errors.UsageError(
            f"a worker needs {need.cpus:g} CPUs, {need.gpus:g} GPUs and {need.memory_gb:g} GB of memory",
            expected=f"a cluster with them; this one has {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} "
            f"GPUs and {have.get('memory', 0) / 2**30:.1f} GB",
            fix="add a node, or run with --executor local",
        )
    return fit


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table.combine_chunks())
    return sink.getvalue().to_pybytes()
