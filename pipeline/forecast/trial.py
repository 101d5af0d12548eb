"""The sample put through the stages themselves, in a temporary corpus, each measured.

In: units, the config, the stages that need models. Out: what came of each unit, and what the stages took.
Never: a file outside the temporary folder; a run that ends because a model cannot be had: what it would have
told is unknown, with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from tarfile import BLOCKSIZE
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, JUDGED_PATH, PIECES_FOLDER, Corpus
from pipeline.corpus.latent_set import LatentSet
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Executor, RunSummary, run
from pipeline.engine.stage import Failure, Task, guard
from pipeline.errors import FramemillError
from pipeline.forecast.measured import MeasuredStage, Measurements, Measuring, Slices, Spent, measurements_of
from pipeline.forecast.sample import SPAN_S, Unit, every_kth
from pipeline.progress import Progress, silent
from pipeline.settings import fingerprint
from pipeline.sources.content import open_content
from pipeline.stages.analyze import AnalyzeStage
from pipeline.stages.judge import find_pairs, judge
from pipeline.stages.long_sources import Pieces, PieceStage

StageRun = Callable[[Corpus, Config, Executor, Progress], RunSummary]
STILLS_AT_ONCE = 16  # in one slice: many small files cost less together
TRIED = {"video": 12, "image": 4}  # clips that the named models are tried on
CLIPS_AT_ONCE = {"caption": 4, "encode": 1}  # in one slice


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of the analysis of one unit. Clips that the unit's borders cut off, which are not whole,
    count neither as `judged` nor as `passed`."""

    unit: Unit
    decoded_s: float = 0.0  # of a whole source, what its frames say
    spans: int = (
        0  # stretches between cuts, and so clips, of which a piece shares its first with the one before
    )
    judged: int = 0
    passed: int = 0  # the rules; copies are not looked for
    reasons: tuple[str, ...] = ()  # of judged clips that did not pass
    strip_bytes: int = 0  # of all its clips' pictures and prints


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The analysed units, in order; what groups of them (numbers of units) took; how many of their clips are
    copies of one another; bytes of the tables' rows beside the filmstrips, a clip; the measurements of the
    models, or why there are none; the kind and the bytes of each latent."""

    outcomes: tuple[Outcome, ...]
    analysis: Measurements
    copies: int
    row_bytes: float
    models: Mapping[str, Measurements | str]
    latents: tuple[tuple[str, int], ...]


def try_out(
    units: Sequence[Unit], corpus: Corpus, config: Config, models: Mapping[str, StageRun], progress: Progress
) -> Sample:
    """Runs the analysis over the units, then each model over a few of the clips that pass the rules."""
    steps = ("analyze", *models)
    progress(0, len(steps), {"step": steps[0]})
    analysis = _analyse(units, corpus, config)
    clips = corpus.clips()
    rules = replace(config.judge, dedup=False, decontaminate="")
    judged = judge(clips, rules).judged
    copies = _copies(corpus, clips, config) if config.judge.dedup else 0
    outcomes = _outcomes(units, corpus, clips, judged)
    _keep(corpus, judged, config)
    tried: dict[str, Measurements | str] = {}
    for number, (name, stage_run) in enumerate(models.items(), 1):
        progress(number, len(steps), {"step": name})
        tried[name] = _tried(stage_run, corpus, config, CLIPS_AT_ONCE[name])
    progress(len(steps), len(steps), {})
    others = [(corpus.sources(), tables.SOURCES), (clips, tables.CLIPS), (judged, tables.JUDGED)]
    row_bytes = sum(_size(rows) - _size(schema.empty_table()) for rows, schema in others)
    return Sample(
        outcomes=tuple(outcomes),
        analysis=analysis,
        copies=copies,
        row_bytes=row_bytes / max(1, clips.num_rows),
        models=tried,
        latents=_latents(corpus, config),
    )


def _size(rows: pa.Table) -> int:
    return len(tables.to_parquet(rows))


def _copies(corpus: Corpus, clips: pa.Table, config: Config) -> int:
    """Of these clips, those that are copies of others of them."""
    pairs = find_pairs(corpus, clips, config.judge)
    judged = judge(clips, replace(config.judge, decontaminate=""), pairs).judged
    return sum("duplicate" in (reasons or ()) for reasons in judged["reasons"].to_pylist())


def _latents(corpus: Corpus, config: Config) -> tuple[tuple[str, int], ...]:
    """Of each clip that was encoded: its kind, and the bytes of its two members in a tar."""
    rows = LatentSet(corpus.storage, config.encode.name).index().to_pylist()
    return tuple(
        (row["kind"], _member_bytes(row["nbytes"]) + _member_bytes(row["json_nbytes"]))
        for row in rows
        if row["status"] == "ok"
    )


def _member_bytes(nbytes: int) -> int:
    """With its header, in whole blocks."""
    return BLOCKSIZE * (1 + -(-nbytes // BLOCKSIZE))


# -- the analysis ---------------------------------------------------------------------------------


def _analyse(units: Sequence[Unit], corpus: Corpus, config: Config) -> Measurements:
    """Writes one part with what the analyze stage makes of the units, each video a slice of its own, stills
    many at once."""
    cut = replace(config.analyze, segment_s=SPAN_S)
    rows = [
        {"source_key": u.key, "uri": u.header.uri, "size_bytes": u.header.size_bytes, "mtime_ns": 1}
        for u in units
    ]
    inputs = tables.from_rows(rows, tables.INPUTS)
    current = fingerprint(config.analyze, AnalyzeStage.version)
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(inputs))
    corpus.record(config, AnalyzeStage.name, current)
    pieces, before = _pieces(units, corpus, cut)
    videos = [n for n, unit in enumerate(units) if unit.header.kind == "video"]
    stills = [n for n, unit in enumerate(units) if unit.header.kind == "image"]
    videos.sort(key=lambda n: units[n].header.work(units[n].seconds))  # the first is worked on twice
    slices: Slices = [
        *([n] for n in videos),
        *(stills[at : at + STILLS_AT_ONCE] for at in range(0, len(stills), STILLS_AT_ONCE)),
    ]
    task = Task(key=f"{current[:8]}-sample", inputs=inputs)
    stage = AnalyzeStage(cut, root=corpus.root, pieces=pieces)
    summary = run(MeasuredStage(stage, {task.key: slices}), [task], PoolExecutor(1), corpus.root)
    if summary.lost:
        raise FramemillError(f"the sample cannot be analysed: {summary.lost[0].error}")
    measured = measurements_of(corpus.storage, stage, [task])
    slices_with_pieces = (
        replace(piece, spent=sum((before.get(units[n].key, Spent()) for n in piece.rows), piece.spent))
        for piece in measured.slices
    )
    resources = stage.resources.set_to(AnalyzeStage.name, config.resources.analyze)
    return replace(measured, slices=tuple(slices_with_pieces), resources=resources)


def _pieces(
    units: Sequence[Unit], corpus: Corpus, cut: AnalyzeConfig
) -> tuple[dict[str, Pieces], dict[str, Spent]]:
    """Decodes the pieces of longer sources: the file of each unit that is one, and its seconds."""
    tasks: dict[str, tuple[str, Task]] = {}
    for unit in (u for u in units if u.pieces > 1):
        content = guard(lambda unit=unit: _content(unit.header.uri))  # type: ignore[misc]
        if not isinstance(content, Failure):
            row = {"uri": unit.header.uri, "source_id": content, "piece": unit.piece, "pieces": unit.pieces}
            inputs = pa.Table.from_pylist([row])
            tasks[unit.key] = (content, Task(key=fingerprint(unit.key), inputs=inputs))
    stage, todo = PieceStage(cut), [task for _, task in tasks.values()]
    run(MeasuredStage(stage, {}), todo, PoolExecutor(1), corpus.root)
    spent = {piece.key: piece.spent for piece in measurements_of(corpus.storage, stage, todo).slices}
    pieces = {
        key: Pieces(source_id=content, paths=(f"{PIECES_FOLDER}/{task.key}.npz",))
        for key, (content, task) in tasks.items()
    }
    return pieces, {key: spent.get(task.key, Spent()) for key, (_, task) in tasks.items()}


def _content(uri: str) -> str:
    with open_content(uri) as (_, source_id):
        return source_id


def _outcomes(units: Sequence[Unit], corpus: Corpus, clips: pa.Table, judged: pa.Table) -> list[Outcome]:
    """Of each unit. Units of one source are told apart by the time of their clips."""
    source_of = {row["source_key"]: row for row in corpus.sources().to_pylist()}
    strip_bytes = {row["clip_id"]: _strip_bytes(row) for row in corpus.strips().to_pylist()}
    verdicts = dict(zip(judged["clip_id"].to_pylist(), judged.to_pylist(), strict=True))
    clips_of: dict[str, list[dict[str, Any]]] = {}
    columns = ["clip_id", "source_id", "start_s", "end_s"]
    for clip in clips.sort_by("start_s").select(columns).to_pylist():
        clips_of.setdefault(clip["source_id"], []).append(clip)
    outcomes = []
    for unit in units:
        source = source_of.get(unit.key, {"status": "failed"})
        if source["status"] not in ("ok", "salvaged"):
            outcomes.append(Outcome(unit=unit))
            continue
        from_s, to_s = unit.piece * SPAN_S, unit.piece * SPAN_S + unit.seconds
        alone = unit.pieces == 1
        inside = [c for c in clips_of.get(source["source_id"], []) if alone or from_s <= c["start_s"] < to_s]
        whole = inside[unit.piece > 0 : len(inside) - (unit.piece < unit.pieces - 1)]
        judgements = [verdicts[clip["clip_id"]] for clip in whole]
        passed = [row for row in judgements if row["status"] == "kept"]
        outcomes.append(
            Outcome(
                unit=unit,
                decoded_s=source["duration_s"] if alone else unit.seconds,
                spans=len(inside),
                judged=len(whole),
                passed=len(passed),
                reasons=tuple(reason for row in judgements for reason in row["reasons"] or ()),
                strip_bytes=sum(strip_bytes.get(clip["clip_id"], 0) for clip in inside),
            )
        )
    return outcomes


def _strip_bytes(row: Mapping[str, Any]) -> int:
    """Prints are kept a second time, apart from the pictures."""
    return sum(map(len, row["frames"])) + 2 * len(row["print"] or b"")


# -- the models -----------------------------------------------------------------------------------


def _keep(corpus: Corpus, judged: pa.Table, config: Config) -> None:
    """Writes the judged table as if only the clips that the models are tried on had been kept."""
    chosen: list[str] = []
    for kind, number in TRIED.items():
        kept = judged.filter(pc.and_(pc.equal(judged["status"], "kept"), pc.equal(judged["kind"], kind)))
        chosen += every_kth(kept.sort_by("duration_s")["clip_id"].to_pylist(), number, 0.5)
    mask = pc.is_in(judged["clip_id"], value_set=pa.array(chosen, pa.string()))
    status = pc.if_else(mask, "kept", "rejected")
    judged = judged.set_column(judged.schema.get_field_index("status"), "status", status)
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(judged))
    corpus.record(config, "judge", "sample")


def _tried(stage_run: StageRun, corpus: Corpus, config: Config, per_slice: int) -> Measurements | str:
    """What a model took for the kept clips, or why nobody knows."""
    executor = Measuring(PoolExecutor(1), per_slice)
    try:
        summary = stage_run(corpus, config, executor, silent)
    except (FramemillError, OSError) as error:
        return str(error)
    if summary.lost:
        return summary.lost[0].error
    return executor.measurements or "no clip of the sample passes the rules"
