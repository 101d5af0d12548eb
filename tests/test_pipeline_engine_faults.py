"""Faults of the environment in the engine: the breaker, parts that nobody sees, disks that are not shared."""

import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.pool import PoolExecutor
from pipeline.engine.proof import asked
from pipeline.engine.runner import (
    FAULTS_IN_A_ROW,
    NOT_TRIED,
    Executor,
    LocalExecutor,
    Receipt,
    StageStopped,
    run,
)
from pipeline.engine.stage import Output, Resources, Stage, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import StorageError, UsageError
from pipeline.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Asks a store that is down for some words; leaves a trace of each word that it was given."""

    traces: str
    name: str = "ask"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=0.5))

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        (word,) = task.inputs["word"].to_pylist()
        Path(self.traces, word).touch()
        if word.startswith("down"):
            raise StorageError(f"no answer to {word}")
        if word.startswith("full"):
            raise OSError(28, "No space left on device")
        if word.startswith("bug"):
            raise ValueError("a bug")
        return TaskResult(outputs=(Output(path=f"parts/{task.key}", data=b"1"),), counts={"ok": 1})


def ray_executor() -> Executor:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tests/ is not on a worker's path
    return RayExecutor(workers=1)


EXECUTORS = {"local": LocalExecutor, "pool": lambda: PoolExecutor(1), "ray": ray_executor}
NAMES = ["local", "pool", pytest.param("ray", marks=[pytest.mark.ray, pytest.mark.slow])]


@pytest.fixture(params=NAMES)
def executor(request: pytest.FixtureRequest) -> Executor:
    return EXECUTORS[request.param]()


def tasks_of(*words: str) -> list[Task]:
    return plan_tasks(pa.table({"word": list(words)}), "word", set(), "f" * 16, 1)


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, str]:
    (tmp_path / "traces").mkdir()
    return tmp_path / "traces", str(tmp_path / "corpus")


def test_faults_in_a_row_stop_the_stage_and_the_rest_is_not_tried(
    executor: Executor, places: tuple[Path, str]
) -> None:
    traces, root = places
    words = ["a", *(f"down {n}" for n in range(FAULTS_IN_A_ROW - 1)), "full", *(f"b{n}" for n in range(60))]
    facts: list[dict[str, object]] = []
    tasks = tasks_of(*words)
    with pytest.raises(
        StageStopped, match=r"stage ask was stopped: 5 tasks in a row.*No space left"
    ) as stopped:
        run(Ask(traces=str(traces)), tasks, executor, root, lambda done, total, now: facts.append(dict(now)))
    summary = stopped.value.summary
    assert summary.counts == {"ok": 1}
    assert [lost.key for lost in summary.lost] == [task.key for task in tasks[1:]]
    assert [lost.error for lost in summary.lost][:2] == ["no answer to down 0", "no answer to down 1"]
    assert {lost.error for lost in summary.lost[FAULTS_IN_A_ROW:]} == {NOT_TRIED}
    assert {"ok": 1, "lost": FAULTS_IN_A_ROW} in facts
    assert len(list(traces.iterdir())) < len(words) / 2  # on Ray some were under way


def test_a_success_in_between_and_bugs_stop_nothing(executor: Executor, places: tuple[Path, str]) -> None:
    traces, root = places
    down = [f"down {n}" for n in range(2 * FAULTS_IN_A_ROW - 2)]
    half = FAULTS_IN_A_ROW - 1
    words = [*down[:half], "a", *down[half:], "b", *(f"bug {n}" for n in range(FAULTS_IN_A_ROW + 1))]
    summary = run(Ask(traces=str(traces)), tasks_of(*words), executor, root)
    assert summary.counts == {"ok": 2}
    assert len(summary.lost) == len(words) - 2
    assert len(list(traces.iterdir())) == len(words)


class Elsewhere:
    """An executor whose workers commit where nobody sees it."""

    def __init__(self, other: str) -> None:
        self.other = other

    def gpus(self) -> float:
        return 0.0

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        yield from LocalExecutor().execute(stage, tasks[:1], root)
        yield from LocalExecutor().execute(stage, tasks[1:], self.other)


def test_a_receipt_without_its_part_is_a_lost_task(places: tuple[Path, str], tmp_path: Path) -> None:
    traces, root = places
    tasks = tasks_of("a", "b", "c")
    summary = run(Ask(traces=str(traces)), tasks, Elsewhere(str(tmp_path / "other")), root)
    assert summary.counts == {"ok": 1}
    assert [lost.key for lost in summary.lost] == [task.key for task in tasks[1:]]
    assert all(f"its part is not in {root}" in lost.error for lost in summary.lost)


def test_no_question_is_left_and_no_reader_sees_one(executor: Executor, places: tuple[Path, str]) -> None:
    traces, root = places
    run(Ask(traces=str(traces)), tasks_of("a"), executor, root)
    assert [path.name for path in Path(root).iterdir()] == ["parts"]
    with asked(root) as question:
        answer = question.answer()
        assert Storage(root).list() == []
        assert [info.uri for info in Storage(root).walk()] == [str(next(Path(root, "parts").iterdir()))]
        question.hear(answer, "here")
        with pytest.raises(StorageError, match="the node there has another"):
            question.hear(answer, "there")
    assert [path.name for path in Path(root).iterdir()] == ["parts"]


def test_a_worker_that_sees_another_disk_is_refused_before_work(
    places: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    traces, root = places
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    ):
        pytest.skip("needs unshare -m, as root")
    python = tmp_path / "python"
    script = f'mount -t tmpfs tmpfs "{root}" && exec "{sys.executable}" "$@"'
    python.write_text(f"#!/bin/sh\nexec unshare -m sh -c '{script}' sh \"$@\"\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(
        StorageError, match=rf"the node {os.uname().nodename} has another {root}.*fix: --out s3:"
    ):
        run(Ask(traces=str(traces)), tasks_of("a", "b"), PoolExecutor(2), root)
    assert list(traces.iterdir()) == []
    assert list(Path(root).iterdir()) == []


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_cannot_be_joined_is_one_line(tmp_path: Path) -> None:
    from test_framemill_faults import ROOT, pictures

    words = ["analyze", str(pictures(tmp_path / "raw", 1)), "--out", str(tmp_path / "c"), "--executor", "ray"]
    done = subprocess.run(
        [sys.executable, "-m", "framemill", *words],
        env=os.environ | {"RAY_ADDRESS": "nonsense", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "framemill: cannot join the Ray at nonsense" in done.stderr
    assert "Traceback" not in done.stderr
    assert UsageError.__name__ not in done.stderr


def test_an_answer_that_nobody_waited_for_is_swept(tmp_path: Path) -> None:
    with asked(str(tmp_path)) as question:
        question.answer()
        (tmp_path / ".tmp-of-another").touch()
        assert len(list(tmp_path.iterdir())) == 3
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-of-another"]
