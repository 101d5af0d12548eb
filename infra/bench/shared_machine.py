"""What a machine that others use costs: a training step beside busy loops, a run on one and on two workers.

    python infra/bench/shared_machine.py                          # the training step, on the demo's input
    python infra/bench/shared_machine.py --media DIR --steps 0    # only the run on one and two workers

In: options. Out: one JSON object on stdout: seconds a step and their ratio to the idle ones for each way that
OpenMP threads can wait; seconds of a run on 1 and 2 workers and whether it left the same bytes; the load
average before each measurement, for "idle" is only as idle as the machine. Writes below --work only.
"""

import argparse
import hashlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
THREADS = ("OMP_WAIT_POLICY", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
WAYS = {  # what the environment says; torch is imported before framemill can add to it
    "unset": {},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WARM_UP_STEPS = 2
TRAIN = "import sys, torch, framemill; sys.exit(framemill.main(sys.argv[1:]))"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench/shared", help="scratch folder")
    parser.add_argument("--corpus", type=Path, help="with shards (default: the demo's input is run)")
    parser.add_argument("--steps", type=int, default=8, help="training steps a measurement; 0: none")
    parser.add_argument("--rounds", type=int, default=2, help="measurements of each; the median counts")
    parser.add_argument("--busy", type=int, default=3, help="busy loops beside the training")
    parser.add_argument("--media", help="folder for the run on one and two workers")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="of waiting")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no busy loop outlives this
    args.work.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "busy_loops": args.busy}
    if args.steps:
        corpus = args.corpus or _demo_corpus(args.work)
        result["training_step"] = _training(args, corpus)
    if args.media:
        result["workers"] = _workers(args.work, args.media)
    print(json.dumps(result))


def _training(args: argparse.Namespace, corpus: Path) -> dict[str, Any]:
    """Way of waiting → seconds a step, idle and beside busy loops, and their ratio."""
    ways: list[str] = args.ways
    idle: dict[str, list[float]] = {way: [] for way in ways}
    beside: dict[str, list[float]] = {way: [] for way in ways}
    loads: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(args.rounds):
        for way in ways:  # side by side, so that what else the machine does meets them alike
            loads[way].append(round(os.getloadavg()[0], 2))
            idle[way] += _step_seconds(args.work, corpus, args.steps, WAYS[way])
            with _busy_loops(args.busy):
                beside[way] += _step_seconds(args.work, corpus, args.steps, WAYS[way])
            _say(f"{way}: {statistics.median(idle[way]):.2f} s, {statistics.median(beside[way]):.2f} s")
    return {
        way: {
            "idle_s": round(statistics.median(idle[way]), 3),
            "busy_s": round(statistics.median(beside[way]), 3),
            "ratio": round(statistics.median(beside[way]) / statistics.median(idle[way]), 2),
            "busy_worst_s": round(max(beside[way]), 3),
            "load_before_idle": loads[way],
        }
        for way in ways
    }


def _step_seconds(work: Path, corpus: Path, steps: int, environment: dict[str, str]) -> list[float]:
    run = work / "run"
    shutil.rmtree(run, ignore_errors=True)
    words = ["train", str(corpus), "--out", str(run), "--init", "builtin:", "--set", "val_share=0"]
    _run([sys.executable, "-c", TRAIN, *words, "--steps", str(WARM_UP_STEPS + steps)], environment)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["seconds"] for line in lines][WARM_UP_STEPS:]


@contextmanager
def _busy_loops(count: int) -> Iterator[None]:
    loops = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(count)]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def _workers(work: Path, media: str) -> dict[str, Any]:
    """A whole run on one worker (the plain loop) and on two."""
    seconds, files, loads = {}, {}, {}
    out = work / "run-corpus"  # one name for both: the report shows it
    for workers in (1, 2):
        shutil.rmtree(out, ignore_errors=True)
        loads[workers], started = round(os.getloadavg()[0], 2), time.monotonic()
        words = ["run", media, "--out", str(out), "--workers", str(workers), "--max-failed", "100%"]
        _run([sys.executable, "-m", "framemill", *words], {})
        seconds[workers] = round(time.monotonic() - started, 1)
        files[workers] = _hashes(out)
        _say(f"{workers} workers: {seconds[workers]} s")
    names = files[1].keys() | files[2].keys()
    differing = sorted(name for name in names if files[1].get(name) != files[2].get(name))
    return {
        "seconds": seconds,
        "ratio": round(seconds[2] / seconds[1], 3),
        "files": len(files[1]),
        "differing": differing,
        "load_before": loads,
    }


def _hashes(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "receipts")
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def _demo_corpus(work: Path) -> Path:
    toy, corpus = work / "toy", work / "corpus"
    if not (toy / "truth.jsonl").exists():
        words = ["toyworld", str(toy), "--videos", "10", "--images", "6", "--seed", "2026"]
        _run([sys.executable, "-m", "framemill", *words], {})
    words = ["run", str(toy), str(ROOT / "infra" / "media"), "--out", str(corpus)]
    _run([sys.executable, "-m", "framemill", *words], {})
    return corpus


def _run(command: list[str], environment: dict[str, str]) -> None:
    kept = {name: value for name, value in os.environ.items() if name not in THREADS}
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = kept | {"PYTHONPATH": paths} | environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
