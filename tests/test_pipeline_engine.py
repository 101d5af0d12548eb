"""The runner over both executors: the same parts, lost tasks named, fatal errors raised."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.runner import Executor, LocalExecutor, run
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import MediaError, ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class Shout:
    """Writes each word in capitals; a word may ask for trouble."""

    name: str = "shout"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=0.5))
    refuse_setup: bool = False

    def setup(self) -> None:
        if self.refuse_setup:
            raise ModelError("no voice", fix="bring one")

    def process(self, task: Task) -> TaskResult:
        killers = task.killers("word")
        words = [word for word in task.inputs["word"].to_pylist() if word not in killers]
        if "die" in words or {"together", "we die"} <= set(words):
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in words:
            raise ValueError("cannot shout this")
        if "media" in words:
            raise MediaError("hoarse")
        data = " ".join(words).upper().encode()
        counts = {"ok": len(words), "failed": len(killers)}
        return TaskResult(outputs=(Output(path=f"{task.key}.txt", data=data),), counts=counts)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    if request.param == "local":
        yield LocalExecutor()
    else:
        yield ray_executor()


def ray_executor() -> Executor:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tests/ is not on a worker's path
    return RayExecutor(workers=2)


def tasks_of(*words: str, per_task: int = 1) -> list[Task]:
    return plan_tasks(pa.table({"word": list(words)}), "word", set(), "f" * 16, per_task)


def test_every_task_leaves_one_part(executor: Executor, tmp_path: Path) -> None:
    tasks = tasks_of("a", "b", "c", "d", "e")
    summary = run(Shout(), tasks, executor, str(tmp_path))
    assert summary.lost == ()
    assert summary.counts == {"ok": 5, "failed": 0}
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        f"{t.key}.txt": t.inputs["word"][0].as_py().upper() for t in tasks
    }


@pytest.mark.parametrize(
    ("word", "reason"), [("raise", "ValueError: cannot shout this"), ("media", "hoarse")]
)
def test_a_broken_task_is_named_and_the_others_go_on(
    executor: Executor, tmp_path: Path, word: str, reason: str
) -> None:
    tasks = tasks_of("a", word, "c")
    summary = run(Shout(), tasks, executor, str(tmp_path))
    assert [(lost.key, lost.error) for lost in summary.lost] == [(tasks[1].key, reason)]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_wrong_model_ends_the_run(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no voice; fix: bring one"):
        run(Shout(refuse_setup=True), tasks_of("a", "b"), executor, str(tmp_path))


@pytest.mark.ray
@pytest.mark.slow
def test_what_kills_its_ray_worker_is_found_and_left_out(tmp_path: Path) -> None:
    words = ["a", "b", "c", "die", "e", "f", "die too", "g", "h", "i", "j", "k"]
    tasks = tasks_of(*words, per_task=5)
    summary = run(Shout(), tasks, ray_executor(), str(tmp_path))
    assert summary.lost == ()
    assert summary.counts == {"ok": 11, "failed": 1}
    assert [(tmp_path / f"{task.key}.txt").read_text() for task in tasks] == [
        "A B C E",
        "F DIE TOO G H I",
        "J K",
    ]


@pytest.mark.ray
@pytest.mark.slow
def test_a_task_whose_rows_kill_only_together_is_lost_and_named(tmp_path: Path) -> None:
    tasks = tasks_of("a", "b", "together", "we die", per_task=2)
    summary = run(Shout(), tasks, ray_executor(), str(tmp_path))
    assert [lost.key for lost in summary.lost] == [tasks[1].key]
    assert summary.counts == {"ok": 2, "failed": 0}


def test_resuming_makes_the_parts_of_an_undisturbed_run() -> None:
    table = pa.table({"id": [f"{i:03d}" for i in range(23)]})
    whole = plan_tasks(table, "id", set(), "f" * 16, 4)
    finished = {i for task in (whole[0], whole[3], whole[5]) for i in task.inputs["id"].to_pylist()}
    resumed = plan_tasks(table, "id", finished, "f" * 16, 4)
    assert {t.key for t in resumed} == {t.key for t in whole} - {whole[0].key, whole[3].key, whole[5].key}
