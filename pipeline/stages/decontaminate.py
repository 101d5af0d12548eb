"""Clips that show footage of an evaluation set, so that a model is not tested on what it was trained on.

In: a corpus, and the evaluation set: another corpus, or media, which are analyzed like sources into
EVALUATION/ below the corpus. Out: for each clip what of the evaluation set it shows. Never: a clip's fate
(pipeline/stages/judge.py), a change to the evaluation set.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import CONFIG_PATH, Corpus
from pipeline.dedup import groups as dedup
from pipeline.dedup.print_store import CorpusPrints, JoinedPrints, WatchedPrints
from pipeline.engine.runner import Executor
from pipeline.errors import UsageError
from pipeline.progress import Progress, Steps, silent
from pipeline.rule_grammar import KINDS
from pipeline.settings import fingerprint
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.storage import Storage

EVALUATION, FOUND_PATH = "evaluation", "contaminated.parquet"


def contaminated(
    corpus: Corpus,
    config: Config,
    executor: Executor,
    progress: Progress,
) -> pa.Table:
    """Schema CONTAMINATED of the corpus against `judge.decontaminate`; found once for the same clips."""
    evaluation = _evaluation(corpus, config, executor, progress)
    key = (corpus.analyzed_fingerprint(), evaluation.analyzed_fingerprint(), dedup.VERSION)
    current = fingerprint(*key)
    if corpus.fingerprints().get("contaminated") == current and corpus.storage.exists(FOUND_PATH):
        return stored(corpus)
    rows = resemblances(corpus, evaluation, progress)
    corpus.storage.write_bytes(FOUND_PATH, tables.to_parquet(rows))
    corpus.record(config, "contaminated", current)
    return rows


def stored(corpus: Corpus) -> pa.Table:
    """What was found last."""
    if not corpus.storage.exists(FOUND_PATH):
        return tables.CONTAMINATED.empty_table()
    return tables.from_parquet(corpus.storage.read_bytes(FOUND_PATH), tables.CONTAMINATED)


def resemblances(corpus: Corpus, evaluation: Corpus, progress: Progress = silent) -> pa.Table:
    """Schema CONTAMINATED: every pair of a clip and a clip of the evaluation set that show the same footage,
    mirrored or not; a still is no copy of a video."""
    rows = [tables.CONTAMINATED.empty_table()]
    steps = Steps([f"evaluation {kind}s" for kind in KINDS], progress)
    ours, theirs = (c.clips(["clip_id", "kind"]) for c in (corpus, evaluation))
    for kind in KINDS:
        ids, tests = (c.filter(pc.equal(c["kind"], kind))["clip_id"].combine_chunks() for c in (ours, theirs))
        prints = JoinedPrints(CorpusPrints(corpus, ids), CorpusPrints(evaluation, tests))
        watched = WatchedPrints(prints, steps.at(f"evaluation {kind}s"))
        pairs = dedup.perceptual_pairs(watched, across=len(ids))
        at = pc.subtract(pairs["b"], len(ids))
        columns = [ids.take(pairs["a"]), tests.take(at), pairs["distance"]]
        rows.append(pa.table(columns, schema=tables.CONTAMINATED))
    return pa.concat_tables(rows).sort_by([("clip_id", "ascending"), ("distance", "ascending")])


def _evaluation(corpus: Corpus, config: Config, executor: Executor, progress: Progress) -> Corpus:
    place = config.judge.decontaminate
    if Storage(place).exists(CONFIG_PATH):
        return Corpus(place)
    inputs = discover([place]).inputs
    if not inputs.num_rows:
        raise UsageError(f"no media in {place}", expected="a folder of media, or a corpus")
    evaluation = Corpus(f"{corpus.root}/{EVALUATION}")
    analyze_corpus(evaluation, inputs, config, executor, progress)
    return evaluation
