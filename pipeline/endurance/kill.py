"""Runs of the whole data side, ended by a signal at a random time and started again.

In: a folder of media (or none: a small toy world), a number of runs, a seed, a signal. Out: how many of them
left the same corpus, byte for byte (compacted tables, filmstrips, shards), as a run that nobody disturbed.
What is killed (-9) takes turns: the driver of a local run, then a worker, the raylet and the driver of a run
on Ray; what is terminated is a driver, which must end with 143 and leave nothing unfinished. Linux only:
processes are found in /proc.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.operation.receipts import FOLDER
from pipeline.progress import Progress, silent
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

VICTIMS = {
    signal.SIGKILL: ("local driver", "worker", "raylet", "ray driver"),
    signal.SIGTERM: ("local driver", "ray driver"),
}
TERMINATED = "exit 143"
PARTS = ("sources", "clips", "strips", "captions", "latents")  # folders of files that never change
ROWS = ("sources", "clips", "captions")  # whose parts are gone once they are folded
SETTINGS = ("analyze.sources_per_task=1", "caption.clips_per_task=2", "encode.clips_per_task=4")
STUCK_S, RESTARTS = 300.0, 3  # a run still alive so long after the kill is stuck; how often to start again
SOONEST_S = 0.1  # after the start; a victim not seen by then is not there
STDERR = "stderr.log"  # of a run, beside its corpus
TOY = ToyWorldConfig(videos=5, images=2, seed=11, min_shots=1, max_shots=2, duplicate_share=0.0)


def bench_kill(
    media: str | None,
    runs: int,
    seed: int,
    *,
    sent: signal.Signals = signal.SIGKILL,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`ratio`: runs that ended equal to the undisturbed one, over all runs. One that was sent SIGTERM must
    also have said so by its exit code, and have left no unfinished file under any name."""
    draw, outcomes, log = random.Random(seed), Counter[str](), []
    with tempfile.TemporaryDirectory(prefix="framemill-kill-") as folder:
        root = Path(folder)
        if media is None:
            render_corpus(root / "toy", TOY)
            media = str(root / "toy")
        usual_s, wanted = {}, {}
        for executor in ("local", "ray"):
            started = time.monotonic()
            _start(media, root / executor / "corpus", executor).wait()
            usual_s[executor] = time.monotonic() - started
            wanted[executor] = contents(root / executor / "corpus")
        if wanted["ray"] != wanted["local"]:
            outcomes["executors differ"] += 1
        for number in range(runs):
            victim = VICTIMS[sent][number % len(VICTIMS[sent])]
            executor = "local" if victim == "local driver" else "ray"
            after_s = draw.uniform(0.05, 0.95) * usual_s[executor]
            out = root / "killed" / "corpus"
            ended = _killed_run(media, out, victim, executor, after_s, sent)
            while ended is None and after_s > SOONEST_S:  # it was done before its kill: sooner, then
                after_s /= 2
                shutil.rmtree(out, ignore_errors=True)
                ended = _killed_run(media, out, victim, executor, after_s, sent)
            unfinished = _unfinished(out, wanted["local"]) if sent == signal.SIGTERM else []
            restarts = 0
            while restarts < RESTARTS and contents(out) != wanted["local"]:
                _start(media, out, "local").wait()
                restarts += 1
            outcome = "same" if contents(out) == wanted["local"] else "different"
            if sent == signal.SIGTERM and ended and (ended != TERMINATED or unfinished):
                outcome = "unclean"
            outcome = outcome if ended else "never killed"
            log.append(
                {
                    "victim": victim,
                    "after_s": round(after_s, 1),
                    "then": ended,
                    "unfinished": unfinished,
                    "restarts": restarts,
                    "outcome": outcome,
                }
            )
            shutil.rmtree(root / "killed", ignore_errors=True)
            outcomes[outcome] += 1
            progress(number + 1, runs, dict(outcomes))
    details = {
        "runs": log,
        "outcomes": dict(outcomes),
        "undisturbed_s": {name: round(seconds, 1) for name, seconds in usual_s.items()},
        "executors_agree": wanted["ray"] == wanted["local"],
        "files": len(wanted["local"]),
    }
    ratio = round(outcomes["same"] / max(1, runs), 4)
    return {"name": "kill", "ratio": ratio, "against": "an undisturbed run", "details": details}


def contents(corpus: Path | str) -> dict[str, bytes]:
    """Every file of a corpus (a folder or s3://…) but hidden ones, and receipts, which hold clocks."""
    storage = Storage(str(corpus))
    names = [storage.relative(file) for file in storage.walk()]
    return {name: storage.read_bytes(name) for name in names if name.split("/")[-2:-1] != [FOLDER]}


def _unfinished(corpus: Path, wanted: dict[str, bytes]) -> list[str]:
    """Temporary files, and parts that are not what an undisturbed run writes under their names; of those
    whose names it left behind, parts that are not whole."""
    left = [str(path.relative_to(corpus)) for path in corpus.rglob(".tmp-*")]
    for name in contents(corpus):
        if name.endswith(".tar") and "/pieces/" in name:
            continue  # a piece without its rows is nothing yet
        passes = name.startswith(ROWS) or any(f"/{folder}/" in name for folder in ("pieces", "parts"))
        if passes and name.endswith(".parquet") and name not in wanted:
            left += [] if _is_whole(corpus / name) else [name]
        elif name.startswith(PARTS) and name.endswith((".parquet", ".tar")):
            left += [] if (corpus / name).read_bytes() == wanted.get(name) else [name]
    return left


def _is_whole(path: Path) -> bool:
    try:
        return pq.read_metadata(path).num_rows >= 0
    except pa.ArrowInvalid:
        return False


def _start(media: str, out: Path, executor: str) -> subprocess.Popen[bytes]:
    words = ["run", media, "--out", str(out), "--executor", executor, "--max-failed", "100%"]
    words += [word for setting in SETTINGS for word in ("--set", setting)]
    if executor == "ray":
        words += ["--workers", "2"]
    out.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "framemill", *words]
    with open(out.parent / STDERR, "wb") as log:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, start_new_session=True)


def _killed_run(
    media: str, out: Path, victim: str, executor: str, after_s: float, sent: signal.Signals
) -> str | None:
    """Starts a run, signals the victim as soon as there is one after `after_s`, and says how the run ended;
    None when it had been done by then. One that failed by itself is told with its last words."""
    run = _start(media, out, executor)
    hits_at, killed = time.monotonic() + after_s, False
    while run.poll() is None and not killed:
        time.sleep(0.05)
        if time.monotonic() >= hits_at:
            for pid in _victims(victim, run.pid)[:1]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, sent)
                    killed = True
    try:
        code = run.wait(STUCK_S)
        said = (out.parent / STDERR).read_text(errors="replace").strip().splitlines()[-1:]
        done = None if code == 0 else f"exit {code} before the kill: {said}"
        ended = f"exit {code}" if killed else done
    except subprocess.TimeoutExpired:
        ended = "stuck"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    return ended


def _victims(victim: str, driver: int) -> list[int]:
    """The pids of a run's victims."""
    if victim.endswith("driver"):
        return [driver]
    pids = []
    for pid, command in descendants(driver):
        # Actors of a crew; idle ones are called ray::IDLE.
        worker = command.startswith(b"ray::") and b"IDLE" not in command and b"Worker" in command
        if (command.split(b"\0")[0].endswith(b"/raylet")) if victim == "raylet" else worker:
            pids.append(pid)
    return pids


def descendants(parent: int) -> list[tuple[int, bytes]]:
    """(pid, command line) of the processes below one, the nearer ones first."""
    families = _families()
    below = list(families.get(parent, ()))
    for pid, _ in below:
        below += families.get(pid, ())
    return below


def _families() -> dict[int, list[tuple[int, bytes]]]:
    """Parent pid → (pid, command line) of its children."""
    families: dict[int, list[tuple[int, bytes]]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                families.setdefault(parent, []).append((int(folder.name), (folder / "cmdline").read_bytes()))
    return families
