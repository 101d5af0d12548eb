"""How well a VAE keeps pictures: reconstruction PSNR per file, beside its closed-form stage alone.

In: a VAE and a folder of media. Out: plain numbers. Each file is measured on its longest shot, as
`framemill encode` reads it by default (native aspect, frame counts that the VAE takes). Files that this
repo's training would have seen and held-out ones are told apart by the rule of `pool.is_held_out`.
"""

from pathlib import PurePosixPath
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import MediaError
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import Sandbox
from tokenizer_stage.vae.builtin import BuiltinVAE, VideoVAE
from tokenizer_stage.vae.names import load_vae
from tokenizer_stage.vae.pca import from_blocks, to_blocks
from tokenizer_stage.vae.pixels import to_video
from tokenizer_stage.vae.pool import encode_span, is_held_out, media_files, usable_clips


def psnr_db(decoded: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of videos in [-1, 1]; equal ones give 100."""
    error = float((decoded - truth).square().mean())
    return 100.0 if error < 4e-10 else float(10.0 * torch.tensor(4.0 / error).log10())


def reconstruct_closed_form(vae: BuiltinVAE, video: Tensor) -> Tensor:
    """The video through the block PCA alone."""
    with torch.inference_mode():
        latents = vae.linear.encode(to_blocks(video, starts=True), starts=True)
        return from_blocks(vae.linear.decode(latents, starts=True), starts=True).clamp(-1.0, 1.0)


def evaluate(vae: str | VideoVAE, media: str, progress: Progress) -> dict[str, Any]:
    """Mean PSNR over the files of a folder (overall, held-out ones alone, each file), and the files that
    could not be read, each with its reason. `psnr_pca_db` is null for a VAE without a closed-form stage."""
    model = load_vae(vae) if isinstance(vae, str) else vae
    files: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}
    paths = media_files(media)
    with Sandbox() as box:
        for done, path in enumerate(paths, start=1):
            name = PurePosixPath(path).name
            try:
                files[name] = _measure(model, box, path)
            except MediaError as error:
                failed[name] = str(error)
            progress(done, len(paths), files.get(name, {}))
    if not files:
        raise MediaError(f"nothing to measure in {media}")
    held_out = [row for row in files.values() if row["held_out"]]
    return {
        "vae": model.id,
        "vae_sha256": model.weights_sha256,
        **_means(list(files.values())),
        "held_out": _means(held_out) if held_out else None,
        "files": files,
        "failed": failed,
    }


def _measure(model: VideoVAE, box: Sandbox, path: str) -> dict[str, Any]:
    frames = encode_span(box, path, usable_clips(box, path)[0], model.shape)
    video = to_video(frames)[None]  # [1, 3, T, H, W]
    closed = reconstruct_closed_form(model, video) if isinstance(model, BuiltinVAE) else None
    return {
        "psnr_db": round(psnr_db(model.decode(model.encode(video)), video), 3),
        "psnr_pca_db": None if closed is None else round(psnr_db(closed, video), 3),
        "held_out": is_held_out(path),
        "shape": list(video.shape[2:]),
    }


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    def mean(name: str) -> float | None:
        values = [row[name] for row in rows if row[name] is not None]
        return round(sum(values) / len(values), 3) if values else None

    return {"psnr_db": mean("psnr_db"), "psnr_pca_db": mean("psnr_pca_db"), "count": len(rows)}
