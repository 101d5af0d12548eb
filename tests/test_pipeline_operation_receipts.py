"""Receipts on disk: whole at every instant, of every end of a stage, and without a trace of a source."""

import re
import time
from collections.abc import Generator, Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.engine.runner import Executor, LocalExecutor, Receipt, StageStopped
from pipeline.engine.stage import Output, Resources, Stage, Task, TaskResult
from pipeline.errors import ConfigError, MediaError, StorageError
from pipeline.operation.receipts import (
    FOLDER,
    RECEIPTS,
    ReceiptLog,
    Receipts,
    StageRun,
    file_name,
    from_parquet,
    old_receipts,
    run_recorded,
    to_parquet,
)
from pipeline.operation.totals import added, most_at_once, totals
from pipeline.progress import silent
from pipeline.storage import Storage


class Copying:
    """Counts its rows; raises what its `faults` say of a task's word."""

    name, version = "copying", 1
    resources = Resources(cpus=2.0, memory_gb=1.5)

    def __init__(self, faults: dict[str, BaseException] | None = None) -> None:
        self.faults = faults or {}

    def setup(self) -> None:
        pass

    def process(self, task: Task) -> TaskResult:
        word = task.inputs["uri"][0].as_py()
        if word in self.faults:
            raise self.faults[word]
        return TaskResult(
            outputs=(Output(path=f"parts/{task.key}", data=word.encode()),),
            counts={"ok": 1, "failed": 2},
            amounts={"footage_s": 1.5, "tokens": 7},
            failures={"damaged": 2},
        )


def tasks_of(*words: str) -> list[Task]:
    return [
        Task(key=f"k-{word}", inputs=pa.table({"uri": [word], "size_bytes": [10 * (n + 1)]}))
        for n, word in enumerate(words)
    ]


def recorded(root: Path, stage: Stage, tasks: Sequence[Task], executor: Executor | None = None) -> StageRun:
    """The receipts that a run of the stage leaves, whatever its end."""
    with suppress(StorageError, ConfigError, KeyboardInterrupt):
        run_recorded(stage, tasks, executor or LocalExecutor(), Storage(str(root)), "00000001", silent)
    return Receipts(Storage(str(root))).read()[-1]


def test_a_stage_leaves_what_each_task_took(tmp_path: Path) -> None:
    before_s = time.time()
    left = recorded(tmp_path, Copying(), tasks_of("abc", "de"))
    assert (left.run, left.stage, left.outcome, left.tasks) == ("00000001", "copying", "done", 2)
    assert left.resources == Copying.resources
    assert before_s <= left.started_s <= left.updated_s <= time.time()
    rows = left.receipts.to_pylist()
    assert [row["key"] for row in rows] == ["k-abc", "k-de"]
    assert all(left.started_s <= row["started_s"] <= time.time() and row["node"] for row in rows)
    assert [(row["rows"], row["bytes"], row["input_bytes"], row["lost"]) for row in rows] == [
        (1, 3, 10, None),
        (1, 2, 20, None),
    ]
    sums = totals(left)
    assert (sums.ended, sums.lost, sums.counts) == (2, 0, {"failed": 4, "ok": 2})
    assert (sums.failures, sums.amounts["tokens"], sums.amounts["footage_s"]) == ({"damaged": 4}, 14, 3.0)
    assert (sums.workers, sums.waiting_bytes) == (1, 0)
    assert sums.busy_share is not None
    assert 0 <= sums.busy_share <= 1
    assert "frames" not in sums.amounts  # not counted is not zero


def test_a_stage_without_tasks_leaves_nothing(tmp_path: Path) -> None:
    run_recorded(Copying(), [], LocalExecutor(), Storage(str(tmp_path)), "1", silent)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fault", "outcome", "losses"),
    [
        (KeyboardInterrupt(), "interrupted", {}),
        (ConfigError("no"), "failed", {}),
        (MediaError("no frame at 3.000 s"), "done", {"damaged": 1}),
        (StorageError("cannot write /a b/c: access denied"), "done", {"access denied": 1}),
    ],
)
def test_every_end_of_a_stage_is_written(
    tmp_path: Path, fault: BaseException, outcome: str, losses: dict[str, int]
) -> None:
    left = recorded(tmp_path, Copying({"b": fault}), tasks_of("a", "b", "c"))
    assert (left.outcome, totals(left).losses) == (outcome, losses)
    assert left.receipts["key"][0].as_py() == "k-a"
    assert totals(left).ended == (3 if losses else 1)


def test_a_stopped_stage_says_which_tasks_were_never_tried(tmp_path: Path) -> None:
    words = [f"w{n}" for n in range(8)]
    stage = Copying({word: StorageError(f"cannot read /x/{word}: access denied") for word in words})
    with pytest.raises(StageStopped):
        run_recorded(stage, tasks_of(*words), LocalExecutor(), Storage(str(tmp_path)), "1", silent)
    (left,) = Receipts(Storage(str(tmp_path))).read()
    assert left.outcome == "stopped"
    assert totals(left).losses == {"access denied": 5, "not tried": 3}
    assert totals(left).ended == left.tasks == 8


def test_tasks_that_no_receipt_came_of_are_lost(tmp_path: Path) -> None:
    class Losing(LocalExecutor):
        def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
            yield from super().execute(stage, tasks[1:], root)

    left = recorded(tmp_path, Copying(), tasks_of("a", "b"), Losing())
    assert totals(left).losses == {"its worker died": 1}


def test_a_running_stage_is_seen_from_elsewhere(tmp_path: Path) -> None:
    """Also while no task ends: the time of the last word moves on."""
    storage = Storage(str(tmp_path))
    with ReceiptLog(storage, "1", Copying(), tasks_of("a", "b"), every_s=0.05) as log:
        (first,) = Receipts(storage).read()
        assert (first.outcome, first.tasks, first.receipts.num_rows) == ("running", 2, 0)
        assert totals(first).waiting_bytes == 30
        log.add(Receipt(key="k-a", error="cannot read s3://b/Käfer.mp4: access denied"))
        deadline_s = time.monotonic() + 20
        reader, last = Receipts(storage), first
        while last.receipts.num_rows == 0 and time.monotonic() < deadline_s:
            time.sleep(0.02)
            (last,) = reader.read()
        assert totals(last).losses == {"access denied": 1}
        assert last.updated_s > first.updated_s
    (ended,) = reader.read()
    assert ended.outcome == "done"


def test_progress_says_why_by_class(tmp_path: Path) -> None:
    facts: list[dict[str, object]] = []
    stage = Copying({"b": StorageError("cannot write /a/b: [Errno 28] No space left on device")})
    storage = Storage(str(tmp_path))
    run_recorded(
        stage, tasks_of("a", "b"), LocalExecutor(), storage, "1", lambda _, __, f: facts.append(dict(f))
    )
    assert "failures" not in facts[0]
    assert facts[1]["failures"] == {"damaged": 2}
    assert facts[2]["losses"] == {"no space left on device": 1}
    assert facts[2]["lost"] == 1


def test_receipts_hold_nothing_of_a_source(tmp_path: Path) -> None:
    names = ("/data/Käfer one.mp4", "s3://bucket/secret.png")
    faults: dict[str, BaseException] = {names[1]: StorageError(f"cannot read {names[1]}: access denied")}
    stage, tasks = Copying(faults), tasks_of(*names)
    tasks = [Task(key=f"{n:016x}", inputs=task.inputs) for n, task in enumerate(tasks)]
    recorded(tmp_path, stage, tasks)
    (path,) = (tmp_path / FOLDER).iterdir()
    text = str(pq.read_table(path).to_pylist()) + str(pq.read_schema(path).metadata)
    assert not re.search("Käfer|secret|/data|s3:", text)


def test_receipts_that_cannot_be_written_cost_nothing_else(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    summary = run_recorded(Copying(), tasks_of("a"), LocalExecutor(), Storage(str(tmp_path)), "1", silent)
    assert summary.counts["ok"] == 1
    assert not summary.lost


def test_files_of_stages_that_ended_are_read_once(tmp_path: Path) -> None:
    recorded(tmp_path, Copying(), tasks_of("a"))
    storage = Storage(str(tmp_path))
    reader = Receipts(storage)
    (first,) = reader.read()
    (path,) = (tmp_path / FOLDER).iterdir()
    path.write_bytes(b"no longer read")
    assert reader.read()[0] is first
    assert Receipts(storage).read() == []  # a file that is none of ours is passed over


def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for number in range(5):
        for stage in ("analyze", "caption"):
            about = {
                "run": f"{number}",
                "stage": stage,
                "started_s": 0.0,
                "updated_s": 0.0,
                "outcome": "done",
            }
            about |= {"tasks": 0, "input_bytes": None, "resources": {}}
            name = file_name(1.7e9 + 60 * number, f"{number}", stage)
            storage.write_bytes(f"{FOLDER}/{name}", to_parquet(RECEIPTS.empty_table(), about).to_pybytes())
    old = old_receipts(storage, keep_runs=2)
    assert len(old) == 6
    storage.delete_all(old)
    assert [run.run for run in Receipts(storage).read()] == ["3", "3", "4", "4"]
    assert old_receipts(storage, keep_runs=2) == []


def test_older_receipts_lack_columns() -> None:
    rows = pa.table({"key": ["a"], "seconds": [1.0], "tries": pa.array([1], pa.int32())})
    about = {"run": "1", "stage": "s", "started_s": 0.0, "updated_s": 2.0, "outcome": "done", "tasks": 1}
    about |= {"input_bytes": None, "resources": {"cpus": 1.0, "gpus": 0.0, "memory_gb": 2.0}}
    sums = totals(from_parquet(to_parquet(rows, about).to_pybytes()))
    assert (sums.busy_s, sums.workers, sums.busy_share, sums.amounts) == (1.0, None, None, {})


def test_how_many_ran_at_once() -> None:
    def most(*spans: tuple[float, float]) -> int | None:
        starts = pa.chunked_array([[start for start, _ in spans]], pa.float64())
        return most_at_once(starts, pa.chunked_array([[end - start for start, end in spans]], pa.float64()))

    assert most((0, 1), (1, 2), (2, 3)) == 1
    assert most((0, 2), (1, 3), (2, 4)) == 2
    assert most((0, 9), (1, 2), (3, 4), (3.5, 5)) == 3
    assert most() is None
    counts = pa.chunked_array([[[("a", 1)], []], [[("a", 2), ("b", 3)]]], pa.map_(pa.string(), pa.int64()))
    assert added(counts) == {"a": 3, "b": 3}
