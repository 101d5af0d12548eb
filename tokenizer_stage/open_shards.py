"""Which shards of a latent set are to be written: what is stale goes, what failed may be tried again.

In: a latent set and the plan of its shards (key → shard). Out: the keys that are done. Deletes in the order
in which a killed run does no harm: the index first, parts before tars. Never: a decoder, a VAE.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import LatentSet
from pipeline.engine.runner import RunSummary, StageStopped
from pipeline.sources.content import is_of_the_file, sizes_bytes


def keep_what_is_not_analyzed(corpus: Corpus, latents: LatentSet) -> None:
    """Latents may leave the set because their sources did, or were judged otherwise; while inputs are open
    whose analysis was lost, a source without a row may be one of those, and nothing says that it left."""
    inputs, sources = corpus.inputs()["source_key"], corpus.sources(["source_key", "source_id"])
    known = pc.sum(pc.is_in(inputs, value_set=sources["source_key"])).as_py() or 0
    unanalyzed = len(inputs) - known
    if not unanalyzed:
        return
    stored = [latents.part(key)["source_id"] for key in latents.part_keys()]
    stored_ids = pc.unique(pa.chunked_array([c for part in stored for c in part.chunks], pa.string()))
    if at_risk := pc.sum(pc.invert(pc.is_in(stored_ids, value_set=sources["source_id"]))).as_py():
        raise StageStopped(
            f"the analysis of {unanalyzed} sources is missing, and encode would delete the latents of "
            f"{at_risk} that may be among them",
            expected="every source analyzed, or taken out of the sources of the run",
            fix="framemill analyze or run with the same sources, then this again",
            summary=RunSummary(stage="encode", tasks=0, lost=(), counts={}, seconds=0.0),
        )


def drop_stale(latents: LatentSet, planned: Mapping[str, str]) -> set[str]:
    """Deletes what the plan (key → shard) no longer holds: the index first, parts before tars, so that at any
    instant a part means that its tar is whole and its own. Returns the keys that are done."""
    parts = set(latents.part_keys())
    if parts != planned.keys():
        latents.open()
    for key in sorted(parts - planned.keys()):
        latents.storage.delete(latents.part_path(key))
    for shard in sorted(set(latents.shards()) - set(planned.values())):
        latents.storage.delete(latents.shard_path(shard))
    return parts & planned.keys()


def failed_rows(latents: LatentSet, done: set[str]) -> list[dict[str, Any]]:
    """The failed rows of the parts that are done: of the index, where there is one."""
    tables_of_rows = [latents.part(key) for key in sorted(done)] if latents.is_open() else [latents.index()]
    return [
        row
        for rows in tables_of_rows
        for row in rows.filter(pc.equal(rows["status"], "failed"))
        .select(["source_id", "shard", "reason"])
        .to_pylist()
    ]


def back_again(corpus: Corpus, failed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that failed for want of their file, where one of its size lies there now. Whether it is the one
    that was analyzed, the worker that opens it finds out; size alone spares a set with many lost files from
    being opened by every run."""
    lost = [row for row in failed if is_of_the_file(row["reason"])]
    if not lost:
        return []
    ids = pa.array(sorted({row["source_id"] for row in lost}), pa.string())
    sources = corpus.sources().select(["source_id", "uri", "size_bytes"])
    known = sources.take(pc.index_in(ids, value_set=sources["source_id"])).to_pylist()
    sizes = sizes_bytes([row["uri"] for row in known])
    there = {row["source_id"] for row, size in zip(known, sizes, strict=True) if size == row["size_bytes"]}
    return [row for row in lost if row["source_id"] in there]


def drop_failed(latents: LatentSet, planned: Mapping[str, str], shards: set[str]) -> set[str]:
    """Deletes the index and the parts of these shards: they are open again. Returns the parts' keys."""
    keys = {key for key, shard in planned.items() if shard in shards}
    if keys:
        latents.open()
    for key in sorted(keys):
        latents.storage.delete(latents.part_path(key))
    return keys
