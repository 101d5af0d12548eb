"""GPUs and memory: a worker sees what it asked for and nothing else; no more workers than fit."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.pool import PoolExecutor, gpu_shares, worker_limit
from pipeline.engine.resources import allowed_cpus, memory_gb, visible_gpus
from pipeline.engine.runner import Executor, LocalExecutor, granted, run
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import ConfigError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class TellGpus:
    """Writes which GPUs its process may see."""

    resources: Resources
    name: str = "tell"
    version: int = 1

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        gpus = os.environ.get("CUDA_VISIBLE_DEVICES", "all")
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


def test_workers_share_gpus_without_one_more_than_there_are() -> None:
    assert gpu_shares(0, ("0", "1")) == []
    assert gpu_shares(1, ("0", "1")) == [("0",), ("1",)]
    assert gpu_shares(0.5, ("0", "1")) == [("0",), ("1",), ("0",), ("1",)]
    assert gpu_shares(2, ("0", "1", "2")) == [("0", "1")]
    with pytest.raises(UsageError, match="a worker needs 2 GPUs; expected as many here; there are 1"):
        gpu_shares(2, ("0",))


def test_a_worker_gets_no_more_workers_beside_it_than_the_memory_holds() -> None:
    assert worker_limit(Resources(memory_gb=memory_gb() * 2)) == 1
    assert worker_limit(Resources(memory_gb=memory_gb() / 2.5)) <= 2
    assert worker_limit(Resources(memory_gb=0.001)) == allowed_cpus()


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
def test_a_ray_worker_that_asked_for_no_gpu_sees_none(tmp_path: Path) -> None:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.shutdown()
    ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    executor = RayExecutor(workers=1)
    try:
        assert executor.gpus() == 1
        stage = TellGpus(resources=Resources(cpus=0.5))
        assert gpus_of_workers(stage, executor, tmp_path) == {""}
        with_gpu = replace(stage, resources=Resources(cpus=0.5, gpus=1))
        assert gpus_of_workers(with_gpu, executor, tmp_path) == {"0"}
        greedy = replace(stage, resources=Resources(memory_gb=5000))
        with pytest.raises(UsageError, match="5000 GB of memory; expected a cluster with them"):
            gpus_of_workers(greedy, RayExecutor(), tmp_path)
    finally:
        ray.shutdown()


def test_a_model_gets_gpus_where_there_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = Resources(gpus=2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert granted(wanted, LocalExecutor()) == wanted
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert granted(wanted, PoolExecutor()) == replace(wanted, gpus=0.0)


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
