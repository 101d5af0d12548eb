"""The encode stage: one planned shard in, one tar of latents and its index part out.

In: kept clips (source, span, crop). Each is decoded once, at its target size, in the sandbox, encoded
one by one (so that no latent depends on its neighbours) and stored as a raw posterior mean. A clip that
cannot be decoded is a `failed` row with its reason, and so is one whose file no longer has the content
that was analyzed: it is tried again when a file of that size lies there. The tar is committed first, the
part last; the index, which makes the set readable, when every part is there. Never normalises, never
captions.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from pipeline.config import Config, DecodeLimits, EncodeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import (
    LatentSet,
    LatentsInfo,
    Sample,
    read_tar,
    write_shard,
)
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
from tokenizer_stage.open_shards import (
    back_again,
    drop_failed,
    drop_stale,
    failed_rows,
    keep_what_is_not_analyzed,
)
from tokenizer_stage.sharding import CAPTION_COLUMNS, ShardPlan, planned_shards
from tokenizer_stage.vae.description import VaeDescription, describe_vae, device_of, info_of, usable
from tokenizer_stage.vae.spans import PIECE_FRAMES, Span, read_frames, read_pieces, span_of
from tokenizer_stage.vae.statistics import ChannelSums

STAGE_VERSION = 4
RECORD_COLUMNS = (
    "clip_id",
    "source_id",
    "kind",
    "start_s",
    "end_s",
    "signals",
    "licence",
    "tags",
    "latent_key",
)


@dataclass(slots=True, kw_only=True)
class EncodeStage:
    """Encodes planned shards. `vae_sha256` is the VAE that the plan was made for. A latent that the shard's
    present tar below `root` holds already, made of the same clip by the same encoder, is kept. `limits` say
    how files are decoded, never what comes of it: they are no part of a key. `ahead` of captions,
    which samples bear, a tar is all that is made, and no part: the stage takes its latents from there."""

    config: EncodeConfig
    vae_sha256: str
    device: str = "cpu"
    limits: DecodeLimits = DEFAULT_LIMITS
    root: str = ""
    ahead: bool = False
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
        shard = rows[0]["shard"]
        samples = self._stored_samples(shard, rows)
        have = {sample.record["clip_id"] for sample in samples}
        stored = len(samples)
        killers = task.killers("clip_id")
        failed = [_failed_row(row, KILLED.reason) for row in rows if row["clip_id"] in killers]
        left = (row for row in rows if row["clip_id"] not in killers | have)
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
        tar, index = write_shard(samples, shard)
        if self.ahead:
            outputs = (Output(path=self._latents().shard_path(shard), data=tar),)
            return TaskResult(
                outputs=outputs if len(samples) > stored else (), counts={"latents": len(samples)}
            )
        part = tables.from_rows(sorted(index + failed, key=lambda r: r["clip_id"]), tables.INDEX)
        latents = self._latents()
        return TaskResult(
            outputs=(
                Output(path=latents.shard_path(shard), data=tar),
                Output(path=latents.part_path(task.key), data=tables.to_parquet(part)),
            ),
            counts={"ok": len(samples), "failed": len(failed)},
            amounts={
                "footage_s": sum(row["end_s"] - row["start_s"] for row in rows),
                "frames": sum(row["frames"] for row in index),
                "tokens": sum(row["tokens"] for row in index),
            },
            failures=failures_of(row["reason"] for row in failed),
        )

    def _latents(self) -> LatentSet:
        return LatentSet(Storage(self.root), self.config.name)

    def _stored_samples(self, shard: str, rows: list[dict[str, Any]]) -> list[Sample]:
        """The samples whose latents the shard's tar holds, with their records as they are now."""
        storage, wanted = Storage(self.root), {row["latent_key"]: row for row in rows}
        path = self._latents().shard_path(shard)
        if not self.root or not storage.exists(path):
            return []
        return [
            Sample(latent=sample.latent, logvar=sample.logvar, record=self._record(wanted[key]))
            for sample in read_tar(storage.read_bytes(path))
            if (key := sample.record.get("latent_key")) in wanted
        ]

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
            "captions": {name: row[name] for name in CAPTION_COLUMNS},
            "attributes": json.loads(row["attributes"] or "null"),
            "vae": self._vae.id,
            "vae_sha256": self._vae.weights_sha256,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Encoding:
    """A latent set that is brought up to date: what it should hold, and the stage that makes it so."""

    corpus: Corpus
    config: Config
    executor: Executor
    vae: VaeDescription
    device: str
    latents: LatentSet
    key: str  # the fingerprint of the stage
    planned: ShardPlan

    @classmethod
    def of(cls, corpus: Corpus, config: Config, executor: Executor) -> "_Encoding":
        encode, latents = config.encode, LatentSet(corpus.storage, config.encode.name)
        vae = usable(describe_vae(encode.vae, dtype=encode.dtype, tiles=encode.tiles), encode)
        device = device_of(encode, granted(vae.resources, executor, "encode", config.resources.encode))
        keep_what_is_not_analyzed(corpus, latents)
        key = fingerprint(encode, STAGE_VERSION, vae.weights_sha256, device)
        return cls(
            corpus=corpus,
            config=config,
            executor=executor,
            vae=vae,
            device=device,
            latents=latents,
            key=key,
            planned=planned_shards(corpus, config, key),
        )

    def open_tasks(self, *, retry_failed: bool) -> TaskList:
        """The shards to write, when what is stale is deleted."""
        done = drop_stale(self.latents, self.planned.shard_of)
        failed = failed_rows(self.latents, done)
        again = failed if retry_failed else back_again(self.corpus, failed)
        done -= drop_failed(self.latents, self.planned.shard_of, {row["shard"] for row in again})
        return self.planned.tasks.without(done)

    def stage(self, todo: Sequence[Task], *, ahead: bool = False) -> EncodeStage:
        given, settings = self.vae.resources, self.config.resources.encode
        return EncodeStage(
            resources=granted(given, self.executor, "encode", settings) if todo else given,
            config=self.config.encode,
            vae_sha256=self.vae.weights_sha256,
            device=self.device,
            limits=self.config.analyze.limits(),
            root=self.corpus.root,
            ahead=ahead,
            name="latents" if ahead else "encode",
        )

    def info(self) -> LatentsInfo:
        """latents.toml; where nobody says what is normal for this VAE, by the latents of the set."""
        vae, statistics = self.vae, self.vae.statistics
        if statistics is None:
            sums = ChannelSums.of(s.latent for shard in self.latents.shards() for s in self._samples(shard))
            statistics = sums.statistics() if sums else None
        return info_of(vae, self.config.encode, self.device, statistics)

    def _samples(self, shard: str) -> list[Sample]:
        return read_tar(self.corpus.storage.read_bytes(self.latents.shard_path(shard)))


def encode_corpus(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> RunSummary:
    """Brings the latent set `config.encode.name` up to date with the kept clips; does only what is open,
    the clips that failed for want of their file where one of its size lies there again, and, when asked to,
    all that failed.

    Raises:
        StageStopped: it would delete latents of sources whose analysis was lost.
    """
    encoding = _Encoding.of(corpus, config, executor)
    summary = bring_up_to_date(
        corpus,
        config,
        encoding.latents.folder,
        encoding.key,
        plan=lambda: encoding.open_tasks(retry_failed=retry_failed),
        stage=encoding.stage,
        executor=executor,
        progress=progress,
    )
    if not summary.lost and encoding.latents.is_open():
        encoding.latents.close(encoding.planned.tasks.keys(), encoding.info())
    return summary


def latents_ahead(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> Callable[[], RunSummary]:
    """What makes the latents of open shards, to be called from a thread beside the captions, which latents do
    not need and samples do. It leaves tars without parts, as a killed encode does: encode_corpus takes the
    latents from there, adds the captions and tries again what failed. Everything that reads the corpus's
    tables is done when this returns.

    Raises:
        StageStopped: as encode_corpus.
    """
    encoding = _Encoding.of(corpus, config, executor)
    tasks = encoding.open_tasks(retry_failed=retry_failed)
    stage = encoding.stage(tasks, ahead=True)
    return lambda: run_recorded(stage, tasks, executor, corpus.storage, corpus.run_id, progress)


def _failed_row(row: dict[str, Any], reason: str) -> dict[str, Any]:
    known = {name: row[name] for name in ("clip_id", "source_id", "kind", "shard")}
    return known | {"status": "failed", "reason": reason}
