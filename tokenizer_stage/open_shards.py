"""What of a latent set stays, what is open, and what an abandoned encode left.

In: the state of a set, the keys of the latents that are wanted. Out: its rows as they are to be, and which
clips are to be encoded. A sample that is not wanted is dead: its bytes stay in their tar, which nobody
touches, and it comes back to life when its clip does. Deletes only what no index names. Never: a decoder, a
VAE.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.ids import source_of
from pipeline.corpus.latent_set import DEAD, FAILED, OK, LatentSet, SetState, not_dead
from pipeline.engine.runner import RunSummary, StageStopped
from pipeline.sources.content import is_of_the_file, sizes_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The rows of a set (schema INDEX) that stay, live, dead or failed as they are now; the places of the
    clips that are to be encoded, int64 [M], rising; the tars of which no sample is live any more."""

    rows: pa.Table
    open_at: np.ndarray
    useless: tuple[str, ...]


def keep_what_is_not_analyzed(corpus: Corpus, latents: LatentSet, stored: SetState) -> None:
    """Latents may leave the set because their sources did, or were judged otherwise; while inputs are open
    whose analysis was lost, a source without a row may be one of those, and nothing says that it left."""
    inputs, sources = corpus.inputs()["source_key"], corpus.sources(["source_key", "source_id"])
    known = pc.sum(pc.is_in(inputs, value_set=sources["source_key"])).as_py() or 0
    unanalyzed = len(inputs) - known
    if not unanalyzed:
        return
    pieces = [latents.piece(key)[0]["source_id"] for key in latents.piece_keys()]
    columns = [not_dead(stored.rows)["source_id"], *pieces]
    stored_ids = pc.unique(pa.chunked_array([c for column in columns for c in column.chunks], pa.string()))
    if at_risk := pc.sum(pc.invert(pc.is_in(stored_ids, value_set=sources["source_id"]))).as_py():
        raise StageStopped(
            f"the analysis of {unanalyzed} sources is missing, and encode would delete the latents of "
            f"{at_risk} that may be among them",
            expected="every source analyzed, or taken out of the sources of the run",
            fix="framemill analyze or run with the same sources, then this again",
            summary=RunSummary(stage="encode", tasks=0, lost=(), counts={}, seconds=0.0),
        )


def settle(stored: SetState, there: list[str], wanted: pa.Array) -> Settled:
    """What becomes of the rows of a set when these latents are wanted, by key, and these tars are there."""
    rows = stored.rows
    failed = pc.equal(rows["status"], FAILED)
    in_a_tar = pc.is_in(rows["shard"], value_set=pa.array(there, pa.string()))
    is_wanted = pc.is_in(rows["latent_key"], value_set=wanted)
    rows_stay = pc.or_(pc.and_(failed, is_wanted), pc.and_(pc.invert(failed), in_a_tar))
    status = pc.if_else(failed, FAILED, pc.if_else(is_wanted, OK, DEAD))
    at = rows.schema.get_field_index("status")
    rows = rows.set_column(at, rows.schema.field("status"), status).filter(rows_stay)
    live = pc.unique(rows.filter(pc.equal(rows["status"], OK))["shard"])
    of_use = pc.or_(pc.equal(rows["status"], FAILED), pc.is_in(rows["shard"], value_set=live))
    rows = rows.filter(of_use)
    done = pc.is_in(wanted, value_set=not_dead(rows)["latent_key"])
    return Settled(
        rows=rows,
        open_at=np.flatnonzero(~done.to_numpy(zero_copy_only=False)),
        useless=tuple(sorted(set(there) - set(live.to_pylist()))),
    )


def without_failed(stored: SetState, again: pa.Array) -> SetState:
    """The state without the failed rows of these clips, which are open then."""
    rows = stored.rows
    gone = pc.and_(pc.equal(rows["status"], FAILED), pc.is_in(rows["clip_id"], value_set=again))
    return SetState(rows=rows.filter(pc.invert(gone)), next_shard=stored.next_shard, info=stored.info)


def to_retry(corpus: Corpus, stored: SetState, *, every: bool) -> pa.Array:
    """The clips that failed and are to be tried again: every one, or those that failed for want of their
    file, where one of its size lies there now. Whether it is the one that was analyzed, the worker that opens
    it finds out; size alone spares a set with many lost files from being opened by every run."""
    failed = stored.rows.filter(pc.equal(stored.rows["status"], FAILED)).select(["clip_id", "reason"])
    if every:
        return failed["clip_id"].combine_chunks()
    lost = [row["clip_id"] for row in failed.to_pylist() if is_of_the_file(row["reason"])]
    if not lost:
        return pa.array([], pa.string())
    ids = pa.array(sorted({source_of(clip_id) for clip_id in lost}), pa.string())
    sources = corpus.sources().select(["source_id", "uri", "size_bytes"])
    known = sources.take(pc.index_in(ids, value_set=sources["source_id"]).drop_null()).to_pylist()
    sizes = sizes_bytes([row["uri"] for row in known])
    there = {row["source_id"] for row, size in zip(known, sizes, strict=True) if size == row["size_bytes"]}
    return pa.array([clip_id for clip_id in lost if source_of(clip_id) in there], pa.string())


def done_pieces(latents: LatentSet, planned: list[str]) -> set[str]:
    """The planned pieces that are whole; all others are deleted, their done-markers first."""
    there = set(latents.piece_keys())
    stale = sorted(there - set(planned))
    latents.storage.delete_all(latents.piece_path(key) for key in stale)
    tars = {n.removesuffix(".tar") for n in latents.storage.list(f"{latents.folder}/pieces", ".tar")}
    latents.storage.delete_all(latents.piece_path(key, ".tar") for key in sorted(tars - set(planned)))
    return there & set(planned)


def done_parts(latents: LatentSet, planned: list[str]) -> set[str]:
    """The new tars that are whole, by their keys; parts of others are deleted, before any tar changes."""
    there = set(latents.part_keys())
    latents.storage.delete_all(latents.part_path(key) for key in sorted(there - set(planned)))
    return there & set(planned)


def sweep(latents: LatentSet, rows: pa.Table) -> None:
    """Deletes what the committed rows do not need: pieces, parts, tars that no row names."""
    done_pieces(latents, [])
    done_parts(latents, [])
    named = set(pc.unique(rows["shard"]).to_pylist())
    latents.storage.delete_all(latents.shard_path(n) for n in latents.shards() if n not in named)
