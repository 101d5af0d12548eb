"""Verdicts from a table: which clips are kept, which are rejected, and every reason why.

In: the clips table, the rules (pipeline/stages/rules.py) and the pairs of copies
(pipeline/dedup/groups.py). Out: the judged table and the table of duplicate groups. Never: a file is
decoded, or a rule applied to what was not measured (null). *failed* (nothing is known) and *rejected*
(known, and not wanted) stay apart.

Pairs depend on the prints alone and are kept in pairs.parquet, so that new rules cost seconds. Groups join
every clip, a rejected one too: it never stays, but what it resembles is one group.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config, JudgeConfig, load_config
from pipeline.corpus import tables
from pipeline.corpus.corpus import JUDGED_PATH, Corpus, kept
from pipeline.dedup import groups as dedup
from pipeline.dedup.print_store import CorpusPrints, WatchedPrints
from pipeline.dedup.semantic import semantic_pairs
from pipeline.engine.runner import Executor, LocalExecutor, RunSummary
from pipeline.progress import Progress, Steps, silent
from pipeline.rule_grammar import KINDS, rules_of
from pipeline.settings import fingerprint
from pipeline.stages import decontaminate, rules

VERSION = 2  # raised when the same rules give other verdicts
PAIRS_PATH, DUPLICATES_PATH = "pairs.parquet", "duplicates.parquet"
STEPS = ("clips", *(f"{kind} copies" for kind in KINDS), "rules and groups", "tables")  # of a judgement
JUDGED_COLUMNS = (  # of the clips: what rules may name, and what the judged table repeats
    "clip_id",
    "source_id",
    "kind",
    "start_s",
    "end_s",
    "fps",
    "crop",
    "boundary_confidence",
    "signals",
    "status",
    "reason",
)
CLOSENESS = ("exact", "perceptual", "semantic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    """What judging gives: schemas JUDGED, in the order of the clips, and DUPLICATES."""

    judged: pa.Table
    duplicates: pa.Table


def judge(
    clips: pa.Table,
    config: JudgeConfig,
    pairs: pa.Table | None = None,
    contaminated: pa.Table | None = None,
) -> Verdicts:
    """Judges clips sorted by id; `pairs` (dedup.PAIRS) are of their row numbers, `contaminated`
    (CONTAMINATED) names them."""
    failed = pc.equal(clips["status"], "failed").to_numpy(zero_copy_only=False)
    masks = rules.broken(clips, rules_of(rules.resolved(config)))
    if contaminated is not None:
        bad = pc.is_in(clips["clip_id"], value_set=contaminated["clip_id"])
        masks["contaminated"] = bad.to_numpy(zero_copy_only=False)
    sound = ~failed
    for mask in masks.values():
        sound &= ~mask
    copy_of = np.full(len(failed), -1)
    duplicates = tables.DUPLICATES.empty_table()
    if config.dedup and pairs is not None and pairs.num_rows:
        duplicates, copy_of = _resolve(clips, pairs, sound)
    masks["duplicate"] = copy_of >= 0
    status = np.where(failed, "failed", np.where(sound & (copy_of < 0), "kept", "rejected"))
    ids = clips["clip_id"].combine_chunks()
    judged = pa.table(
        [
            ids,
            clips["source_id"],
            clips["kind"],
            pc.subtract(clips["end_s"], clips["start_s"]),
            pa.array(status, pa.string()),
            _reasons(masks, failed, clips["reason"]),
            ids.take(pa.array(copy_of, mask=copy_of < 0)),
        ],
        names=tables.JUDGED.names,
    )
    return Verdicts(judged=judged.cast(tables.JUDGED), duplicates=duplicates)


def judge_corpus(
    corpus: Corpus,
    config: Config,
    executor: Executor | None = None,
    progress: Progress = silent,
    embeddings: pa.Table | None = None,
) -> RunSummary:
    """Judges all current clips and writes judged.parquet and duplicates.parquet, unless clips and rules are
    as they were. `embeddings` (EMBEDDINGS) are for semantic copies and the column `aesthetic`."""
    started = time.monotonic()
    tainted = None
    if config.judge.decontaminate:
        tainted = decontaminate.contaminated(corpus, config, executor or LocalExecutor(), progress)
    plain = replace(config.judge, preset="", rules={})
    upstream = (
        corpus.analyzed_fingerprint(),
        corpus.fingerprints().get("contaminated") if tainted is not None else "",
    )
    if embeddings is not None:
        stages = sorted(corpus.fingerprints().items())
        upstream += (
            embeddings.num_rows,
            *(value for name, value in stages if name.startswith("embeddings/")),
        )
    current = fingerprint(plain, rules.resolved(config.judge), VERSION, *upstream)
    if corpus.fingerprints().get("judge") == current and corpus.storage.exists(JUDGED_PATH):
        corpus.record(config, "judge", current)
        return RunSummary(stage="judge", tasks=0, lost=(), counts={}, seconds=time.monotonic() - started)
    steps = Steps(STEPS, progress)
    steps.at("clips")
    clips = _scored(corpus.clips(JUDGED_COLUMNS), embeddings)
    pairs = _pairs(corpus, config, clips, embeddings, steps) if config.judge.dedup else None
    steps.at("rules and groups")
    verdicts = judge(clips, config.judge, pairs, tainted)
    steps.at("tables")
    corpus.storage.write_bytes(DUPLICATES_PATH, tables.to_parquet(verdicts.duplicates))
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(verdicts.judged))
    corpus.record(config, "judge", current)
    steps.end()
    spent_s = time.monotonic() - started
    counts = _counted(verdicts.judged["status"])
    return RunSummary(stage="judge", tasks=1, lost=(), counts=counts, seconds=spent_s)


def what_if(
    corpus: Corpus, config: Config, changes: Sequence[str], embeddings: pa.Table | None = None
) -> dict[str, Any]:
    """The funnel of the corpus as it would be judged now, and with these changes of rules
    (`signals.motion.min=0.2`). Writes nothing."""
    clips = _scored(corpus.clips(JUDGED_COLUMNS), embeddings)
    tainted = decontaminate.stored(corpus) if config.judge.decontaminate else None
    pairs = (
        _pairs(corpus, config, clips, embeddings, Steps(STEPS, silent), write=False)
        if config.judge.dedup
        else None
    )
    changed = load_config(None, [f"judge.rules.{change}" for change in changes], config)
    now, then = (judge(clips, c.judge, pairs, tainted).judged for c in (config, changed))
    return {"clips": clips.num_rows, "changes": list(changes), "now": _funnel(now), "then": _funnel(then)}


def what_if_lines(funnels: dict[str, Any]) -> list[str]:
    """Both funnels side by side, for people."""
    now, then = funnels["now"], funnels["then"]
    lines = [f"{'':<24}{'now':>10}{'then':>10}"]
    for part in ("status", "reasons"):
        for name in dict.fromkeys([*now[part], *then[part]]):
            indent = "  " * (part == "reasons")
            lines.append(f"{indent + name:<24}{now[part].get(name, 0):>10}{then[part].get(name, 0):>10}")
    lines.append(f"{'kept seconds':<24}{now['kept_s']:>10.1f}{then['kept_s']:>10.1f}")
    return lines


def _funnel(judged: pa.Table) -> dict[str, Any]:
    return {
        "status": _counted(judged["status"]),
        "reasons": _counted(pc.list_flatten(judged["reasons"])),
        "kept_s": round(pc.sum(kept(judged)["duration_s"]).as_py() or 0.0, 3),
    }


def _counted(values: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted((v["values"], v["counts"]) for v in pc.value_counts(values).to_pylist()))


def _scored(clips: pa.Table, embeddings: pa.Table | None) -> pa.Table:
    """The clips with their aesthetic score, where there is one."""
    if embeddings is None:
        return clips
    at = pc.index_in(clips["clip_id"], value_set=embeddings["clip_id"])
    return clips.append_column("aesthetic", embeddings["aesthetic"].take(at))


def _pairs(
    corpus: Corpus,
    config: Config,
    clips: pa.Table,
    embeddings: pa.Table | None,
    steps: Steps,
    *,
    write: bool = True,
) -> pa.Table:
    """All pairs of copies among the clips."""
    pairs = _perceptual(corpus, config, clips, steps, write=write)
    if embeddings is None or not config.judge.semantic_distance:
        return pairs
    current = pc.is_in(embeddings["clip_id"], value_set=clips["clip_id"])
    known = embeddings.filter(pc.and_(current, pc.equal(embeddings["status"], "ok")))
    rows = pc.index_in(known["clip_id"], value_set=clips["clip_id"]).to_numpy()
    vectors = known["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), -1)
    return pa.concat_tables([pairs, semantic_pairs(vectors, rows, config.judge.semantic_distance)])


def _perceptual(corpus: Corpus, config: Config, clips: pa.Table, steps: Steps, *, write: bool) -> pa.Table:
    """Pairs of the same footage, found once for the same prints and settings."""
    current = fingerprint(config.judge.mirrored, dedup.VERSION, corpus.analyzed_fingerprint())
    if corpus.fingerprints().get("pairs") == current and corpus.storage.exists(PAIRS_PATH):
        return tables.from_parquet(corpus.storage.read_bytes(PAIRS_PATH), dedup.PAIRS)
    pairs = find_pairs(corpus, clips, config.judge, steps)
    if write:
        corpus.storage.write_bytes(PAIRS_PATH, tables.to_parquet(pairs))
        corpus.record(config, "pairs", current)
    return pairs


def find_pairs(corpus: Corpus, clips: pa.Table, config: JudgeConfig, steps: Steps | None = None) -> pa.Table:
    """dedup.PAIRS of row numbers of `clips`; videos and stills are compared apart, each a step of STEPS."""
    steps = steps or Steps(STEPS, silent)
    of_kind = [dedup.PAIRS.empty_table()]
    width, height = rules.active_size(clips)
    for kind in KINDS:
        rows = np.flatnonzero(pc.equal(clips["kind"], kind).to_numpy(zero_copy_only=False))
        ids = clips["clip_id"].combine_chunks().take(pa.array(rows))
        pairs = dedup.perceptual_pairs(
            WatchedPrints(CorpusPrints(corpus, ids), steps.at(f"{kind} copies")),
            mirrored=config.mirrored,
            aspects=(width / height)[rows],
        )
        for n, name in enumerate(("a", "b")):
            pairs = pairs.set_column(n, name, pa.array(rows[pairs[name].to_numpy()], pa.int64()))
        of_kind.append(pairs)
    return pa.concat_tables(of_kind)


def _resolve(clips: pa.Table, pairs: pa.Table, sound: np.ndarray) -> tuple[pa.Table, np.ndarray]:
    """The groups (schema DUPLICATES), and for each clip the row that it is a copy of, or -1. Only sound clips
    stay or go: a rejected one has reasons of its own."""
    order = ("duration_s", "area_px", "signals.sharpness")
    seconds, area, sharp = (np.nan_to_num(rules.column(clips, name)) for name in order)
    copy_of = np.full(len(sound), -1)
    nearest: dict[int, tuple[int, float, bool]] = {}
    ends = pairs["a"].to_pylist(), pairs["b"].to_pylist()
    how = (pairs[name].to_pylist() for name in ("kind", "distance", "mirrored"))
    for a, b, kind, away, mirrored in zip(*ends, *how, strict=True):
        relation = (CLOSENESS.index(kind), away, mirrored)
        for i in (a, b):
            nearest[i] = min(nearest.get(i, relation), relation)
    group, member, kept = [], [], []
    for members in dedup.grouped(zip(*ends, strict=True)):
        alive = [i for i in members if sound[i]]
        best = dedup.best_of(alive, seconds, area, sharp) if alive else -1
        copy_of[[i for i in alive if i != best]] = best
        group += [members[0]] * len(members)
        member += members
        kept += [i == best for i in members]
    ids = clips["clip_id"].combine_chunks()
    close = [nearest[i] for i in member]
    columns = [
        ids.take(pa.array(group, pa.int64())),
        ids.take(pa.array(member, pa.int64())),
        pa.array([CLOSENESS[kind] for kind, _, _ in close], pa.string()),
        pa.array([mirrored for _, _, mirrored in close], pa.bool_()),
        pa.array([away for _, away, _ in close], pa.float32()),
        pa.array(kept, pa.bool_()),
    ]
    return pa.table(columns, schema=tables.DUPLICATES), copy_of


def _reasons(masks: dict[str, np.ndarray], failed: np.ndarray, why_failed: pa.ChunkedArray) -> pa.Array:
    """list<string> [N]: the names of the masks that hold, in their order; of a failed clip its own reason."""
    names = pa.array([*masks, "unknown"], pa.string())
    holds = np.stack([mask & ~failed for mask in masks.values()] + [failed], axis=1)  # [N, R + 1]
    clip, which = np.nonzero(holds)
    texts = names.take(pa.array(which))
    own = why_failed.combine_chunks().take(pa.array(clip, mask=~failed[clip]))
    offsets = np.concatenate([[0], np.cumsum(holds.sum(axis=1))])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pc.coalesce(own, texts))
