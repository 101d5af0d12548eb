"""Trains the built-in VAE: block PCA in closed form, then the residual networks by gradient descent.

In: a pool of video spans (uint8, native aspect). Out: a folder that `load_vae("builtin:<folder>")`
reads, with a record of how it was made, and metrics.jsonl. The loss is the mean over samples of log
squared error, that is, of PSNR itself: an easy drawing and a hard film weigh alike. Latents get a little
noise before they are decoded, so that the decoder forgives a generator's small errors. Never sees a
held-out file, trains into a folder that holds weights, or keeps a step whose loss or gradient is not finite.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline import runlog
from pipeline.bundle import require_free
from pipeline.errors import UsageError
from pipeline.progress import Progress
from pipeline.schedule import warm_cosine
from tokenizer_stage.vae.builtin import BuiltinSpec, BuiltinVAE, load_builtin, save_builtin
from tokenizer_stage.vae.pca import LinearCodec, fit_linear, from_blocks, to_blocks
from tokenizer_stage.vae.pixels import to_video
from tokenizer_stage.vae.pool import Pool, read_pool

CROPS_PX = ((64, 96), (96, 64), (80, 80), (48, 128))  # height × width, near the default area budget
LARGEST_CROP_PX = 96 * 72
CROP_TRIES = 64
LOG_FLOOR = 4e-5  # squared error in [-1, 1] units under which a sample counts no more: 50 dB
FIT_SPANS = 1200
STATS_SPANS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainVaeConfig:
    """How the built-in VAE is trained."""

    model: BuiltinSpec = field(default_factory=BuiltinSpec)
    init: str = ""  # a folder to go on from; empty: from the closed form
    steps: int = 2300
    batch: int = 16
    frames: int = 17
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    beta1: float = 0.9  # AdamW's
    beta2: float = 0.98
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    latent_noise: float = 0.08  # largest noise on the latents, in standard deviations
    residual_penalty: float = 1e-3  # on the encoder's correction, squared, in the same unit
    save_every: int = 500
    spans_per_clip: int = 6
    seed: int = 0


def train_vae(media: Sequence[str], out: str, config: TrainVaeConfig, progress: Progress) -> dict[str, Any]:
    """Trains on the files below each of the folders, which weigh alike, and saves to the folder `out`.
    A third of the files, by `pool.is_held_out`, is never looked at.

    Raises:
        UsageError: `out` holds weights or a log.
    """
    require_free(Path(out))  # before hours of reading; `fit`, which others call too, asks again
    pools = [read_pool(folder, config.spans_per_clip, config.seed) for folder in media]
    note = {"pools": [{"spans": len(pool)} for pool in pools], "config": asdict(config)}
    return fit(pools, Path(out), config, progress, note)


def fit(
    pools: Sequence[Pool], out: Path, config: TrainVaeConfig, progress: Progress, note: dict[str, Any]
) -> dict[str, Any]:
    """Trains on pools of spans that are drawn alike often; saves to `out` as it goes and at the end.

    Raises:
        UsageError: `out` holds weights or a log.
        FramemillError: a loss, a gradient or a weight is not finite; `out` keeps what was saved before.
    """
    require_free(out)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rng = np.random.default_rng(config.seed)
    torch.manual_seed(config.seed)
    vae = _start(pools, config, rng).to(device)
    optimizer = torch.optim.AdamW(
        vae.parameters(),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
    )
    started, psnrs, record = time.monotonic(), [0.0], dict(note)
    last_good: Path | None = None
    for step in range(config.steps):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * warm_cosine(
                step, config.steps, warmup_steps=config.warmup_steps
            )
        video = next_batch(pools, config, rng).to(device)
        loss, psnr_db, norm = _backward(vae, video, optimizer, config)
        done = step + 1
        runlog.require_finite(done, {"loss": loss, "grad_norm": norm}, last_good=last_good)
        optimizer.step()
        psnrs.append(psnr_db)
        seconds = round(time.monotonic() - started, 1)
        row = {"step": done, "loss": loss, "psnr_db": psnr_db, "grad_norm": norm, "seconds": seconds}
        runlog.append(out / runlog.METRICS_NAME, row)
        if done % config.save_every == 0 or done == config.steps:
            _measure_statistics(vae, pools, config)
            recent_db = round(float(np.mean(psnrs[-config.save_every :])), 3)
            seconds = round(time.monotonic() - started, 1)
            record |= {"trained": {"steps": done, "seconds": seconds, "train_psnr_db": recent_db}}
            save_builtin(vae, out, record)
            last_good = out
        progress(done, config.steps, {"loss": round(loss, 4), "psnr_db": round(psnr_db, 2)})
    return record


def _start(pools: Sequence[Pool], config: TrainVaeConfig, rng: np.random.Generator) -> BuiltinVAE:
    """The weights of `init`, or the closed form of the pools with residuals that add nothing yet."""
    if not config.init:
        vae = BuiltinVAE(config.model)
        vae.linear = fit_closed_form(pools, vae.channels, rng)
        return vae
    vae = load_builtin(Path(config.init))
    if vae.spec != config.model:
        raise UsageError(f"the model is {config.model}", expected=f"{vae.spec}, as in {config.init}")
    return vae.train().requires_grad_(True)


def fit_closed_form(pools: Sequence[Pool], channels: int, rng: np.random.Generator) -> LinearCodec:
    """Block PCA on a sample of every pool; pools weigh alike, and so do spans within a pool."""

    def drawn() -> Iterator[tuple[Tensor, float]]:
        for pool in pools:
            for index in rng.permutation(len(pool))[: FIT_SPANS // len(pools)]:
                frames = pool[index]
                if len(frames) >= 5:
                    usable = frames[: 1 + (len(frames) - 1) // 4 * 4]
                    yield to_video(usable), 1e6 / usable[0].size / len(usable)

    return fit_linear(drawn(), channels)


def next_batch(pools: Sequence[Pool], config: TrainVaeConfig, rng: np.random.Generator) -> Tensor:
    """A batch `[B, 3, T, H, W]` in [-1, 1] of one random crop size; every eighth batch is of images."""
    frames = 1 if rng.random() < 0.125 else config.frames
    crop, fitting = _draw_crop(pools, frames, rng)
    videos: list[Tensor] = []
    for number in range(config.batch):
        spans = fitting[number % len(pools)]
        window = random_crop(spans[int(rng.integers(len(spans)))], frames, *crop, rng)
        videos.append(to_video(window))
    return torch.stack(videos)


def _draw_crop(
    pools: Sequence[Pool], frames: int, rng: np.random.Generator
) -> tuple[tuple[int, int], list[Pool]]:
    """A (height, width), and the spans of each pool that hold it: the whole of a span drawn at random,
    or one of CROPS_PX inside a large one."""
    for _ in range(CROP_TRIES):
        pool = pools[int(rng.integers(len(pools)))]
        height, width = pool[int(rng.integers(len(pool)))].shape[1:3]
        crop = (height, width)
        if height * width > LARGEST_CROP_PX:
            crop = CROPS_PX[int(rng.integers(len(CROPS_PX)))]
        fitting = [_fitting(pool, frames, crop) for pool in pools]
        if all(fitting):
            return crop, fitting
    raise UsageError(
        f"the media folders have no {frames}-frame spans of a common size",
        fix="name folders with longer or larger videos, or --set frames=5",
    )


def _fitting(pool: Pool, frames: int, crop: tuple[int, int]) -> Pool:
    """The spans that a crop of this many frames and (height, width) can be cut from."""
    return [s for s in pool if len(s) >= frames and s.shape[1] >= crop[0] and s.shape[2] >= crop[1]]


def random_crop(
    frames: np.ndarray, count: int, height_px: int, width_px: int, rng: np.random.Generator
) -> np.ndarray:
    """A random window `[count, height_px, width_px, 3]`, mirrored or reversed at random."""
    room = (frames.shape[0] - count, frames.shape[1] - height_px, frames.shape[2] - width_px)
    first, top, left = (int(rng.integers(extra + 1)) for extra in room)
    window = frames[first : first + count, top : top + height_px, left : left + width_px]
    if rng.random() < 0.5:
        window = window[:, :, ::-1]
    if rng.random() < 0.5:
        window = window[::-1]
    return window


def _backward(
    vae: BuiltinVAE, video: Tensor, optimizer: torch.optim.Optimizer, config: TrainVaeConfig
) -> tuple[float, float, float]:
    """Sets the clipped gradients; the loss, the mean PSNR in dB of the batch, the norm before clipping."""
    device = video.device.type
    with torch.autocast(device, torch.bfloat16):
        blocks = to_blocks(video, starts=True)  # [B, T', 768, h, w]
        correction = vae.encoder(blocks, starts=True).float()
    scale = vae.linear.scale[:, None, None]
    latents = vae.linear.encode(blocks, starts=True) + correction * scale
    strength = config.latent_noise * torch.rand(len(video), 1, 1, 1, 1, device=device)
    noisy = latents + strength * scale * torch.randn_like(latents)
    with torch.autocast(device, torch.bfloat16):
        fine = vae.decoder(noisy / scale, starts=True).float()
    decoded = from_blocks(vae.linear.decode(noisy, starts=True) + fine, starts=True)
    error = (decoded - video).square().mean(dim=(1, 2, 3, 4))  # [B]
    loss = (error + LOG_FLOOR).log().mean() + config.residual_penalty * correction.square().mean()
    optimizer.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(vae.parameters(), config.clip_norm)
    return loss.item(), float((10.0 * (4.0 / error.detach().clamp_min(4e-10)).log10()).mean()), float(norm)


def _measure_statistics(vae: BuiltinVAE, pools: Sequence[Pool], config: TrainVaeConfig) -> None:
    """Sets the per-channel mean and standard deviation of the latents over a fixed draw of the pool."""
    rng = np.random.default_rng(config.seed)
    total, square, count = torch.zeros(vae.channels), torch.zeros(vae.channels), 0
    for _ in range(STATS_SPANS // config.batch):
        latents = vae.encode(next_batch(pools, config, rng).to(vae.mean.device)).cpu()  # [B, C, T', h, w]
        total += latents.sum(dim=(0, 2, 3, 4))
        square += latents.square().sum(dim=(0, 2, 3, 4))
        count += latents.numel() // vae.channels
    mean = total / count
    vae.mean.copy_(mean)
    vae.std.copy_((square / count - mean.square()).sqrt())
