"""A whole run, S3 to S3, on a Ray cluster that loses three nodes and gains one: the bytes of a quiet run.

In: a number of nodes. Out: what differs between the two corpora, which tasks went back to the others, what
was on stdout; and from pipeline/endurance/coming.py what a killed node and one that joins cost. All is on
this machine: a head without CPUs, a raylet of one CPU a node, a store that speaks S3, a toy world. A node is
killed with -9 as soon as it ended a task of a stage, as the log of the run says, and so is on its next one.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.endurance.coming import coming_and_going
from pipeline.endurance.engine import SOURCE_ROOT
from pipeline.endurance.kill import contents
from pipeline.endurance.raylets import Raylets
from pipeline.endurance.store import BUCKET, access, environment_set, store_started
from pipeline.errors import FramemillError, UsageError
from pipeline.progress import Progress, Steps, silent
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

KILLED_IN = ("analyze", "caption", "encode")
TASK_S = 2.0  # of the synthetic tasks
SETTINGS = ("analyze.sources_per_task=1", "caption.clips_per_task=2", "encode.clips_per_task=1")
TOY = ToyWorldConfig(videos=10, images=2, seed=11, min_shots=1, max_shots=3, duplicate_share=0.0)
STEPS = ("undisturbed", "with kills")
STUCK_S = 900.0  # a run that takes longer is stuck
MOST_COST, LATEST_JOIN_S = 2.0, 30.0
NAMED = 5  # files that differ
TASK = re.compile(r"(\w+): task [\w-]+: .*, [\d.]+ s on (.+ \(\w+\)), try (\d+)$")


@dataclass(slots=True, kw_only=True)
class _Strike:
    """A node that was killed: in which stage and when; how many tasks were begun again by the next one."""

    stage: str
    after_s: float
    tasks_put_back: int = 0


def bench_nodes(nodes: int, *, progress: Progress = silent) -> dict[str, Any]:
    """`ratio`: node-seconds that one killed node costs, over the seconds of the tasks that it was on.
    `details.within` says whether that, the join, the start from nothing and the bytes are as they must be."""
    if nodes < len(KILLED_IN):
        raise UsageError(f"--nodes {nodes}", expected=f"at least {len(KILLED_IN)}: as many are killed")
    steps = Steps(["with synthetic tasks", *STEPS], progress)
    with tempfile.TemporaryDirectory(prefix="fm-") as folder:
        costs = coming_and_going(_new(folder, "a"), nodes, TASK_S, steps.at("with synthetic tasks"))
        survived = survival(_new(folder, "b"), nodes, TOY, steps)
    steps.end()
    within = {
        "bytes": survived["equal"] and survived["exit_code"] == 0,
        "kills": len(survived["kills"]) == len(KILLED_IN) and survived["joined"],
        "stdout": survived["stdout_is_one_object"],
        "cost": costs["kill"]["ratio"] < MOST_COST,
        "join": costs["join"]["first_task_ended_s"] < LATEST_JOIN_S,
        "start": bool(costs["no_cpu_says"]) and costs["nodes_used"] == nodes + 1,
    }
    return {
        "name": "nodes",
        "ratio": costs["kill"]["ratio"],
        "against": "the tasks that the killed node was on",
        "details": {"within": within, "run": survived, "synthetic": costs},
    }


def _new(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.mkdir()
    return path


def survival(folder: Path, nodes: int, toy: ToyWorldConfig, steps: Steps) -> dict[str, Any]:
    """A run that nobody disturbs, and one that loses a node in each of KILLED_IN and gains one after the
    first, on one cluster: how they differ. `folder` as Raylets takes it."""
    with store_started() as port, environment_set(access(port) | {"PYTHONPATH": str(SOURCE_ROOT)}):
        render_corpus(folder / "toy", toy)
        raw = Storage(f"{BUCKET}/raw")
        for path in sorted((folder / "toy").glob("*/*")):  # not the truth beside them
            raw.write_bytes(path.name, path.read_bytes())
        with Raylets(folder) as cluster:
            for _ in range(nodes):
                cluster.add()
            roots = [f"{BUCKET}/{name}/corpus" for name in ("quiet", "struck")]
            quiet = _Run(cluster).go(roots[0], steps.at("undisturbed"))
            if quiet.exit_code:
                said = "".join(quiet.said)[-500:]
                raise FramemillError(f"the undisturbed run ended with {quiet.exit_code}: {said}")
            struck = _Run(cluster, KILLED_IN).go(roots[1], steps.at("with kills"))
        wanted, left = contents(roots[0]), contents(roots[1])
    differing = sorted(name for name in wanted.keys() | left if wanted.get(name) != left.get(name))
    return {
        "equal": not differing,
        "differing": differing[:NAMED],
        "files": len(wanted),
        "kills": [
            {
                "stage": strike.stage,
                "after_s": round(strike.after_s, 1),
                "tasks_put_back": strike.tasks_put_back,
            }
            for strike in struck.strikes
        ],
        "joined": len(struck.nodes) > nodes,
        "tasks_put_back": sum(row["retried"] for row in struck.stages),
        "lost": sum(row["lost"] for row in struck.stages),
        "undisturbed_s": round(quiet.seconds, 1),
        "with_kills_s": round(struck.seconds, 1),
        "exit_code": struck.exit_code,
        "stdout_is_one_object": bool(struck.stages),
        "not_json_on_stderr": [line.strip() for line in struck.said if not line.startswith("{")][:NAMED],
    }


def _stages(out: str) -> list[dict[str, Any]]:
    """What the result on stdout says of each stage; nothing where that is not one JSON object."""
    try:
        return list(json.loads(out)["stages"])
    except (ValueError, KeyError):
        return []


class _Run:
    """`framemill run` as a command of its own on a cluster. It kills a node in each stage of `victims`, in
    their order, and adds one after the first."""

    def __init__(self, cluster: Raylets, victims: Sequence[str] = ()) -> None:
        self._cluster, self._victims, self._began_s = cluster, [*victims], time.monotonic()
        self._newcomer = threading.Thread(target=cluster.add)
        self.strikes, self.nodes, self.said = list[_Strike](), set[str](), list[str]()
        self.exit_code, self.seconds, self.stages = -1, 0.0, list[dict[str, Any]]()

    def go(self, root: str, progress: Progress) -> "_Run":
        words = ["run", f"{BUCKET}/raw", "--out", root, "--executor", "ray", "--json", "--log-level", "info"]
        words += [word for setting in SETTINGS for word in ("--set", setting)]
        with tempfile.TemporaryFile("w+") as out:
            run = subprocess.Popen(
                [sys.executable, "-m", "framemill", *words],
                env={**os.environ, **self._cluster.environment},
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            stuck = threading.Timer(STUCK_S, _end, [run])
            stuck.start()
            try:
                assert run.stderr is not None
                for line in run.stderr:
                    self._heed(line, progress)
                self.exit_code = run.wait()
            finally:
                stuck.cancel()
                _end(run)
                if self._newcomer.ident is not None:
                    self._newcomer.join()
            self.seconds = time.monotonic() - self._began_s
            out.seek(0)
            self.stages = _stages(out.read())
        return self

    def _heed(self, line: str, progress: Progress) -> None:
        if (ended := _ended_task(line)) is None:
            self.said.append(line)
            return
        stage, node, tries = ended
        self.nodes.add(node)
        progress(len(self.strikes), len(KILLED_IN), {"in": stage})
        if self.strikes:  # what comes back late comes of the last of them
            self.strikes[-1].tasks_put_back += tries > 1
        if self._victims[:1] == [stage]:
            self._cluster.kill(self._cluster.named(node))
            after_s = time.monotonic() - self._began_s
            self.strikes.append(_Strike(stage=self._victims.pop(0), after_s=after_s))
            if len(self.strikes) == 1:
                self._newcomer.start()


def _end(run: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()


def _ended_task(line: str) -> tuple[str, str, int] | None:
    """(stage, node, tries) of a line of the run's log that says how a task ended."""
    try:
        match = TASK.match(json.loads(line).get("log", ""))
    except ValueError:
        return None
    return (match[1], match[2], int(match[3])) if match else None
