"""What nodes that come and go cost, with tasks of known seconds: a cluster that begins with no CPU at all,
nodes that bring it to life, one that joins them, one that is killed.

In: a number of nodes, seconds of a task. Out: what is said while nothing can run; seconds from a node's
joining to the end of its first task; node-seconds that a kill costs, over the seconds of the tasks that the
node was on. The driver is a process of its own, whose events come as JSON lines on its stdout.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.endurance.engine import SOURCE_ROOT, Sleep
from pipeline.endurance.raylets import Raylets
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import FramemillError
from pipeline.progress import Progress

TASKS = 100_000  # more than are ever done
PATIENCE = 10  # tasks that each node may end after a kill, before one that went back has
CALL = "from pipeline.endurance.coming import tell; tell({tasks}, {seconds})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A task that ended: unix times, by one clock, of the try that ended it."""

    key: str
    node: str
    started_s: float
    seconds: float
    tries: int

    @property
    def ended_s(self) -> float:
        return self.started_s + self.seconds


def tell(tasks: int, seconds: float) -> None:
    """The driver: tasks that sleep, each event of them a JSON line."""
    from pipeline.engine.ray_executor import RayExecutor

    planned = plan_tasks(pa.table({"id": [f"{n:05}" for n in range(tasks)]}), "id", set(), "f" * 16, 1)
    with tempfile.TemporaryDirectory() as root:
        for event in RayExecutor().execute(Sleep(seconds=seconds), planned, root):
            print(json.dumps({"kind": type(event).__name__, **asdict(event)}), flush=True)


class Driver:
    """A driver on a cluster, as a context. Its events, one after another; every line of stdout is JSON."""

    def __init__(self, cluster: Raylets, tasks: int, seconds: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CALL.format(tasks=tasks, seconds=seconds)],
            env=cluster.environment | {"PYTHONPATH": str(SOURCE_ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Driver":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def events(self) -> Iterator[dict[str, Any]]:
        """FramemillError where the driver does not end well."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        if code := self._process.wait():
            raise FramemillError(f"the driver ended with exit code {code}")

    def done(self) -> Iterator[Done]:
        """The tasks as they end; FramemillError for one that is lost."""
        for event in self.events():
            if event["kind"] == "Receipt":
                if event["error"]:
                    raise FramemillError(f"a task is lost: {event['error']}")
                yield Done(**{name: event[name] for name in ("key", "node", "started_s", "seconds", "tries")})


def coming_and_going(folder: Path, nodes: int, task_s: float, progress: Progress) -> dict[str, Any]:
    """From no CPU to `nodes` nodes, one more, one killed. `folder` as Raylets takes it."""
    done = list[Done]()

    def nodes_of(tasks: Sequence[Done]) -> set[str]:
        return {task.node for task in tasks}

    with Raylets(folder) as cluster, Driver(cluster, TASKS, task_s) as driver:
        first = next(driver.events())
        ending = driver.done()

        def until(condition: Callable[[], bool]) -> None:
            """Takes tasks in as they end."""
            while not condition():
                done.append(next(ending))
                progress(min(len(nodes_of(done)), nodes), nodes + 2, {"tasks": len(done)})

        for _ in range(nodes):
            cluster.add()
        until(lambda: len(nodes_of(done)) == nodes)
        began_s, before = time.time(), nodes_of(done)
        cluster.add()
        joined_s = time.time()
        until(lambda: len(nodes_of(done)) == nodes + 1)
        newcomers = [task for task in done if task.node not in before]
        time.sleep(task_s / 2)  # so that the node has done half a task when it is lost
        victim, count = done[-1].node, len(done)
        killed_s = time.time()
        cluster.kill(cluster.named(victim))
        until(lambda: is_over(done, victim) or len(done) > count + PATIENCE * nodes)
    return {
        "nodes": nodes,
        "task_s": task_s,
        "tasks": len({task.key for task in done}),
        "no_cpu_says": first.get("waiting_for", ""),
        "nodes_used": len(nodes_of(done)),
        "join": {
            "start_s": round(joined_s - began_s, 2),
            "first_task_ended_s": round(min(task.ended_s for task in newcomers) - joined_s, 2),
        },
        "kill": cost_of_kill(done, victim, killed_s),
    }


def is_over(done: Sequence[Done], victim: str) -> bool:
    """Whether what went back has ended, and every other node has ended a task since."""
    over_s = max((task.ended_s for task in done if task.tries > 1), default=None)
    others = {task.node for task in done} - {victim}
    return over_s is not None and {task.node for task in done if task.ended_s >= over_s} >= others


def cost_of_kill(done: Sequence[Done], victim: str, killed_s: float) -> dict[str, float]:
    """What the death of the node `victim` at `killed_s` costs, in seconds of nodes: what it had done of the
    task that it was on, and all the time that the others do not work from then until that has ended
    elsewhere. `ratio` is over the seconds of the tasks that went back. `done` reaches as far as `is_over`."""
    back = [task for task in done if task.tries > 1]
    if not back:
        raise FramemillError("no task was on the node that was killed", fix="run the command again")
    over_s = max(task.ended_s for task in back)
    wasted_s = killed_s - max(task.ended_s for task in done if task.node == victim)
    idle_s = 0.0
    for node in {task.node for task in done} - {victim}:
        worked_s = sum(_overlap_s(task, killed_s, over_s) for task in done if task.node == node)
        idle_s += over_s - killed_s - worked_s
    in_flight_s = sum(task.seconds for task in back)
    return {
        "tasks_put_back": len(back),
        "in_flight_s": round(in_flight_s, 2),
        "begun_again_after_s": round(max(task.started_s for task in back) - killed_s, 2),
        "wasted_s": round(wasted_s, 2),
        "idle_s": round(idle_s, 2),
        "ratio": round((wasted_s + idle_s) / in_flight_s, 3),
    }


def _overlap_s(task: Done, from_s: float, to_s: float) -> float:
    return max(0.0, min(task.ended_s, to_s) - max(task.started_s, from_s))
