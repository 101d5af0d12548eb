"""The encode stage: kept clips in, pieces of latents out, and the set that they make.

In: kept clips (source, span, crop). Each is decoded once, at its target size, in the sandbox, encoded
one by one (so that no latent depends on its neighbours) and stored as a raw posterior mean. A clip that
cannot be decoded is a `failed` row with its reason, and so is one whose file no longer has the content
that was analyzed: it is tried again when a file of that size lies there. A piece is what a killed worker
loses; when every piece is there, whole pieces are copied into new tars, and one write of the index makes
them part of the set. No tar that the set has is ever touched. Never normalises, never captions.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config, DecodeLimits, EncodeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import FAILED, LatentSet, SetState, info_text, with_about
from pipeline.corpus.shards import ChannelSums, LatentsInfo, Sample, added, write_shard
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.runner import Executor, RunSummary, granted
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.task_list import TaskList
from pipeline.errors import MediaError, ModelError
from pipeline.operation.reasons import failures_of
from pipeline.operation.receipts import run_recorded
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.settings import fingerprint
from pipeline.sources.content import open_content
from pipeline.storage import Storage
from tokenizer_stage.joining import join, read_piece
from tokenizer_stage.open_shards import (
    Settled,
    done_pieces,
    keep_what_is_not_analyzed,
    settle,
    sweep,
    to_retry,
    without_failed,
)
from tokenizer_stage.sharding import KeptClips, largest_latent_bytes, new_shards, plan_pieces
from tokenizer_stage.sidecars import write_sidecars
from tokenizer_stage.split_groups import groups_of
from tokenizer_stage.vae.description import VaeDescription, describe_vae, device_of, info_of, usable
from tokenizer_stage.vae.spans import PIECE_FRAMES, Span, read_frames, read_pieces, span_of
from tokenizer_stage.vae.statistics import measured

STAGE_VERSION = 4
RECORD_COLUMNS = ("clip_id", "source_id", "kind", "start_s", "end_s", "signals", "latent_key")


@dataclass(slots=True, kw_only=True)
class EncodeStage:
    """Encodes planned pieces. `vae_sha256` is the VAE that the plan was made for. `limits` say how files are
    decoded, never what comes of it: they are no part of a key."""

    config: EncodeConfig
    vae_sha256: str
    device: str = "cpu"
    limits: DecodeLimits = DEFAULT_LIMITS
    root: str = ""
    name: str = "encode"
    version: int = STAGE_VERSION
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0, memory_gb=3.0))
    _vae: Any = None
    _box: Any = None

    def setup(self) -> None:
        from tokenizer_stage.vae.names import load_vae

        self._vae, self._box = load_vae(self.config.vae, "cpu"), Sandbox(self.limits)
        if self._vae.weights_sha256 != self.vae_sha256:
            raise ModelError(
                f"VAE {self.config.vae} here has weights {self._vae.weights_sha256[:12]}…",
                expected=f"{self.vae_sha256[:12]}…, as planned",
                fix="give every worker the same weights",
            )
        config = self.config
        self._vae.run_on(self.device, config.dtype, batch=config.batch, tiles=config.tiles)

    def process(self, task: Task) -> TaskResult:
        rows = task.inputs.to_pylist()
        samples: list[Sample] = []
        killers = task.killers("clip_id")
        failed = [_failed_row(row, KILLED.reason) for row in rows if row["clip_id"] in killers]
        left = (row for row in rows if row["clip_id"] not in killers)
        for (uri, content), clips in groupby(left, key=lambda row: (row["uri"], row["source_id"])):
            clips_of_file = list(clips)
            samples_of_file = guard(partial(self._encode_file, uri, content, clips_of_file))
            results = (
                [samples_of_file] * len(clips_of_file)
                if isinstance(samples_of_file, Failure)
                else samples_of_file
            )
            for row, result in zip(clips_of_file, results, strict=True):
                if isinstance(result, Failure):
                    failed.append(_failed_row(row, result.reason))
                else:
                    samples.append(result)
        samples.sort(key=lambda sample: sample.record["clip_id"])
        tar, index = write_shard(samples, "")
        part = tables.from_rows(sorted(index + failed, key=lambda r: r["clip_id"]), tables.INDEX)
        sums = ChannelSums.of(sample.latent for sample in samples)
        part = with_about(part, {"sums": asdict(sums) if sums else None})
        latents = LatentSet(Storage(self.root), self.config.name)
        return TaskResult(
            outputs=(
                Output(path=latents.piece_path(task.key, ".tar"), data=tar),
                Output(path=latents.piece_path(task.key), data=tables.to_parquet(part)),
            ),
            counts={"ok": len(samples), "failed": len(failed)},
            amounts={
                "footage_s": sum(row["end_s"] - row["start_s"] for row in rows),
                "frames": sum(row["frames"] for row in index),
                "tokens": sum(row["tokens"] for row in index),
            },
            failures=failures_of(row["reason"] for row in failed),
        )

    def _encode_file(self, uri: str, content: str, rows: list[dict[str, Any]]) -> list[Sample | Failure]:
        with open_content(uri, content) as (path, _):
            return [guard(partial(self._encode_clip, str(path), row)) for row in rows]

    def _encode_clip(self, path: str, row: dict[str, Any]) -> Sample:
        span = span_of(row, self.config, self._vae.shape)
        try:
            latent, logvar = self._encode_span(path, row, span)
        except ModelError as error:  # the VAE is usable: what it refuses now is of this clip
            raise MediaError(str(error)) from error
        if not all(np.isfinite(values).all() for values in (latent, logvar) if values is not None):
            raise MediaError("its latent is not finite", fix="report the file and the VAE")
        return Sample(latent=latent, logvar=logvar, record=self._record(row))

    def _encode_span(
        self, path: str, row: dict[str, Any], span: Span
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The latent float16 `[C, T', h, w]` and, where the set has them, the logarithms of its variance."""
        from tokenizer_stage.vae.pixels import to_video

        if self._vae.streams and len(span.times_s) > PIECE_FRAMES and not self.config.moments:
            pieces = (to_video(frames)[None] for frames in read_pieces(self._box, path, row, span))
            parts = [part[0].half().numpy() for part in self._vae.encode_pieces(pieces)]
            return np.concatenate(parts, axis=1), None
        frames = read_frames(self._box, path, row, span)  # [T, H, W, 3]
        mode, logvar = self._vae.posterior(to_video(frames)[None])
        return mode[0].half().numpy(), logvar[0].half().numpy() if self.config.moments else None

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Everything known of a sample but its latent: a function of its plan row."""
        span = span_of(row, self.config, self._vae.shape)
        record = {name: row[name] for name in RECORD_COLUMNS}
        return record | {
            "source_width": row["width"],
            "source_height": row["height"],
            "first_frame_s": span.times_s[0],
            "fps": span.fps,
            "frames": len(span.times_s),
            "crop": list(span.crop),
            "width_px": span.width_px,
            "height_px": span.height_px,
            "vae": self._vae.id,
            "vae_sha256": self._vae.weights_sha256,
        }


@dataclass(slots=True, kw_only=True)
class _Encoding:
    """A latent set that is brought up to date: what it holds, what it should hold, and the stage that makes
    it so."""

    corpus: Corpus
    config: Config
    executor: Executor
    vae: VaeDescription
    device: str
    latents: LatentSet
    key: str  # the fingerprint of the stage
    clips: KeptClips
    wanted: pa.Array  # string [N]: the key of each clip's latent
    stored: SetState
    settled: Settled
    pieces: TaskList  # all that are needed for what is open

    @classmethod
    def of(cls, corpus: Corpus, config: Config, executor: Executor, *, retry_failed: bool) -> "_Encoding":
        encode, latents = config.encode, LatentSet(corpus.storage, config.encode.name)
        vae = usable(describe_vae(encode.vae, dtype=encode.dtype, tiles=encode.tiles), encode)
        device = device_of(encode, granted(vae.resources, executor, "encode", config.resources.encode))
        stored = latents.state()
        keep_what_is_not_analyzed(corpus, latents, stored)
        key = fingerprint(encode, STAGE_VERSION, vae.weights_sha256, device)
        if len(again := to_retry(corpus, stored, every=retry_failed)):
            stored = without_failed(stored, again)
            corpus.record(config, latents.folder, key)
            latents.commit(stored, {})  # open from now on: also for the run after one that is killed
        clips = KeptClips.of(corpus)
        wanted = clips.keys(key)
        settled = settle(stored, latents.shards(), wanted)
        largest = largest_latent_bytes(encode, vae.shape.channels, vae.shape.stride_t, vae.shape.stride_s)
        return cls(
            corpus=corpus,
            config=config,
            executor=executor,
            vae=vae,
            device=device,
            latents=latents,
            key=key,
            clips=clips,
            wanted=wanted,
            stored=stored,
            settled=settled,
            pieces=plan_pieces(
                clips, wanted, settled.open_at, per_task=encode.clips_per_task, latent_bytes=largest
            ),
        )

    @property
    def planned_keys(self) -> list[str]:
        return list(self.pieces.keys())

    def open_tasks(self) -> TaskList:
        """The pieces to make, when those that no plan needs are deleted."""
        return self.pieces.without(done_pieces(self.latents, self.planned_keys))

    def stage(self, todo: Sequence[Task], name: str = "encode") -> EncodeStage:
        given, settings = self.vae.resources, self.config.resources.encode
        return EncodeStage(
            resources=granted(given, self.executor, "encode", settings) if todo else given,
            config=self.config.encode,
            vae_sha256=self.vae.weights_sha256,
            device=self.device,
            limits=self.config.analyze.limits(),
            root=self.corpus.root,
            name=name,
        )

    def close(self, summary: RunSummary, progress: Progress) -> RunSummary:
        """Joins the pieces into tars and makes them part of the set, with what its tables say of them."""
        pieces = [read_piece(self.latents, key) for key in self.planned_keys]
        shards = list(new_shards(pieces, self.config.encode.shard_mb, self.stored.next_shard))
        if lost := join(self.corpus, self.latents, shards, self.executor):
            return replace(summary, lost=(*summary.lost, *lost))
        failed = [piece.rows.filter(pc.equal(piece.rows["status"], FAILED)) for piece in pieces]
        rows = pa.concat_tables([self.settled.rows, *failed, *(shard.rows() for shard in shards)])
        groups = groups_of(self.corpus, rows["source_id"], self.config.encode.split_by)
        at = rows.schema.get_field_index("group")
        rows = rows.set_column(at, rows.schema.field("group"), groups)
        of_shards = {shard.name: added(p.sums for p in shard.pieces if p.sums) for shard in shards}
        sums = {name: one for name, one in of_shards.items() if one}
        state = SetState(
            rows=rows.sort_by([(name, "ascending") for name in ("clip_id", "shard", "offset")]),
            next_shard=self.stored.next_shard + len(shards),
            info=info_text(self.info(rows, sums)),
        )
        if self.latents.is_open() or not _same(state, self.stored):
            self.latents.commit(state, sums)
        self.latents.publish_info(state.info)
        sweep(self.latents, state.rows)
        write_sidecars(self.corpus, self.latents, state.rows, self.config.caption.captioner)
        return summary

    def info(self, rows: pa.Table, sums: dict[str, ChannelSums]) -> LatentsInfo:
        """latents.toml of these index rows; where nobody says what is normal for this VAE, by the latents of
        the set's tars. `sums` are of new ones."""
        statistics = self.vae.statistics
        if statistics is None:
            known = {**self.latents.sums(), **sums}
            shards = sorted(pc.unique(rows["shard"].drop_null()).to_pylist())
            total = added(known[shard] for shard in shards if shard in known)
            statistics = measured(total) if total else None
        return info_of(self.vae, self.config.encode, self.device, statistics)


def _same(one: SetState, other: SetState) -> bool:
    return (one.next_shard, one.info) == (other.next_shard, other.info) and one.rows.equals(other.rows)


def encode_corpus(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> RunSummary:
    """Brings the latent set `config.encode.name` up to date with the kept clips; does only what is open,
    the clips that failed for want of their file where one of its size lies there again, and, when asked to,
    all that failed.

    Raises:
        StageStopped: it would delete latents of sources whose analysis was lost.
    """
    encoding = _Encoding.of(corpus, config, executor, retry_failed=retry_failed)
    summary = bring_up_to_date(
        corpus,
        config,
        encoding.latents.folder,
        encoding.key,
        plan=encoding.open_tasks,
        stage=encoding.stage,
        executor=executor,
        progress=progress,
    )
    return summary if summary.lost else encoding.close(summary, progress)


def latents_ahead(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> Callable[[], RunSummary]:
    """What makes the pieces that are open, to be called from a thread beside the captions, of which latents
    need none. encode_corpus finds them and makes them part of the set. Everything that reads the corpus's
    tables is done when this returns.

    Raises:
        StageStopped: as encode_corpus.
    """
    encoding = _Encoding.of(corpus, config, executor, retry_failed=retry_failed)
    tasks = encoding.open_tasks()
    stage = encoding.stage(tasks, "latents")
    return lambda: run_recorded(stage, tasks, executor, corpus.storage, corpus.run_id, progress)


def _failed_row(row: dict[str, Any], reason: str) -> dict[str, Any]:
    known = {name: row[name] for name in ("clip_id", "source_id", "kind", "latent_key")}
    return known | {"status": FAILED, "reason": reason}
