"""The plan against the run: in how many samples of ten does a range of 90 % hold what the run then shows.

In: folders of media, seeds. Out: for each line of the plan the truth, what each seed said of it, and how many
ranges held it. Never: wall time as a truth: other work on the machine changes it more than any sample does.

The run is the command line, verb by verb, on one worker and without the removal of copies, which a plan does
not estimate (how many there are is said beside it). Compared are CPU seconds, user and system, of the command
and all its processes: those of each stage less those of the same verb over a single clip, which starts and
loads all the same. The run is measured before the plans and again after them, in one invocation; the truth is
the mean.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.errors import FramemillError, UsageError
from pipeline.progress import Progress, silent

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("analyze", "judge", "caption", "encode")
WORKED = ("analyze", "caption", "encode")  # whose seconds a plan tells
NO_COPIES = ("--set", "judge.dedup=false")
FEWEST = 40  # clips that a comparison is worth


def bench_plan(
    media: Sequence[str], seeds: int, seconds: float | None, progress: Progress = silent
) -> dict[str, Any]:
    """`ratio`: the share of seeds whose range held the truth, of the line where it is least."""
    done, steps = 0, seeds + 3

    def step(name: str) -> None:
        nonlocal done
        progress(done, steps, {"step": name})
        done += 1

    with tempfile.TemporaryDirectory(prefix="framemill-bench-plan-") as folder:
        step("run")
        corpus = Corpus(f"{folder}/first")
        first_s = _run(media, corpus.root)
        truth = counted(corpus)
        if truth["clips"] < FEWEST:
            raise UsageError(f"{truth['clips']} clips in {', '.join(media)}", expected=f"{FEWEST} or more")
        step("run over one clip")
        load_s = _run([_smallest(corpus)], f"{folder}/one")
        plans = []
        for seed in range(seeds):
            step(f"plan {seed}")
            plans.append(_plan(media, seed, seconds))
        step("run again")
        again_s = _run(media, f"{folder}/again")
        _command("judge", corpus.root, "--set", "judge.dedup=true")
        copies = truth["passing"] - corpus.kept().num_rows
    for name in WORKED:
        truth[f"cpu_s.{name}"] = (first_s[name] + again_s[name]) / 2 - load_s[name]
    lines = {name: held(value, [figure(plan, name) for plan, _ in plans]) for name, value in truth.items()}
    run_s = sum(first_s.values())
    plan_s = sum(cpu_s for _, cpu_s in plans) / seeds
    details = {
        "lines": lines,
        "copies": copies,
        "run_cpu_s": {"first": first_s, "again": again_s, "one clip": load_s},
        "plan_cpu_s": round(plan_s, 1),
        "plan_over_run": round(plan_s / run_s, 3),
        "analysed_s": [plan["analysed_s"] for plan, _ in plans],
        "load_average": round(os.getloadavg()[2], 1),
    }
    least = min(line["held"] for line in lines.values()) / seeds
    return {"name": "plan", "ratio": round(least, 3), "against": "the run", "details": details}


def lines(result: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    details = result["details"]
    table = [f"{'':16s} {'run':>14s} {'held':>7s}   plans, least and most: estimate (range)"]
    for name, line in details["lines"].items():
        said = sorted(line["said"], key=lambda figure: figure["value"])
        least, most = (f"{s['value']:,g} ({s['low']:,g} to {s['high']:,g})" for s in (said[0], said[-1]))
        table.append(f"{name:16s} {line['truth']:14,.2f} {line['held']:3d}/{len(said)}   {least}, {most}")
    table.append(
        f"a plan takes {details['plan_cpu_s']} CPU seconds, {details['plan_over_run']} of the run's; "
        f"{details['copies']} of the clips are copies, which no plan estimates"
    )
    return table


def held(truth: float, said: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """How many of the ranges hold the truth."""
    count = sum(figure["low"] <= truth <= figure["high"] for figure in said)
    return {"truth": round(truth, 4), "held": count, "said": [dict(figure) for figure in said]}


def figure(plan: Mapping[str, Any], name: str) -> dict[str, float]:
    """The figure that a plan has for a line: `clips`, `cpu_s.encode`. An unknown one holds nothing."""
    value: Any = plan
    for key in name.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return dict(value) if value else {"value": 0.0, "low": 0.0, "high": -1.0}


def counted(corpus: Corpus) -> dict[str, float]:
    """What a run has made, by the names of the plan's lines."""
    sources, judged = corpus.sources(), corpus.kept()
    sizes = {file.uri.removeprefix(f"{corpus.root}/"): file.size_bytes for file in corpus.storage.walk()}
    return {
        "hours": (pc.sum(sources["duration_s"]).as_py() or 0.0) / 3600,
        "unreadable": sources.filter(pc.equal(sources["status"], "failed")).num_rows,
        "clips": corpus.clips().num_rows,
        "passing": judged.num_rows,
        "table_bytes": sum(
            nbytes
            for path, nbytes in sizes.items()
            if path.endswith(".parquet") and not path.startswith("latents/")
        ),
        "latent_bytes": sum(nbytes for path, nbytes in sizes.items() if path.endswith(".tar")),
    }


def _smallest(corpus: Corpus) -> str:
    """The smallest video of which one clip was kept, and no other."""
    kept, sources = corpus.kept(), corpus.sources()
    counts = pc.value_counts(kept["source_id"].combine_chunks()).to_pylist()
    once = pa.array([row["values"] for row in counts if row["counts"] == 1], pa.string())
    of_one = pc.and_(pc.is_in(sources["source_id"], value_set=once), pc.equal(sources["kind"], "video"))
    rows = sources.filter(of_one).sort_by("size_bytes")
    if not rows.num_rows:
        raise UsageError("no video among these has one clip that passes", fix="add a short one")
    return str(rows["uri"][0].as_py())


def _run(media: Sequence[str], root: str) -> dict[str, float]:
    """CPU seconds of each verb of a run into the corpus at `root`."""
    seconds = {}
    for verb in STAGES:
        words = [*media, "--out", root] if verb == "analyze" else [root]
        words += ["--workers", "1", "--max-failed", "100%", *(NO_COPIES if verb == "judge" else ())]
        seconds[verb] = _command(verb, *words)[1]
    return seconds


def _plan(media: Sequence[str], seed: int, seconds: float | None) -> tuple[dict[str, Any], float]:
    """What a plan says, and its CPU seconds: those of the decoders of its workers, which end with them, are
    known from what it has measured."""
    words = [] if seconds is None else ["--seconds", str(seconds)]
    text, cpu_s = _command("plan", *media, "--seed", str(seed), "--json", *words)
    plan: dict[str, Any] = json.loads(text)
    return plan, cpu_s + plan["sample_cpu_s"]


def _command(*words: str) -> tuple[str, float]:
    """What a command prints, and its CPU seconds with those of all processes that it waited for."""
    command = [sys.executable, str(ROOT / "framemill.py"), *words]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=out, stderr=errors, cwd=ROOT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
            raise FramemillError(f"framemill {' '.join(words)} ended with {process.returncode}: {said[-1:]}")
        out.seek(0)
        return out.read().decode(), used.ru_utime + used.ru_stime
