"""The whole zoo through the real analysis: what comes out, held against what went in.

In: a seed, words that choose cases. Out: how many are right, by axis, and what is wrong with the others. The
files are made by a process of their own (pipeline/zoo/make.py), found as a run finds them, and analyzed in
one corpus by the pool; of each clip the filmstrip is read, and the pixels that a VAE would be given. Never: a
codec in this process.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.engine.pool import PoolExecutor
from pipeline.errors import FramemillError, MediaError, UsageError
from pipeline.media.stills import decode_jpeg
from pipeline.names import readable
from pipeline.progress import Progress, silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.uris import local_path
from pipeline.zoo.case import Case
from pipeline.zoo.cases import chosen_cases
from pipeline.zoo.check import Outcome, Shown, differences, says

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """What discovery gives for one case."""

    inputs: pa.Table
    notes: tuple[str, ...]
    refusal: str = ""  # what the command line would say instead


@dataclass(slots=True, kw_only=True)
class Verdicts:
    """What is wrong with each case (nothing: right), and which could not be made here."""

    wrong: dict[str, list[str]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def bench_zoo(
    only: str = "", seed: int = 0, keep: str | None = None, progress: Progress = silent
) -> dict[str, Any]:
    """`ratio`: the share of the cases that come out right."""
    cases = chosen_cases(only, seed)
    if not cases:
        raise UsageError(f"no case has {only!r} in its name", fix="leave --only out to see all")
    with ExitStack() as stack:
        folder = Path(keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="framemill-zoo-")))
        verdicts = check(cases, folder.resolve(), seed, progress)
    return _result(cases, verdicts)


def check(cases: Sequence[Case], folder: Path, seed: int, progress: Progress = silent) -> Verdicts:
    """Makes the cases' files below `folder`, analyzes them as one corpus beside, and holds them up."""
    verdicts = Verdicts()
    for name, problem, missing in _made(cases, folder / "media", seed):
        if missing:
            verdicts.left_out[name] = problem
        elif problem:
            verdicts.wrong[name] = [problem]
    there = [case for case in cases if case.name not in {*verdicts.left_out, *verdicts.wrong}]
    by_case = {case.name: _taken_in(case, folder / "media" / case.name) for case in there}
    with tempfile.TemporaryDirectory(prefix="framemill-zoo-") as out:
        corpus = Corpus(out)
        inputs = pa.concat_tables(
            [tables.INPUTS.empty_table(), *(intake.inputs for intake in by_case.values())]
        )
        summary = analyze_corpus(corpus, inputs, Config(), PoolExecutor(), progress)
        if summary.lost:
            raise FramemillError(f"the analysis lost a task: {summary.lost[0].error}")
        outcomes = _outcomes(corpus)
    for case in there:
        place = folder / "media" / case.name
        verdicts.wrong[case.name] = _verdict(case, by_case[case.name], outcomes, place)
    return verdicts


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    details = result["details"]
    table = [f"{'axis':12s} {'right':>6s} {'cases':>6s}"]
    table += [f"{axis:12s} {row['right']:6d} {row['cases']:6d}" for axis, row in details["axes"].items()]
    table.append(f"{'all':12s} {details['right']:6d} {details['cases']:6d}")
    table += [f"wrong: {name}: {'; '.join(wrong)}" for name, wrong in details["wrong"].items()]
    table += [f"left out: {name}: {why}" for name, why in details["left_out"].items()]
    return table


def _result(cases: Sequence[Case], verdicts: Verdicts) -> dict[str, Any]:
    asked = Counter(case.axis for case in cases if case.name not in verdicts.left_out)
    right = Counter(case.axis for case in cases if verdicts.wrong.get(case.name) == [])
    details = {
        "cases": asked.total(),
        "right": right.total(),
        "axes": {axis: {"right": right[axis], "cases": count} for axis, count in asked.items()},
        "wrong": {name: wrong for name, wrong in verdicts.wrong.items() if wrong},
        "left_out": verdicts.left_out,
    }
    ratio = right.total() / asked.total() if asked.total() else 0.0
    return {"name": "zoo", "ratio": round(ratio, 4), "against": "what went in", "details": details}


def _made(cases: Sequence[Case], folder: Path, seed: int) -> list[tuple[str, str, bool]]:
    """(case, what was in the way of making it, whether that is an encoder this FFmpeg lacks)."""
    command = [sys.executable, "-m", "pipeline.zoo.make", str(folder), str(seed)]
    names = json.dumps([case.name for case in cases])
    done = subprocess.run(command, input=names, capture_output=True, text=True, cwd=ROOT, check=False)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if done.returncode or len(rows) != len(cases):
        raise FramemillError(f"the zoo cannot be made: {done.stderr.strip()[-500:]}")
    return [(row["name"], row["problem"], row["missing"]) for row in rows]


def _taken_in(case: Case, place: Path) -> Intake:
    try:
        sources = discover([str(place / given) if given else str(place) for given in case.given])
    except UsageError as error:
        return Intake(inputs=tables.INPUTS.empty_table(), notes=(), refusal=str(error))
    return Intake(inputs=sources.inputs, notes=(*sources.notes, *map(readable, sources.ignored)))


def _outcomes(corpus: Corpus) -> dict[str, Outcome]:
    """uri → what the corpus holds of the source, and what a VAE would be given of its clips."""
    box = Sandbox(AnalyzeConfig().limits())
    clips: dict[str, list[dict[str, Any]]] = {}
    for clip in corpus.clips().to_pylist():
        clips.setdefault(clip["source_id"], []).append(clip)
    strips = {row["clip_id"]: row["frames"] for row in corpus.strips().to_pylist()}
    outcomes = {}
    for row in corpus.sources().to_pylist():
        own = sorted(clips.get(row["source_id"], []), key=lambda clip: clip["start_s"])
        shown = [_shown(box, row["uri"], clip, strips[clip["clip_id"]]) for clip in own]
        outcomes[row["uri"]] = Outcome(row=row, caption=row["original"], clips=shown)
    return outcomes


def _shown(box: Sandbox, uri: str, clip: dict[str, Any], frames: list[bytes]) -> Shown:
    span, problem = None, ""
    try:
        with local_path(uri) as path:
            span = box.read_span(
                path,
                kind=clip["kind"],
                times_s=[clip["start_s"]],
                crop=clip["crop"],
                width_px=clip["crop"][2],
                height_px=clip["crop"][3],
                expected_phash=clip["phash"][0],
            )
    except MediaError as error:
        problem = str(error)
    return Shown(
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        strip=[decode_jpeg(frame) for frame in frames],
        span=span,
        problem=problem,
    )


def _verdict(case: Case, intake: Intake, outcomes: dict[str, Outcome], place: Path) -> list[str]:
    """What is wrong with a case."""
    if intake.refusal:
        ok = case.refused and says(case.refused, intake.refusal)
        return [] if ok else [f"refused: {intake.refusal}"]
    uris = intake.inputs["uri"].to_pylist()
    wanted = {str(place / path): right for path, right in case.sources.items()}
    wrong = [f"{uri}: no such source" for uri in wanted if uri not in uris]
    more = [uri for uri in uris if uri not in wanted]
    if more:
        wrong.append(f"{len(more)} sources too many: {', '.join(more)}")
    several = len(wanted) > 1
    for uri, right in wanted.items():
        if uri in outcomes:
            of_source = differences(right, outcomes[uri])
            wrong += [f"{Path(uri).name}: {what}" for what in of_source] if several else of_source
    reasons = [str(outcomes[uri].row["reason"] or "") for uri in uris if uri in outcomes]
    wrong += [
        f"a note with /{note}/"
        for note in case.notes
        if not any(says(note, words) for words in (*intake.notes, *reasons))
    ]
    if case.refused:
        wrong.append(f"must be refused with /{case.refused}/")
    return wrong
