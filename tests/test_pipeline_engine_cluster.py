"""A real cluster of raylets whose nodes come and go: what is waited for, what a killed node costs, what
stdout has, and two stages at once."""

import itertools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.endurance.coming import Driver
from pipeline.endurance.engine import Sleep
from pipeline.endurance.kill import descendants
from pipeline.endurance.raylets import Raylets
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Beat, Executor, Receipt
from pipeline.engine.tasks import plan_tasks


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
    with Driver(cluster, 40, 0.5) as driver:
        events = driver.events()  # every line of stdout is JSON
        first = next(events)
        assert (first["kind"], first["waiting_for"]) == ("Beat", "1 CPU (the cluster has 0)")
        node = cluster.add()
        receipts = [event for event in itertools.islice(events, 4) if event["kind"] == "Receipt"]
        assert receipts
        joined_s = time.time()
        cluster.add()
        rows = receipts + list(itertools.islice(events, 12))
        (raylet,) = [
            pid for pid, words in descendants(node.pid) if words.split(b"\0")[0].endswith(b"/raylet")
        ]
        os.kill(raylet, signal.SIGKILL)  # alone: what is left of the node then sends a dump to every driver
        rows += events
    answered = [row for row in rows if row["kind"] == "Receipt"]
    assert len({row["key"] for row in answered}) == len(answered) == 40
    assert not [row["error"] for row in answered if row["error"]]
    second = [row["started_s"] for row in answered if row["node"] != receipts[0]["node"]]
    assert min(second) - joined_s < 30
    assert 1 <= sum(row["tries"] > 1 for row in answered) <= 2  # what it was on, and had at hand


class OnBoth:
    """Two stages of many short tasks on one executor, the second begun when the first is at work; both
    stopped once the second is."""

    def __init__(self, executor: Executor, root: Path, task_s: float) -> None:
        self._executor, self._root, self._stage = executor, root, Sleep(seconds=task_s)
        self.receipts: dict[str, list[Receipt]] = {"a": [], "b": []}
        self.ended: list[str] = []

    def go(self) -> None:
        threads = [threading.Thread(target=self._run, args=(name,)) for name in self.receipts]
        threads[0].start()
        _until(lambda: len(self.receipts["a"]) > 3)
        threads[1].start()
        _until(lambda: len(self.receipts["b"]) > 10)
        self._executor.stop()
        for thread in threads:
            thread.join(10)

    def _run(self, name: str) -> None:
        tasks = plan_tasks(pa.table({"id": [f"{n:03}" for n in range(400)]}), "id", set(), name * 16, 1)
        try:
            for event in self._executor.execute(self._stage, tasks, str(self._root / name)):
                if not isinstance(event, Beat):
                    self.receipts[name].append(event)
        except KeyboardInterrupt:
            self.ended.append(name)

    def since_both(self) -> dict[str, list[Receipt]]:
        """Those of tasks that began when both stages were at work."""
        since_s = self.receipts["b"][0].started_s
        return {name: [r for r in rows if r.started_s >= since_s] for name, rows in self.receipts.items()}

    def most_at_once(self) -> int:
        """Of those tasks, by their clocks."""
        busy = most = 0
        rows = [receipt for rows in self.since_both().values() for receipt in rows]
        ends = [(r.started_s, 1) for r in rows] + [(r.started_s + r.seconds, -1) for r in rows]
        for _, change in sorted(ends):
            busy += change
            most = max(most, busy)
        return most


def test_two_stages_share_the_cores_and_a_stop_ends_both(tmp_path: Path) -> None:
    both = OnBoth(PoolExecutor(2), tmp_path, 0.1)
    both.go()
    assert sorted(both.ended) == ["a", "b"]
    assert both.most_at_once() == 2
    assert len(both.since_both()["a"]) > 3


@pytest.mark.ray
def test_two_stages_share_the_cpus_of_a_cluster_and_a_stop_ends_both(tmp_path: Path) -> None:
    import ray

    from pipeline.engine.ray_executor import RayExecutor

    ray.shutdown()
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        both = OnBoth(RayExecutor(), tmp_path, 0.3)
        both.go()
        assert sorted(both.ended) == ["a", "b"]
        assert both.most_at_once() == 2
        assert len(both.since_both()["a"]) > 3
        assert not ray.is_initialized()  # nobody commits anything after that
    finally:
        ray.shutdown()


def _until(condition: Callable[[], bool]) -> None:
    ends_at = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
