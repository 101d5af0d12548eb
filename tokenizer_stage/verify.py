"""Checks a latent set: what the index promises is in the tars, and the latents are of the kept clips.

In: a corpus and the name of a latent set. Out: counts and a list of errors, empty when all is well.
Every byte of every sample is hashed; for a few samples the source is read again, encoded again and
compared, and the stored latent is decoded back to pixels. Never writes.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch

from pipeline.config import EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import ShardReader
from pipeline.corpus.takedown import traces
from pipeline.errors import FramemillError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.uris import local_path
from tokenizer_stage.sharding import kept_clips
from tokenizer_stage.vae.evaluate import psnr_db
from tokenizer_stage.vae.names import load_vae
from tokenizer_stage.vae.pixels import to_video
from tokenizer_stage.vae.spans import read_frames, span_of

MAX_ERRORS = 100
MAX_DRIFT = 0.02  # re-encoded against stored, in standard deviations; float16 rounds at 0.0005


def verify(corpus: Corpus, name: str, decode_back: int) -> dict[str, Any]:
    """The report of one latent set; `decode_back` samples are read from their source again."""
    reader = ShardReader(f"{corpus.root}/latents/{name}")
    errors = _against_judged(corpus, reader) + _tars_on_disk(reader) + _taken_down(corpus)
    bad = 0
    for row in reader.rows():
        problem = _problem(reader, row)
        bad += bool(problem)
        errors += [f"{row['clip_id']}: {problem}"] if problem else []
    report: dict[str, Any] = {
        "latents": name,
        "vae": reader.info.vae,
        "shards": len(set(reader.index["shard"].to_pylist())),
        "samples": reader.index.num_rows,
        "bad_samples": bad,
        "tokens": pc.sum(reader.index["tokens"]).as_py() or 0,
    }
    if decode_back and not errors:
        report["decode_back"], drifted = _decode_back(corpus, reader, decode_back)
        errors += drifted
    return report | {"errors": errors[:MAX_ERRORS], "error_count": len(errors)}


def _against_judged(corpus: Corpus, reader: ShardReader) -> list[str]:
    """Every kept clip is in the index once, encoded or failed, and nothing else is."""
    held = Counter(reader.everything["clip_id"].to_pylist())
    kept = set(corpus.kept()["clip_id"].to_pylist())
    stale = "run framemill encode"
    return [
        *(f"{clip_id}: kept, but not in the index; {stale}" for clip_id in sorted(kept - set(held))),
        *(f"{clip_id}: in the index, but not kept; {stale}" for clip_id in sorted(set(held) - kept)),
        *(f"{clip_id}: {count} times in the index" for clip_id, count in sorted(held.items()) if count > 1),
    ]


def _tars_on_disk(reader: ShardReader) -> list[str]:
    indexed = set(reader.everything["shard"].to_pylist())
    there = set(reader.storage.list("", ".tar"))
    return [f"{s}: not in the index" for s in sorted(there - indexed)] + [
        f"{s}: missing" for s in sorted(indexed - there)
    ]


def _taken_down(corpus: Corpus) -> list[str]:
    """What is left of sources that were taken down, in any table or shard."""
    ids = corpus.takedowns()["source_id"].to_pylist()
    left = traces(corpus, ids) if ids else None
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


def _decode_back(corpus: Corpus, reader: ShardReader, count: int) -> tuple[dict[str, Any], list[str]]:
    """PSNR of stored latents against their source, and errors where a fresh encoding differs."""
    info = reader.info
    vae = load_vae(info.vae)
    if vae.weights_sha256 != info.vae_sha256:
        return {}, [f"VAE {info.vae} here has other weights than the set's; verify with the same VAE"]
    config = EncodeConfig(fps=info.fps, max_frames=info.max_frames, area_px=info.area_px)
    clips = {row["clip_id"]: row for row in kept_clips(corpus, "")}
    rows = reader.rows()
    chosen = [rows[i] for i in sorted({n * len(rows) // count for n in range(min(count, len(rows)))})]
    psnrs_db: list[float] = []
    errors: list[str] = []
    with Sandbox(corpus.config().analyze.limits()) as box:
        for row in chosen:
            clip = clips[row["clip_id"]]
            with local_path(clip["uri"]) as path:
                frames = read_frames(box, str(path), clip, span_of(clip, config, info.stride_s))
            video = to_video(frames)[None]  # [1, 3, T, H, W]
            stored = torch.from_numpy(reader.read_latent(row)).float()[None]  # [1, C, T', h, w]
            drift = ((vae.encode(video) - stored) / vae.std[:, None, None, None]).abs().max().item()
            psnrs_db.append(psnr_db(vae.decode(stored), video))
            if drift > MAX_DRIFT:
                errors.append(
                    f"{row['clip_id']}: a fresh encoding differs by {drift:.3f} standard deviations"
                )
    if not psnrs_db:
        return {"samples": 0}, errors
    return {
        "samples": len(psnrs_db),
        "psnr_db": round(float(np.mean(psnrs_db)), 2),
        "min_db": round(min(psnrs_db), 2),
    }, errors
