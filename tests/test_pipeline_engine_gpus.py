"""GPUs and memory: a worker sees what it asked for and nothing else; no more workers than fit."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.config import StageResources
from pipeline.engine.pool import Machine, PoolExecutor
from pipeline.engine.resources import allowed_cpus, memory_gb, visible_gpus
from pipeline.engine.runner import Executor, LocalExecutor, granted, run
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TellGpus:
    """Writes which GPUs its process may see."""

    resources: Resources
    pid: bool = False
    name: str = "tell"
    version: int = 1

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all") + (f" {os.getpid()}" if self.pid else "")
        return TaskResult(outputs=(Output(path=f"{task.key}.txt", data=gpus.encode()),))


def gpus_of_workers(stage: TellGpus, executor: Executor, root: Path) -> set[str]:
    tasks = plan_tasks(pa.table({"id": list("abcd")}), "id", set(), "f" * 16, 1)
    summary = run(stage, tasks, executor, str(root))
    assert not summary.lost
    return {path.read_text() for path in root.glob("*.txt")}


def test_gpus_are_those_that_cuda_would_show(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia10", "nvidia2", "nvidiactl", "null"):
        (tmp_path / name).touch()
    assert visible_gpus({}, tmp_path) == ("0", "1", "2")  # as CUDA counts, whatever the files are called
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "3, GPU-8f"}, tmp_path) == ("3", "GPU-8f")
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == ()
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == ()


def test_a_worker_gets_no_more_workers_beside_it_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert workers_of(Resources(memory_gb=memory_gb() / 2.5)) <= 2
    assert workers_of(Resources(memory_gb=0.001)) == allowed_cpus()
    assert workers_of(Resources(cpus=0.1, memory_gb=0.001)) == allowed_cpus()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5,7")
    assert workers_of(Resources(memory_gb=0.001, gpus=1), 9) == 3
    assert workers_of(Resources(memory_gb=0.001, gpus=0.4), 9) == 6
    assert workers_of(Resources(memory_gb=0.001, gpus=2), 9) == 1


def workers_of(need: Resources, said: int | None = None) -> int:
    """How many a machine gives to one stage, and gets back."""
    machine, gpus = Machine(said), list[tuple[str, ...]]()
    with machine.entered(need) as claim:
        claim.wanted = 100
        while len(gpus) < machine.share(claim) and (names := machine.take(claim, len(gpus))) is not None:
            gpus.append(names)
        assert all(len(names) == max(1, need.gpus) for names in gpus if need.gpus)
        for names in gpus:
            machine.give_back(claim, names)
        assert not gpus or machine.take(claim, 0) is not None
    return len(gpus)


@pytest.mark.parametrize(
    ("need", "said"),
    [
        ({"memory_gb": 2000.0}, r"2000 GB of memory; expected no more than this machine has: .*; "),
        ({"cpus": 5000.0}, r"5000 CPUs; .*; fix: --set resources.caption.cpus=\d+, or a larger one$"),
        ({"gpus": 2.0}, r"2 GPUs; expected no more than this machine has: 1; "),
    ],
)
def test_what_is_too_large_for_the_machine_is_refused_with_the_key_to_change(
    need: dict[str, float], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    given = StageResources(**need)
    stage = TellGpus(resources=granted(Resources(), PoolExecutor(), "caption", given))
    with pytest.raises(UsageError, match=said):
        gpus_of_workers(stage, PoolExecutor(), tmp_path)


@pytest.mark.parametrize(
    ("gpus", "seen_by_workers"), [(0, [""]), (1, ["5", "7"]), (2, ["5,7"]), (0.5, ["5", "7"])]
)
def test_a_pool_worker_sees_the_gpus_that_it_asked_for(
    gpus: float, seen_by_workers: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    stage = TellGpus(resources=Resources(cpus=0.5, gpus=gpus))
    assert gpus_of_workers(stage, PoolExecutor(4), tmp_path) <= set(seen_by_workers)


@pytest.mark.ray
def test_on_ray_one_worker_sees_the_only_gpu_and_none_that_did_not_ask(tmp_path: Path) -> None:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.shutdown()
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        assert RayExecutor().gpus() == 1
        stage = TellGpus(resources=Resources(cpus=0.5, memory_gb=0.5))
        assert gpus_of_workers(stage, RayExecutor(), tmp_path) == {""}
        with_gpu = replace(stage, resources=Resources(cpus=0.5, gpus=1, memory_gb=0.5), pid=True)
        (seen_by,) = gpus_of_workers(with_gpu, RayExecutor(), tmp_path)  # by one worker, that is
        assert seen_by.startswith("0 ")
        greedy = replace(stage, resources=Resources(memory_gb=2000, section="caption"))
        with pytest.raises(
            UsageError, match=r"2000 GB of memory;.*fix: --set resources\.caption\.memory_gb="
        ):
            gpus_of_workers(greedy, RayExecutor(), tmp_path)
    finally:
        ray.shutdown()


def test_a_model_gets_gpus_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Resources(gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert granted(wanted, LocalExecutor()) == wanted
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert granted(wanted, PoolExecutor()) == replace(wanted, gpus=0.0)
    asked_for = granted(wanted, PoolExecutor(), "caption", StageResources(gpus=2.0, deadline_s=0.0))
    assert asked_for == replace(wanted, section="caption")  # and is refused, or waited for


@pytest.mark.parametrize("wrong", [{"cpus": 0.0}, {"memory_gb": -1.0}, {"gpus": -1.0}, {"gpus": 1.5}])
def test_resources_that_nobody_has_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Resources(**wrong)


def test_memory_is_no_more_than_the_control_group_allows(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("0::/box\n")
    (tmp_path / "box").mkdir()
    whole_gb = memory_gb(tmp_path, tmp_path / "none")
    (tmp_path / "box" / "memory.max").write_text("max\n")
    assert memory_gb(tmp_path, tmp_path / "own") == whole_gb
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert memory_gb(tmp_path, tmp_path / "own") == 1.0
