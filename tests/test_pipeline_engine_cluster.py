"""A real cluster of raylets whose nodes come and go: what is waited for, what a killed node costs, what
stdout has, and two stages at once."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.endurance.engine import Sleep
from pipeline.endurance.kill import descendants
from pipeline.endurance.raylets import Raylets
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Beat, Receipt
from pipeline.engine.tasks import plan_tasks

ROOT = Path(__file__).resolve().parents[1]
DRIVER = """
import json, sys, tempfile, time
import pyarrow as pa
from dataclasses import asdict
from pipeline.endurance.engine import Sleep
from pipeline.engine.ray_executor import RayExecutor
from pipeline.engine.tasks import plan_tasks
tasks = plan_tasks(pa.table({"id": [f"{n:03}" for n in range(int(sys.argv[1]))]}), "id", set(), "f" * 16, 1)
with tempfile.TemporaryDirectory() as root:
    for event in RayExecutor().execute(Sleep(seconds=float(sys.argv[2])), tasks, root):
        print(json.dumps({"at_s": time.time(), "kind": type(event).__name__, **asdict(event)}), flush=True)
"""


@pytest.fixture
def cluster() -> Iterator[Raylets]:
    """Nobody but a head without CPUs."""
    with tempfile.TemporaryDirectory(prefix="fm-") as folder, Raylets(Path(folder)) as cluster:
        yield cluster


@pytest.mark.ray
@pytest.mark.slow
def test_a_cluster_that_grows_from_zero_and_loses_a_node_does_every_task_once_more_at_most(
    cluster: Raylets,
) -> None:
    command = [sys.executable, "-c", DRIVER, "40", "0.5"]
    environment = cluster.environment | {"PYTHONPATH": str(ROOT)}
    driver = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert driver.stdout is not None
    try:
        first = json.loads(driver.stdout.readline())  # every line of stdout is JSON
        assert (first["kind"], first["waiting_for"]) == ("Beat", "1 CPU (the cluster has 0)")
        node = cluster.add()
        receipts = [
            line for _ in range(4) if (line := json.loads(driver.stdout.readline()))["kind"] == "Receipt"
        ]
        assert receipts
        joined_s = time.time()
        cluster.add()
        rows = receipts + [json.loads(driver.stdout.readline()) for _ in range(12)]
        (raylet,) = [
            pid for pid, words in descendants(node.pid) if words.split(b"\0")[0].endswith(b"/raylet")
        ]
        os.kill(raylet, signal.SIGKILL)  # alone: what is left of the node then sends a dump to every driver
        rows += [json.loads(line) for line in driver.stdout]
        assert driver.wait(60) == 0
    finally:
        driver.kill()
    answered = [row for row in rows if row["kind"] == "Receipt"]
    assert len({row["key"] for row in answered}) == len(answered) == 40
    assert not [row["error"] for row in answered if row["error"]]
    second = [row["started_s"] for row in answered if row["node"] != receipts[0]["node"]]
    assert min(second) - joined_s < 30
    assert 1 <= sum(row["tries"] > 1 for row in answered) <= 2  # what it was on, and had at hand


def test_two_stages_share_the_cores_and_a_stop_ends_both(tmp_path: Path) -> None:
    executor = PoolExecutor(2)
    table = pa.table({"id": [f"{n:03}" for n in range(200)]})
    receipts: dict[str, list[Receipt]] = {"a": [], "b": []}
    ended: list[str] = []

    def go(name: str) -> None:
        tasks = plan_tasks(table, "id", set(), name * 16, 1)
        try:
            for event in executor.execute(Sleep(seconds=0.1), tasks, str(tmp_path / name)):
                assert not isinstance(event, Beat)
                receipts[name].append(event)
        except KeyboardInterrupt:
            ended.append(name)

    threads = [threading.Thread(target=go, args=(name,)) for name in receipts]
    threads[0].start()
    _until(lambda: len(receipts["a"]) > 3)
    threads[1].start()
    _until(lambda: len(receipts["b"]) > 10)
    executor.stop()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["a", "b"]
    since_s = receipts["b"][0].started_s
    spans = [(r.started_s, 1) for name in receipts for r in receipts[name] if r.started_s >= since_s]
    spans += [
        (r.started_s + r.seconds, -1) for name in receipts for r in receipts[name] if r.started_s >= since_s
    ]
    busy, most = 0, 0
    for _, change in sorted(spans):
        busy += change
        most = max(most, busy)
    assert most == 2
    assert len([r for r in receipts["a"] if r.started_s > since_s]) > 3


def _until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
