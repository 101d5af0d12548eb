"""The encode stage: one planned shard in, one tar of latents and its index part out.

In: kept clips (source, span, crop). Each is decoded once, at its target size, in the sandbox, encoded
one by one (so that no latent depends on its neighbours) and stored as a raw posterior mean. A clip that
cannot be decoded is a `failed` row with its reason, and so is one whose file no longer has the content
that was analyzed: it is tried again when a file of that size lies there. The tar is committed first, the
part last; the index, which makes the set readable, when every part is there. Never normalises, never
captions.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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
from pipeline.engine.runner import Executor, RunSummary, StageStopped, granted
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.task_list import TaskList
from pipeline.errors import MediaError, ModelError
from pipeline.operation.reasons import failures_of
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.settings import fingerprint
from pipeline.sources.content import is_of_the_file, open_content, sizes_bytes
from pipeline.storage import Storage
from tokenizer_stage.sharding import CAPTION_COLUMNS, planned_shards
from tokenizer_stage.vae.description import describe_vae
from tokenizer_stage.vae.spans import read_frames, span_of

STAGE_VERSION = 3
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
    how files are decoded, never what comes of it: they are no part of a key."""

    config: EncodeConfig
    vae_sha256: str
    limits: DecodeLimits = DEFAULT_LIMITS
    root: str = ""
    name: str = "encode"
    version: int = STAGE_VERSION
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0, memory_gb=3.0))
    _vae: Any = None
    _box: Any = None

    def setup(self) -> None:
        from tokenizer_stage.vae.names import load_vae

        self._vae, self._box = load_vae(self.config.vae), Sandbox(self.limits)
        if self._vae.weights_sha256 != self.vae_sha256:
            raise ModelError(
                f"VAE {self.config.vae} here has weights {self._vae.weights_sha256[:12]}…",
                expected=f"{self.vae_sha256[:12]}…, as planned",
                fix="give every worker the same weights",
            )

    def process(self, task: Task) -> TaskResult:
        rows = task.inputs.to_pylist()
        shard = rows[0]["shard"]
        samples = self._stored_samples(shard, rows)
        have = {sample.record["clip_id"] for sample in samples}
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
            Sample(latent=sample.latent, record=self._record(wanted[key]))
            for sample in read_tar(storage.read_bytes(path))
            if (key := sample.record.get("latent_key")) in wanted
        ]

    def _encode_file(self, uri: str, content: str, rows: list[dict[str, Any]]) -> list[Sample | Failure]:
        with open_content(uri, content) as (path, _):
            return [guard(partial(self._encode_clip, str(path), row)) for row in rows]

    def _encode_clip(self, path: str, row: dict[str, Any]) -> Sample:
        from tokenizer_stage.vae.pixels import to_video

        span = span_of(row, self.config, self._vae.stride_s)
        frames = read_frames(self._box, path, row, span)  # [T, H, W, 3]
        latent = self._vae.encode(to_video(frames)[None])[0].half().numpy()  # [C, T', h, w]
        if not np.isfinite(latent).all():
            raise MediaError("its latent is not finite", fix="report the file and the VAE")
        return Sample(latent=latent, record=self._record(row))

    def _record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Everything known of a sample but its latent: a function of its plan row."""
        span = span_of(row, self.config, self._vae.stride_s)
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


def encode_corpus(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> RunSummary:
    """Brings the latent set `config.encode.name` up to date with the kept clips; does only what is open,
    the clips that failed for want of their file where one of its size lies there again, and, when asked to,
    all that failed.

    Raises:
        StageStopped: it would delete latents of sources whose analysis was lost.
    """
    vae = describe_vae(config.encode.vae)
    latents = LatentSet(corpus.storage, config.encode.name)
    _keep_what_is_not_analyzed(corpus, latents)
    encode_fingerprint = fingerprint(config.encode, STAGE_VERSION, vae.weights_sha256)
    planned = planned_shards(corpus, config, encode_fingerprint)

    def plan() -> TaskList:
        done = _drop_stale(latents, planned.shard_of)
        failed = _failed_rows(latents, done)
        again = failed if retry_failed else _back_again(corpus, failed)
        done -= _drop_failed(latents, planned.shard_of, {row["shard"] for row in again})
        return planned.tasks.without(done)

    def stage(todo: Sequence[Task]) -> EncodeStage:
        return EncodeStage(
            resources=granted(vae.resources, executor, "encode", config.resources.encode)
            if todo
            else vae.resources,
            config=config.encode,
            vae_sha256=vae.weights_sha256,
            limits=config.analyze.limits(),
            root=corpus.root,
        )

    info = LatentsInfo(
        vae=config.encode.vae,
        vae_sha256=vae.weights_sha256,
        channels=vae.channels,
        stride_t=vae.stride_t,
        stride_s=vae.stride_s,
        mean=vae.mean,
        std=vae.std,
        fps=config.encode.fps,
        max_frames=config.encode.max_frames,
        area_px=config.encode.area_px,
    )
    summary = bring_up_to_date(
        corpus,
        config,
        latents.folder,
        encode_fingerprint,
        plan=plan,
        stage=stage,
        executor=executor,
        progress=progress,
    )
    if not summary.lost and latents.is_open():
        latents.close(planned.tasks.keys(), info)
    return summary


def _keep_what_is_not_analyzed(corpus: Corpus, latents: LatentSet) -> None:
    """Latents may leave the set because their sources did, or were judged otherwise; while inputs are open
    whose analysis was lost, a source without a row may be one of those, and nothing says that it left."""
    inputs, sources = corpus.inputs()["source_key"], corpus.sources()
    unanalyzed = len(inputs) - pc.sum(pc.is_in(inputs, value_set=sources["source_key"])).as_py() or 0
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


def _drop_stale(latents: LatentSet, planned: Mapping[str, str]) -> set[str]:
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


def _failed_rows(latents: LatentSet, done: set[str]) -> list[dict[str, Any]]:
    """The failed rows of the parts that are done: of the index, where there is one."""
    tables_of_rows = [latents.part(key) for key in sorted(done)] if latents.is_open() else [latents.index()]
    return [
        row
        for rows in tables_of_rows
        for row in rows.filter(pc.equal(rows["status"], "failed"))
        .select(["source_id", "shard", "reason"])
        .to_pylist()
    ]


def _back_again(corpus: Corpus, failed: list[dict[str, Any]]) -> list[dict[str, Any]]:
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


def _drop_failed(latents: LatentSet, planned: Mapping[str, str], shards: set[str]) -> set[str]:
    """Deletes the index and the parts of these shards: they are open again. Returns the parts' keys."""
    keys = {key for key, shard in planned.items() if shard in shards}
    if keys:
        latents.open()
    for key in sorted(keys):
        latents.storage.delete(latents.part_path(key))
    return keys


def _failed_row(row: dict[str, Any], reason: str) -> dict[str, Any]:
    known = {name: row[name] for name in ("clip_id", "source_id", "kind", "shard")}
    return known | {"status": "failed", "reason": reason}
