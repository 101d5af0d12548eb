"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: video `[B, 3, T, H, W]` float in [-1, 1], T = 1 + 4k, H and W multiples of 8. Out: latents
`[B, C, 1 + k, H/8, W/8]`, raw (the trainer normalises with `mean` and `std`), and back. `encode` is
deterministic: it returns the posterior mean. Never downloads anything that was not named, never pads,
drops frames or floors sizes: a wrong shape is an error.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline import bundle
from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from pipeline.settings import build
from tokenizer_stage.vae.description import BUILTIN_RESOURCES, MADE_BY, STRIDE_S, STRIDE_T
from tokenizer_stage.vae.network import DecoderResidual, EncoderResidual
from tokenizer_stage.vae.pca import LinearCodec, from_blocks, to_blocks
from tokenizer_stage.vae.pixels import check_video

CHUNK_LATENTS = 16  # latent steps encoded at a time: bounds memory, changes no value


class VideoVAE(Protocol):
    """What the rest of framemill knows of a VAE."""

    id: str
    weights_sha256: str
    channels: int
    stride_t: int
    stride_s: int
    resources: Resources  # of a worker that encodes with it; GPUs where there are any

    @property
    def mean(self) -> Tensor:
        """Per-channel mean of the latents over the VAE's training data `[C]`."""

    @property
    def std(self) -> Tensor:
        """Per-channel standard deviation of the latents over the VAE's training data `[C]`."""

    def encode(self, video: Tensor) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinSpec:
    """The shape of the built-in VAE, saved beside its weights."""

    channels: int = 16
    width: int = 160
    encoder_depth: int = 2
    decoder_depth: int = 3
    fine_width: int = 64
    fine_depth: int = 1


class BuiltinVAE(nn.Module):
    """Block PCA plus causal residuals: 4×8×8 pixels to one latent position."""

    mean: Tensor
    std: Tensor
    stride_t = STRIDE_T
    stride_s = STRIDE_S

    def __init__(self, spec: BuiltinSpec) -> None:
        super().__init__()
        self.spec = spec
        self.id = "builtin"
        self.resources = BUILTIN_RESOURCES
        self.weights_sha256 = ""
        self.channels = spec.channels
        self.linear = LinearCodec(spec.channels)
        self.encoder = EncoderResidual(spec.channels, spec.width, spec.encoder_depth)
        self.decoder = DecoderResidual(
            spec.channels, spec.width, spec.decoder_depth, spec.fine_width, spec.fine_depth
        )
        self.register_buffer("mean", torch.zeros(spec.channels))
        self.register_buffer("std", torch.ones(spec.channels))

    @torch.inference_mode()
    def encode(self, video: Tensor, *, chunk: int = CHUNK_LATENTS) -> Tensor:
        """Video `[B, 3, 1 + 4k, H, W]` → latents `[B, C, 1 + k, H/8, W/8]`, `chunk` steps at a time, each
        with the past that it depends on: any `chunk` gives the same latents."""
        check_video(video, STRIDE_T, STRIDE_S)
        parts: list[Tensor] = []
        for begin, context, end in _chunks(_latent_steps(video.shape[2]), chunk, self.encoder.reach):
            first = 0 if context == 0 else 1 + STRIDE_T * (context - 1)
            blocks = to_blocks(video[:, :, first : 1 + STRIDE_T * (end - 1)], starts=context == 0)
            parts.append(self.encode_blocks(blocks, starts=context == 0)[:, begin - context :])
        return torch.cat(parts, dim=1).transpose(1, 2)  # [B, C, T', h, w]

    @torch.inference_mode()
    def decode(self, latents: Tensor, *, chunk: int = CHUNK_LATENTS) -> Tensor:
        """Raw latents `[B, C, 1 + k, h, w]` → video `[B, 3, 1 + 4k, 8h, 8w]` in [-1, 1]; causal in time."""
        if latents.ndim != 5 or latents.shape[1] != self.channels:
            raise ModelError(
                f"latents of shape {tuple(latents.shape)}", expected=f"[B, {self.channels}, T, H, W]"
            )
        by_step = latents.transpose(1, 2)  # [B, T', C, h, w]
        parts: list[Tensor] = []
        for begin, context, end in _chunks(latents.shape[2], chunk, self.decoder.reach):
            blocks = self.decode_blocks(by_step[:, context:end], starts=context == 0)
            parts.append(from_blocks(blocks[:, begin - context :], starts=begin == 0))
        return torch.cat(parts, dim=2).clamp(-1.0, 1.0)

    def encode_blocks(self, blocks: Tensor, *, starts: bool) -> Tensor:
        """Blocks `[B, T', 768, h, w]` → latents `[B, T', C, h, w]`, differentiable."""
        correction = self.encoder(blocks, starts=starts)
        return self.linear.encode(blocks, starts=starts) + correction * self.linear.scale[:, None, None]

    def decode_blocks(self, latents: Tensor, *, starts: bool) -> Tensor:
        """Latents `[B, T', C, h, w]` → blocks `[B, T', 768, h, w]`, differentiable, not clamped."""
        unit = latents / self.linear.scale[:, None, None]
        return self.linear.decode(latents, starts=starts) + self.decoder(unit, starts=starts)


def _latent_steps(frames: int) -> int:
    return 1 + (frames - 1) // STRIDE_T


def _chunks(steps: int, chunk: int, reach: int) -> list[tuple[int, int, int]]:
    """(first step to keep, first step to compute, end) of each chunk."""
    return [
        (begin, max(0, begin - reach), min(steps, begin + chunk)) for begin in range(0, steps, max(1, chunk))
    ]


def load_builtin(folder: Path) -> BuiltinVAE:
    """The built-in VAE from a folder that `framemill vae train` wrote, checked, on the CPU, in float32.

    Raises:
        ModelError: a file is missing or damaged, or the two are not of one training.
    """
    saved = bundle.read(folder, MADE_BY)
    with saved.fitting():
        vae = BuiltinVAE(build(BuiltinSpec, saved.description["spec"]))
        vae.load_state_dict({name: value.float() for name, value in load(saved.weights).items()})
    vae.weights_sha256 = saved.weights_sha256
    return vae.eval().requires_grad_(False)


def save_builtin(vae: BuiltinVAE, folder: Path, record: dict[str, object]) -> None:
    """Writes weights (trained ones in float16, bases and statistics in float32) and, last, their record,
    which says how they were made. ModelError, and nothing written, for weights that are not finite."""
    trained = {name for name, _ in vae.named_parameters()}
    state = {
        name: (value.half() if name in trained else value).cpu().contiguous()
        for name, value in vae.state_dict().items()
    }
    bundle.refuse_non_finite({name: bool(value.isfinite().all()) for name, value in state.items()}, folder)
    bundle.write(folder, save(state), {}, {"spec": asdict(vae.spec), **record})
