"""Checks a latent set: what the index promises is in the tars, and the latents are of the kept clips.

In: a corpus and the name of a latent set. Out: counts, what could not be compared, and a list of errors,
empty when all that can be checked is well. Every byte of every sample is hashed. A frame of every latent is
held against the filmstrip of its clip, which needs no source and finds a latent of other content. For a few
samples the source is read again, encoded again and compared, and the stored latent is decoded back to pixels.
A source that is gone, cannot be reached or is no longer the one that was analyzed proves nothing against what
is stored: it is counted and named. Never writes.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.config import EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import ShardReader
from pipeline.corpus.takedown import traces
from pipeline.errors import FramemillError, MediaError, ModelError, StorageError
from pipeline.media.stills import decode_jpeg
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.content import open_content
from tokenizer_stage.inventory import head, inventory, listed_errors
from tokenizer_stage.likeness import LIMIT, unlikeness
from tokenizer_stage.sharding import KeptClips
from tokenizer_stage.vae.builtin import VideoVAE
from tokenizer_stage.vae.evaluate import psnr_db
from tokenizer_stage.vae.geometry import VaeShape
from tokenizer_stage.vae.names import load_vae, vae_device
from tokenizer_stage.vae.pixels import to_frames, to_video
from tokenizer_stage.vae.spans import read_frames, span_of

MAX_DRIFT = 0.02  # re-encoded against stored, in standard deviations; float16 rounds at 0.0005
MAX_DRIFT_NARROW = 0.5  # where the VAE computes in 16 bits, perhaps on another device
NAMED = 3  # of what could not be compared, for each reason

Row = dict[str, Any]


@dataclass(slots=True)
class _Verdicts:
    """What the checks of single samples came to: errors by clip id, and what was not compared, by reason."""

    errors: dict[str, str] = field(default_factory=dict)
    not_compared: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        self.not_compared.setdefault(reason, []).append(name)

    def as_dict(self) -> dict[str, Any]:
        return {
            reason: {"samples": len(names), "first": names[:NAMED]}
            for reason, names in sorted(self.not_compared.items())
        }


def verify(corpus: Corpus, name: str, decode_back: int) -> dict[str, Any]:
    """The report of one latent set; `decode_back` samples are read from their source again; with 0 of them
    no latent is decoded at all."""
    reader = ShardReader(f"{corpus.root}/latents/{name}")
    errors = inventory(corpus, reader) + _taken_down(corpus)
    verdicts = _Verdicts()
    for row in reader.rows():
        if problem := _problem(reader, row):
            verdicts.errors[row["clip_id"]] = problem
    report = head(reader, name) | {"bad_samples": len(verdicts.errors)}
    if decode_back:
        clips = {row["clip_id"]: row for row in KeptClips.of(corpus).rows().to_pylist()}
        whole = [r for r in reader.rows() if r["clip_id"] in clips and r["clip_id"] not in verdicts.errors]
        vae, problem = _vae(reader)
        if vae is None:
            errors.append(problem)
        else:
            report["pictures"] = _pictures(corpus, reader, vae, whole, verdicts)
            report["decode_back"] = _decode_back(corpus, reader, vae, whole, clips, decode_back, verdicts)
        report["not_compared"] = verdicts.as_dict()
    errors += [f"{clip_id}: {problem}" for clip_id, problem in sorted(verdicts.errors.items())]
    return report | listed_errors(errors)


def _taken_down(corpus: Corpus) -> list[str]:
    """What is left of sources that were taken down, in any table or shard."""
    ids = corpus.takedowns()["source_id"].to_pylist()
    left = traces(corpus, ids, open_all=True) if ids else None
    return [f"{path}: holds what was taken down" for path in (*left.tables, *left.shards)] if left else []


def _problem(reader: ShardReader, row: dict[str, Any]) -> str:
    """What is wrong with one stored sample, or nothing."""
    try:
        latent, record = reader.read_latent(row), reader.read_json(row)  # checks hash and shape
    except (FramemillError, ValueError) as error:
        return str(error)
    if latent.dtype != np.float16 or not np.isfinite(latent).all():
        return f"a latent of {latent.dtype} with {int((~np.isfinite(latent)).sum())} values not finite"
    if record["clip_id"] != row["clip_id"] or record["latent_sha256"] != row["sha256"]:
        return "its record belongs to another latent"
    if record["vae_sha256"] != reader.info.vae_sha256:
        return f"encoded by VAE {record['vae_sha256'][:12]}…, the set's is {reader.info.vae_sha256[:12]}…"
    return ""


def _vae(reader: ShardReader) -> tuple[VideoVAE | None, str]:
    """The VAE of the set, or why there is none here."""
    try:
        vae = load_vae(reader.info.vae)
    except ModelError as error:
        return None, f"no latent can be decoded: {error}"
    vae.run_on(vae_device(vae), reader.info.model.dtype, tiles=reader.info.model.tiles)
    if vae.weights_sha256 != reader.info.vae_sha256:
        return None, f"VAE {reader.info.vae} here has other weights than the set's; verify with the same VAE"
    return vae, ""


def _pictures(
    corpus: Corpus, reader: ShardReader, vae: VideoVAE, rows: list[Row], verdicts: _Verdicts
) -> dict[str, Any]:
    """Holds the frame of every latent that is nearest to its filmstrip's first against that."""
    left = {row["clip_id"]: row for row in rows}
    compared, worst = 0, 0.0
    for key, clips in corpus.clips_by_part(["crop"]):
        strips = {strip["clip_id"]: strip for strip in corpus.strips_part(key).to_pylist()}
        for clip in clips.select(["clip_id", "crop"]).to_pylist():
            row, strip = left.pop(clip["clip_id"], None), strips.get(clip["clip_id"])
            if row is None:
                continue
            record = reader.read_json(row)
            if not (strip and strip["frames"]) or (
                (number := _frame_at(record, strip["times_s"][0])) >= row["frames"]
            ):
                verdicts.skip("no filmstrip of its time", row["clip_id"])
                continue
            steps = _steps_to(number, vae.shape, row["shape"][1])
            first = torch.from_numpy(reader.read_latent(row)[:, :steps]).float()[None]  # [1, C, steps, h, w]
            frame = to_frames(vae.decode(first)[0])[number]  # [H, W, 3]
            levels = unlikeness(frame, decode_jpeg(strip["frames"][0]), record["crop"], clip["crop"])
            compared, worst = compared + 1, max(worst, levels)
            if levels > LIMIT:
                verdicts.errors[row["clip_id"]] = (
                    f"its latent shows other content than its filmstrip ({levels:.0f} levels of 255, at most "
                    f"{LIMIT:g}); delete {row['shard']}, run framemill encode"
                )
    return {"compared": compared, "worst_levels": round(worst, 1)}


def _frame_at(record: Row, time_s: float) -> int:
    """The number of the encoded frame nearest to a time, which is not before the first."""
    return round((time_s - record["first_frame_s"]) * record["fps"])


def _steps_to(number: int, shape: VaeShape, steps: int) -> int:
    """How many of a latent's steps to decode for a frame: as few as the VAE takes that hold it."""
    enough = (n for n in range(1, steps) if shape.frames_of(n) > number)
    return next(enough, steps)


def _decode_back(
    corpus: Corpus,
    reader: ShardReader,
    vae: VideoVAE,
    rows: list[Row],
    clips: dict[str, Row],
    count: int,
    verdicts: _Verdicts,
) -> dict[str, Any]:
    """PSNR of stored latents against their source, and errors where a fresh encoding differs."""
    info = reader.info
    config = EncodeConfig(
        fps=info.fps, max_frames=info.max_frames, area_px=info.area_px, patch=info.model.patch
    )
    count = min(count, len(rows))
    chosen = [rows[n * len(rows) // count] for n in range(count)]
    psnrs_db: list[float] = []
    with Sandbox(corpus.config().analyze.limits()) as box:
        for row in chosen:
            clip = clips[row["clip_id"]]
            span = span_of(clip, config, vae.shape)
            try:
                with open_content(clip["uri"], clip["source_id"]) as (path, _):
                    frames = read_frames(box, str(path), clip, span)
            except (MediaError, StorageError) as error:
                verdicts.skip(error.what, clip["uri"])
                continue
            video = to_video(frames)[None]  # [1, 3, T, H, W]
            stored = torch.from_numpy(reader.read_latent(row)).float()[None]  # [1, C, T', h, w]
            fresh = info.normalised(vae.encode(video)[0].numpy())
            drift = float(np.abs(fresh - info.normalised(stored[0].numpy())).max())
            psnrs_db.append(psnr_db(vae.decode(stored), video))
            if drift > (MAX_DRIFT if info.model.dtype == "float32" else MAX_DRIFT_NARROW):
                verdicts.errors[row["clip_id"]] = (
                    f"a fresh encoding differs by {drift:.3f} standard deviations"
                )
    if not psnrs_db:
        return {"samples": 0}
    return {
        "samples": len(psnrs_db),
        "psnr_db": round(float(np.mean(psnrs_db)), 2),
        "min_db": round(min(psnrs_db), 2),
    }
