"""Receipts on disk: what each task of a stage took, where it ran and what came of it.

In: the receipts of a running stage. Out: receipts/<time>-<run>-<stage>.parquet in the corpus, whole at every
instant, written when the stage begins and ends (however it ends) and every half minute in between: whoever
reads the corpus sees the stage at work, from any machine. They hold clocks and node names, so they are no
part of what makes two corpora equal, and nothing of any source: keys, counts and classes of reasons. Never:
an error of their own. A run whose receipts cannot be written goes on.
"""

import json
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.engine.runner import Executor, Receipt, RunSummary, StageStopped, ignored, run
from pipeline.engine.stage import Resources, Stage, Task
from pipeline.errors import StorageError
from pipeline.operation.reasons import reason_class
from pipeline.progress import Progress
from pipeline.storage import Storage, read_parquet

LOG = logging.getLogger(__name__)
FOLDER = "receipts"
EVERY_S = 30.0  # between two writes of a running stage
KEPT_RUNS = 1000  # when `framemill compact` deletes old ones
BUSIEST = 0.05  # and so long that writing takes no more than this share of the time
RUNNING, DONE, STOPPED, INTERRUPTED, FAILED = "running", "done", "stopped", "interrupted", "failed"
ABOUT = b"framemill"  # the key of what a file says of its stage, in its Parquet metadata
S, F64, I32, I64 = pa.string(), pa.float64(), pa.int32(), pa.int64()
COUNTS = pa.map_(S, I64)

RECEIPTS = pa.schema(  # receipts/<time>-<run>-<stage>.parquet: a row a task that ended
    [
        ("key", S),  # of the part that it makes
        ("node", S),  # host name of the machine it ran on
        ("started_s", F64),  # unix time, by that machine's clock
        ("seconds", F64),  # from there to its end
        ("tries", I32),  # how often it was begun
        ("lost", S),  # class of the reason why it has no part; null: it has one
        ("counts", COUNTS),  # the stage's own: ok, failed, …
        ("failures", COUNTS),  # its failed items by class of reason
        ("rows", I64),  # items it was given
        ("footage_s", F64),  # seconds of footage it was done with
        ("frames", I64),  # that were decoded, captioned or encoded
        ("tokens", I64),  # of the latents that were made
        ("bytes", I64),  # that were written
        ("input_bytes", I64),  # of the files it was given
    ]
)
AMOUNTS = ("rows", "footage_s", "frames", "tokens", "bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One stage of one run as its receipts show it. `outcome` is RUNNING until it ended, and for ever when
    its driver was killed: `updated_s` tells which. Times are unix times."""

    run: str
    stage: str
    started_s: float
    updated_s: float
    outcome: str
    tasks: int
    input_bytes: int | None
    resources: Resources
    receipts: pa.Table = field(repr=False)

    @property
    def ended(self) -> bool:
        return self.outcome != RUNNING

    @property
    def wall_s(self) -> float:
        return self.updated_s - self.started_s


class ReceiptLog:
    """Takes the receipts of one stage as they come, and commits them while it is open."""

    def __init__(
        self, storage: Storage, run_id: str, stage: Stage, tasks: Sequence[Task], every_s: float = EVERY_S
    ) -> None:
        self._storage, self._every_s, self._tasks = storage, every_s, tasks
        self._input_bytes = {task.key: _input_bytes(task) for task in tasks}
        self._started_s = time.time()
        sizes = [size for size in self._input_bytes.values() if size is not None]
        self._about: dict[str, Any] = {
            "run": run_id,
            "stage": stage.name,
            "started_s": self._started_s,
            "input_bytes": sum(sizes) if sizes else None,
            "resources": _as_dict(stage.resources),
        }
        self._path = f"{FOLDER}/{file_name(self._started_s, run_id, stage.name)}"
        self._lock, self._over = threading.Lock(), threading.Event()
        self._pending: list[Receipt] = []
        self._written = RECEIPTS.empty_table()
        self._losses: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._writer = threading.Thread(target=self._write_now_and_then, daemon=True)

    def add(self, receipt: Receipt) -> None:
        """Notes that a task ended."""
        with self._lock:
            self._pending.append(receipt)
        self._failures.update(receipt.failures)
        if receipt.error:
            self._losses[reason_class(receipt.error)] += 1

    def watching(self, progress: Progress) -> Progress:
        """The same progress, which also says by class why items failed and tasks were lost."""

        def report(done: int, total: int, facts: Mapping[str, object]) -> None:
            classes = {"failures": dict(self._failures), "losses": dict(self._losses)}
            progress(done, total, {**facts, **{name: of for name, of in classes.items() if of}})

        return report

    def __enter__(self) -> Self:
        self._write(RUNNING)
        self._writer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._writer.join()
        if isinstance(error, StageStopped):
            self.correct(error.summary)
        self._write(_outcome(error))

    def correct(self, summary: RunSummary) -> RunSummary:
        """Takes over what the end of the stage found lost: tasks without a receipt, or without their part."""
        lost = {receipt.key: receipt for receipt in summary.lost}
        with self._lock:
            self._flush()
            others = pc.invert(pc.is_in(self._written["key"], value_set=pa.array(sorted(lost), S)))
            self._written = self._written.filter(others)
            self._pending = list(lost.values())
        return summary

    def _write_now_and_then(self) -> None:
        wait_s = self._every_s
        while not self._over.wait(wait_s):
            before_s = time.monotonic()
            self._write(RUNNING)
            wait_s = max(self._every_s, (time.monotonic() - before_s) / BUSIEST)

    def _write(self, outcome: str) -> None:
        with self._lock:
            self._flush()
            table = self._written
        about = {
            **self._about,
            "tasks": len(self._tasks),  # of a feed, so far
            "updated_s": time.time(),
            "outcome": outcome,
        }
        _commit(self._storage, self._path, table, about)

    def _flush(self) -> None:
        rows = [_row(receipt, self._input_bytes.get(receipt.key)) for receipt in self._pending]
        self._written = pa.concat_tables([self._written, pa.Table.from_pylist(rows, schema=RECEIPTS)])
        self._pending = []


def run_recorded(
    stage: Stage,
    tasks: Sequence[Task],
    executor: Executor,
    storage: Storage,
    run_id: str,
    progress: Progress,
    on_receipt: Callable[[Receipt], None] = ignored,
) -> RunSummary:
    """`run` (pipeline/engine/runner.py), whose receipts are kept; without tasks it writes nothing."""
    if not tasks:
        return run(stage, tasks, executor, storage.root, progress)

    def keep(receipt: Receipt) -> None:
        log.add(receipt)
        on_receipt(receipt)

    with ReceiptLog(storage, run_id, stage, tasks) as log:
        summary = run(stage, tasks, executor, storage.root, log.watching(progress), keep)
        return log.correct(summary)


def keep_receipt(storage: Storage, run_id: str, summary: RunSummary) -> None:
    """Keeps one receipt of a stage that this process has just done itself, without workers."""
    now_s = time.time()
    started_s = now_s - summary.seconds
    receipt = Receipt(
        key=summary.stage,
        seconds=summary.seconds,
        counts=summary.counts,
        node=socket.gethostname(),
        started_s=started_s,
    )
    about = {
        "run": run_id,
        "stage": summary.stage,
        "started_s": started_s,
        "updated_s": now_s,
        "outcome": DONE,
        "tasks": 1,
        "input_bytes": None,
        "resources": _as_dict(Resources()),
    }
    rows = pa.Table.from_pylist([_row(receipt, None)], schema=RECEIPTS)
    _commit(storage, f"{FOLDER}/{file_name(started_s, run_id, summary.stage)}", rows, about)


def _commit(storage: Storage, path: str, receipts: pa.Table, about: Mapping[str, Any]) -> None:
    try:
        storage.write_bytes(path, to_parquet(receipts, about))
    except (StorageError, OSError) as error:
        LOG.warning("receipts of %s cannot be written: %s", about["stage"], error)


def _as_dict(need: Resources) -> dict[str, float]:
    return {"cpus": need.cpus, "gpus": need.gpus, "memory_gb": need.memory_gb}


def file_name(started_s: float, run_id: str, stage: str) -> str:
    """Names in order are stages in the order of their beginnings."""
    begun = datetime.fromtimestamp(started_s, UTC)
    return f"{begun:%Y%m%dT%H%M%S}{begun.microsecond // 1000:03d}Z-{run_id}-{stage}.parquet"


def to_parquet(receipts: pa.Table, about: Mapping[str, Any]) -> pa.Buffer:
    """A receipts file: the rows, and what it says of the stage in the metadata."""
    sink = pa.BufferOutputStream()
    pq.write_table(receipts.replace_schema_metadata({ABOUT: json.dumps(about)}), sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes) -> StageRun:
    """What `to_parquet` wrote; columns that it lacks are null."""
    table = read_parquet(pa.BufferReader(data))
    about = json.loads(table.schema.metadata[ABOUT])
    for column in RECEIPTS:
        if column.name not in table.column_names:
            table = table.append_column(column.name, pa.nulls(table.num_rows, column.type))
    about["resources"] = Resources(**about["resources"])
    return StageRun(**about, receipts=table.select(RECEIPTS.names).cast(RECEIPTS))


class Receipts:
    """The receipts of a corpus, read again and again: files of stages that ended are read once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._ended: dict[str, StageRun] = {}

    def read(self) -> list[StageRun]:
        """Every stage of every run, in the order of their beginnings."""
        names = self._storage.list(FOLDER, ".parquet")
        runs = {name: self._ended.get(name) or self._read(name) for name in names}
        self._ended = {name: stage for name, stage in runs.items() if stage and stage.ended}
        return [stage for stage in runs.values() if stage]

    def _read(self, name: str) -> StageRun | None:
        try:
            return from_parquet(self._storage.read_bytes(f"{FOLDER}/{name}"))
        except (StorageError, KeyError, ValueError, TypeError) as error:  # gone meanwhile, or not one of ours
            LOG.info("%s/%s is not read: %s", FOLDER, name, error)
            return None


def old_receipts(storage: Storage, keep_runs: int = KEPT_RUNS) -> list[str]:
    """Paths of the receipts of all but the newest runs. Without them metrics and costs count from the oldest
    that is left."""
    names = storage.list(FOLDER, ".parquet")
    runs = list(dict.fromkeys(_run_of(name) for name in reversed(names)))
    return [f"{FOLDER}/{name}" for name in names if _run_of(name) in runs[keep_runs:]]


def _outcome(error: BaseException | None) -> str:
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    return DONE if error is None else STOPPED if isinstance(error, StageStopped) else FAILED


def _run_of(name: str) -> str:
    return name.split("-")[1] if name.count("-") > 1 else name


def _row(receipt: Receipt, input_bytes: int | None) -> dict[str, Any]:
    return {
        "key": receipt.key,
        "node": receipt.node or None,
        "started_s": receipt.started_s or None,
        "seconds": receipt.seconds,
        "tries": receipt.tries,
        "lost": reason_class(receipt.error) if receipt.error else None,
        "counts": sorted(receipt.counts.items()),
        "failures": sorted(receipt.failures.items()),
        **{name: _as(name, receipt.amounts[name]) for name in AMOUNTS if name in receipt.amounts},
        "input_bytes": input_bytes,
    }


def _as(name: str, amount: float) -> float | int:
    return amount if name == "footage_s" else int(amount)


def _input_bytes(task: Task) -> int | None:
    if "size_bytes" not in task.inputs.column_names:
        return None
    return int(pc.sum(task.inputs["size_bytes"]).as_py() or 0)
