"""The runner over all executors: the same parts, lost tasks named, culprits found, fatal errors raised."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Executor, LocalExecutor, run
from pipeline.engine.stage import KILLED, Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import FormatError, FramemillError, MediaError, ModelError, UsageError

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shout:
    """Writes each word in capitals; a word may ask for trouble."""

    name: str = "shout"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=0.5))
    refuse_setup: bool = False
    die_in_setup: bool = False
    break_in_setup: bool = False

    def setup(self) -> None:
        if self.refuse_setup:
            raise ModelError("no voice", expected="one", fix="bring one")
        if self.break_in_setup:
            raise ZeroDivisionError("no breath")
        if self.die_in_setup:
            os.kill(os.getpid(), signal.SIGKILL)

    def process(self, task: Task) -> TaskResult:
        killers = task.killers("word")
        words = [word for word in task.inputs["word"].to_pylist() if word not in killers]
        if "die" in words or {"together", "we die"} <= set(words):
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in words:
            raise ValueError("cannot shout this")
        if "media" in words:
            raise MediaError("hoarse")
        if "format" in words:
            raise FormatError("not a word", expected="letters", fix="spell it")
        if "sleep" in words:
            Path(words[-1]).write_text(str(os.getpid()))
            time.sleep(60)
        said = [f"{KILLED.reason}: {word}" if word in killers else word.upper() for word in _all(task)]
        counts = {"ok": len(words), "failed": len(killers)}
        output = Output(path=f"{task.key}.txt", data=" ".join(said).encode())
        return TaskResult(outputs=(output,), counts=counts)


def _all(task: Task) -> list[str]:
    return task.inputs["word"].to_pylist()


def ray_executor() -> Executor:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # tests/ is not on a worker's path
    return RayExecutor(workers=2)


ELSEWHERE = {"pool": lambda: PoolExecutor(2), "ray": ray_executor}  # where a worker may die
EVERYWHERE = ELSEWHERE | {
    "local": LocalExecutor,
    "pool of 1": lambda: PoolExecutor(1),
    "pool of 3": lambda: PoolExecutor(3),
}


def _marked(names: Iterable[str], slow_on_ray: bool = False) -> list[object]:
    on_ray = [pytest.mark.ray, pytest.mark.slow] if slow_on_ray else [pytest.mark.ray]
    return [pytest.param(name, marks=on_ray if name == "ray" else []) for name in names]


@pytest.fixture(params=_marked(EVERYWHERE))
def executor(request: pytest.FixtureRequest) -> Executor:
    return EVERYWHERE[request.param]()


@pytest.fixture(params=_marked(ELSEWHERE, slow_on_ray=True))
def survivor(request: pytest.FixtureRequest) -> Executor:
    """An executor that outlives its workers."""
    return ELSEWHERE[request.param]()


def tasks_of(*words: str, per_task: int = 1) -> list[Task]:
    return plan_tasks(pa.table({"word": list(words)}), "word", set(), "f" * 16, per_task)


def files(root: Path) -> dict[str, str]:
    return {p.name: p.read_text() for p in root.iterdir()}


def test_every_task_leaves_one_part_the_same_from_any_number_of_workers(
    executor: Executor, tmp_path: Path
) -> None:
    tasks = tasks_of("a", "b", "c", "d", "e")
    summary = run(Shout(), tasks, executor, str(tmp_path))
    assert summary.lost == ()
    assert summary.counts == {"ok": 5, "failed": 0}
    assert files(tmp_path) == {f"{t.key}.txt": t.inputs["word"][0].as_py().upper() for t in tasks}


@pytest.mark.parametrize(
    ("word", "reason"), [("raise", "ValueError: cannot shout this"), ("media", "hoarse")]
)
def test_a_broken_task_is_named_and_the_others_go_on(
    executor: Executor, tmp_path: Path, word: str, reason: str
) -> None:
    tasks = tasks_of("a", word, "c")
    summary = run(Shout(), tasks, executor, str(tmp_path))
    assert [(lost.key, lost.error) for lost in summary.lost] == [(tasks[1].key, reason)]
    assert len(files(tmp_path)) == 2


def test_a_wrong_model_ends_the_run(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no voice; expected one; fix: bring one$"):
        run(Shout(refuse_setup=True), tasks_of("a", "b"), executor, str(tmp_path))


def test_a_wrong_format_ends_the_run(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"^not a word; expected letters; fix: spell it$"):
        run(Shout(), tasks_of("a", "format", "b"), executor, str(tmp_path))


def test_a_stage_that_cannot_be_set_up_ends_the_run_with_its_reason(
    executor: Executor, tmp_path: Path
) -> None:
    with pytest.raises(FramemillError, match="shout cannot be set up: ZeroDivisionError: no breath"):
        run(Shout(break_in_setup=True), tasks_of("a", "b"), executor, str(tmp_path))


def test_what_kills_its_worker_becomes_failed_rows_and_the_others_are_ok(
    survivor: Executor, tmp_path: Path
) -> None:
    words = ["a", "b", "c", "die", "e", "f", "die too", "g", "h", "i", "j", "k"]
    tasks = tasks_of(*words, per_task=5)
    summary = run(Shout(), tasks, survivor, str(tmp_path))
    assert summary.lost == ()
    assert summary.counts == {"ok": 11, "failed": 1}
    assert [files(tmp_path)[f"{task.key}.txt"] for task in tasks] == [
        "A B C killed its worker: die E",
        "F DIE TOO G H I",
        "J K",
    ]


def test_a_single_task_that_kills_does_not_kill_the_run(tmp_path: Path) -> None:
    summary = run(Shout(), tasks_of("die", "a", per_task=2), PoolExecutor(), str(tmp_path))
    assert (summary.lost, summary.counts) == ((), {"ok": 1, "failed": 1})


def test_a_task_whose_rows_kill_only_together_is_lost_and_named(survivor: Executor, tmp_path: Path) -> None:
    tasks = tasks_of("a", "b", "together", "we die", per_task=2)
    summary = run(Shout(), tasks, survivor, str(tmp_path))
    assert [lost.key for lost in summary.lost] == [tasks[1].key]
    assert summary.counts == {"ok": 2, "failed": 0}


def test_a_stage_that_dies_in_its_setup_loses_tasks_and_convicts_nobody(
    survivor: Executor, tmp_path: Path
) -> None:
    tasks = tasks_of("a", "b", "c")
    summary = run(Shout(die_in_setup=True), tasks, survivor, str(tmp_path))
    assert [lost.key for lost in summary.lost] == [task.key for task in tasks]
    assert files(tmp_path) == {}


def test_no_worker_outlives_its_run(tmp_path: Path) -> None:
    run(Shout(), tasks_of("a", "b", "c"), PoolExecutor(2), str(tmp_path))
    assert not _children(os.getpid())


def _children(parent: int) -> list[int]:
    """The living workers of a process."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, above = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
                command = (folder / "cmdline").read_text()
            except OSError:
                continue
            if int(above) == parent and state != "Z" and "pipeline.engine.pool_worker" in command:
                pids.append(int(folder.name))
    return pids


DRIVER = """
import sys
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import run
from test_pipeline_engine import Shout, tasks_of
try:
    run(Shout(), tasks_of("sleep", sys.argv[1], per_task=2), PoolExecutor(2), sys.argv[2])
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.usefixtures("signals_heeded")
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_driver_that_ends_takes_its_workers_with_it(tmp_path: Path, sent: signal.Signals) -> None:
    """Also a script from the command line, whose main module no worker could import."""
    marker = tmp_path / "pid"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [sys.executable, "-c", DRIVER, str(marker), str(tmp_path / "out")]
    driver = subprocess.Popen(command, env=environment)
    _until(lambda: marker.exists() and marker.read_text() != "")
    worker = int(marker.read_text())
    assert _alive(worker)
    driver.send_signal(sent)
    assert driver.wait(10) == (130 if sent == signal.SIGINT else -signal.SIGKILL)
    _until(lambda: not _alive(worker))


def _until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_stage_of_the_main_script_is_refused_with_the_way_out(tmp_path: Path) -> None:
    code = (
        "from test_pipeline_engine import Shout, tasks_of\n"
        "from pipeline.engine.pool import PoolExecutor\n"
        "class Own(Shout): pass\n"
        "list(PoolExecutor(2).execute(Own(), tasks_of('a'), '.'))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "move its class to a module, or run it with LocalExecutor" in done.stderr


def test_no_workers_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="0 workers; expected at least 1"):
        PoolExecutor(0)


def test_resuming_makes_the_parts_of_an_undisturbed_run() -> None:
    table = pa.table({"id": [f"{i:03d}" for i in range(23)]})
    whole = plan_tasks(table, "id", set(), "f" * 16, 4)
    finished = {i for task in (whole[0], whole[3], whole[5]) for i in task.inputs["id"].to_pylist()}
    resumed = plan_tasks(table, "id", finished, "f" * 16, 4)
    assert {t.key for t in resumed} == {t.key for t in whole} - {whole[0].key, whole[3].key, whole[5].key}


# -- the command line -------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_leaves_the_same_bytes_for_any_number_of_workers(tmp_path: Path) -> None:
    words = ["run", str(ROOT / "infra" / "media"), "--set", "analyze.sources_per_task=1"]
    words += ["--set", "caption.clips_per_task=1", "--set", "encode.clips_per_task=2"]
    corpus, hashes = tmp_path / "corpus", []
    for workers in (1, 2, 3):
        command = [sys.executable, "-m", "framemill", *words, "--out", str(corpus)]
        subprocess.run([*command, "--workers", str(workers)], check=True, cwd=ROOT)
        hashes.append(_hashes(corpus))
        shutil.rmtree(corpus)
    assert len(hashes[0]) > 10
    assert hashes[0] == hashes[1] == hashes[2]


def _hashes(corpus: Path) -> dict[str, str]:
    paths = (p for p in sorted(corpus.rglob("*")) if p.is_file() and p.parent.name != "receipts")
    return {str(p.relative_to(corpus)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}
