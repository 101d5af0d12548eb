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
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.endurance.engine import SOURCE_ROOT, Sleep
from pipeline.endurance.raylets import Raylets
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import FramemillError
from pipeline.progress import Progress

TASKS_PER_NODE = 16
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
    tasks = TASKS_PER_NODE * nodes
    with Raylets(folder) as cluster, Driver(cluster, tasks, task_s) as driver:
        first = next(driver.events())
        for number in range(nodes):
            cluster.add()
            progress(0, tasks, {"nodes": number + 1})
        done = list[Done]()

        def until(at_work: int) -> None:
            """Takes tasks in until so many nodes have ended one."""
            for task in ended:
                done.append(task)
                progress(len(done), tasks, {"nodes": len({task.node for task in done})})
                if len({task.node for task in done}) == at_work:
                    return

        ended = driver.done()
        until(nodes)
        began_s, before = time.time(), {task.node for task in done}
        cluster.add()
        joined_s = time.time()
        until(nodes + 1)
        newcomers = [task for task in done if task.node not in before]
        time.sleep(task_s / 2)  # so that the node has done half a task when it is lost
        victim = done[-1].node
        killed_s = time.time()
        cluster.kill(cluster.named(victim))
        until(0)
    return {
        "nodes": nodes,
        "task_s": task_s,
        "tasks": len({task.key for task in done}),
        "no_cpu_says": first.get("waiting_for", ""),
        "nodes_used": len({task.node for task in done}),
        "join": {
            "start_s": round(joined_s - began_s, 2),
            "first_task_ended_s": round(min(task.ended_s for task in newcomers) - joined_s, 2),
        },
        "kill": cost_of_kill(done, victim, killed_s),
    }


def cost_of_kill(done: Sequence[Done], victim: str, killed_s: float) -> dict[str, float]:
    """What the death of the node `victim` at `killed_s` costs, in seconds of nodes: what it had done of the
    task that it was on, and all the time that the others do not work from then until the last task begins.
    `ratio` is over the seconds of the tasks that went back."""
    back = [task for task in done if task.tries > 1]
    if not back:
        raise FramemillError("no task was on the node that was killed", fix="run the command again")
    backlog_s = max(task.started_s for task in done)  # from here on there is not enough work for all
    own = [task.ended_s for task in done if task.node == victim and task.ended_s <= killed_s]
    wasted_s = killed_s - max(own)
    idle_s = 0.0
    for node in {task.node for task in done if task.ended_s > killed_s} - {victim}:
        spans = [task for task in done if task.node == node]
        worked_s = sum(_overlap_s(task, killed_s, backlog_s) for task in spans)
        idle_s += max(0.0, backlog_s - killed_s) - worked_s
    in_flight_s = sum(task.seconds for task in back)
    return {
        "tasks_put_back": len(back),
        "in_flight_s": round(in_flight_s, 2),
        "wasted_s": round(wasted_s, 2),
        "idle_s": round(idle_s, 2),
        "ratio": round((wasted_s + idle_s) / in_flight_s, 3),
    }


def _overlap_s(task: Done, from_s: float, to_s: float) -> float:
    return max(0.0, min(task.ended_s, to_s) - max(task.started_s, from_s))
