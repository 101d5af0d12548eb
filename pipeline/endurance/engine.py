"""The executors against what is ideal: how busy workers are with tasks of half a second, and what an empty
task costs.

In: numbers of workers and of tasks. Out: for each executor and number of workers the share of the time, from
when all of them are there, that they work; empty tasks a second; CPU of the driver a task. Each run is a
process of its own; Ray's have a cluster on this machine with a core for each worker, whatever the machine
has: tasks that sleep take none.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.endurance.raylets import Raylets
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Beat, Executor
from pipeline.engine.stage import Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.progress import Progress, silent

WORKERS = (1, 2, 4)
TASK_S = 0.5
EMPTY_WORKERS = 2
SOURCE_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sleep:
    """Sleeps `seconds` a task, and counts under which process it did."""

    seconds: float
    name: str = "sleep"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=1, memory_gb=0.1))

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        time.sleep(self.seconds)
        return TaskResult(outputs=(), counts={str(os.getpid()): 1})


def bench_engine(
    per_worker: int, empty: int, executors: Sequence[str], progress: Progress = silent
) -> dict[str, Any]:
    """`ratio`: the least efficiency, over executors and numbers of workers."""
    runs = [(name, workers) for name in executors for workers in WORKERS]
    details: dict[str, Any] = {"task_s": TASK_S, "tasks_per_worker": per_worker, "empty_tasks": empty}
    least, done = 1.0, 0
    for name in executors:
        by_workers = {}
        for workers in WORKERS:
            measured = _measured(name, workers, TASK_S, per_worker * workers)
            by_workers[workers] = measured
            least = min(least, measured["efficiency"])
            done += 1
            progress(done, len(runs) + len(executors), {"efficiency": measured["efficiency"]})
        details[name] = {"workers": by_workers, "empty": _measured(name, EMPTY_WORKERS, 0.0, empty)}
        done += 1
        progress(done, len(runs) + len(executors), {})
    return {
        "name": "engine",
        "ratio": round(least, 4),
        "against": "workers that never wait",
        "details": details,
    }


def _measured(name: str, workers: int, seconds: float, tasks: int) -> dict[str, float]:
    """One run in a process of its own."""
    call = f"from pipeline.endurance.engine import report; report({name!r}, {workers}, {seconds}, {tasks})"
    command = [sys.executable, "-c", call]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE_ROOT)}
    if name == "local":
        return _answer(command, environment)
    with tempfile.TemporaryDirectory(prefix="fm-") as folder, Raylets(Path(folder), head_cpus=workers) as ray:
        return _answer(command, environment | ray.environment | {"PYTHONPATH": str(SOURCE_ROOT)})


def _answer(command: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE)
    values: dict[str, float] = json.loads(done.stdout)
    return values


def report(name: str, workers: int, seconds: float, tasks: int) -> None:
    """Runs so many tasks and prints what it took, as JSON."""
    planned = plan_tasks(pa.table({"id": [f"{n:08}" for n in range(tasks)]}), "id", set(), "f" * 16, 1)
    pids: set[str] = set()
    came: list[float] = []
    all_there_s, before, began_s = 0.0, 0, time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        for receipt in executor(name, workers).execute(Sleep(seconds=seconds), planned, root):
            if isinstance(receipt, Beat):
                continue
            came.append(time.monotonic())
            pids |= set(receipt.counts)
            if len(pids) < workers or not before:
                all_there_s, before, cpu_s = came[-1], len(came), _cpu_s()
    took_s, after = came[-1] - all_there_s, tasks - before
    values = {
        "efficiency": round(after * seconds / workers / took_s, 4),
        "tasks_per_s": round(after / took_s, 1),
        "driver_cpu_ms_per_task": round((_cpu_s() - cpu_s) * 1000 / after, 3),
        "first_receipt_s": round(came[0] - began_s, 2),
        "all_there_s": round(all_there_s - began_s, 2),
    }
    print(json.dumps(values))


def executor(name: str, workers: int) -> Executor:
    if name == "local":
        return PoolExecutor(workers)
    from pipeline.engine.ray_executor import RayExecutor

    return RayExecutor(workers)


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
