"""Video VAEs by name: `builtin:`, `builtin:<folder>`, `diffusers:<repo>`.

In: video `[B, 3, T, H, W]` float in [-1, 1], T = 1 + 4k, H and W multiples of 8. Out: latents
`[B, C, 1 + k, H/8, W/8]`, raw (the trainer normalises with `mean` and `std`), and back. `encode` is
deterministic: it returns the posterior mean. Never downloads anything that was not named, never pads,
drops frames or floors sizes: a wrong shape is an error.
"""

from collections.abc import Iterable, Iterator
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
from tokenizer_stage.vae.description import (
    BUILTIN_LICENCE,
    BUILTIN_RESOURCES,
    MADE_BY,
    STRIDE_T,
    builtin_shape,
    require_plain,
)
from tokenizer_stage.vae.geometry import VaeShape
from tokenizer_stage.vae.network import DecoderResidual, EncoderResidual
from tokenizer_stage.vae.pca import LinearCodec, from_blocks, to_blocks
from tokenizer_stage.vae.pixels import check_latents, check_video
from tokenizer_stage.vae.statistics import Statistics

CHUNK_LATENTS = 16  # latent steps encoded at a time: bounds memory, changes no value


class VideoVAE(Protocol):
    """What the rest of framemill knows of a VAE."""

    id: str
    kind: str  # its class
    licence: str  # as its authors state it; "" where they do not
    weights_sha256: str  # what it is, wherever it lies
    shape: VaeShape
    resources: Resources  # of a worker that encodes with it; GPUs where there are any
    streams: bool  # a video can be encoded in pieces
    tile_px: int  # side of its own tiles; 0 where it has none

    @property
    def statistics(self) -> Statistics | None:
        """Those of its latents over its training data; None where its authors state none."""

    def run_on(self, device: str, dtype: str = "float32", *, batch: int = 1, tiles: bool = False) -> None: ...
    def encode(self, video: Tensor) -> Tensor: ...
    def encode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]: ...
    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor | None]: ...
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
    kind, licence = "builtin", BUILTIN_LICENCE
    streams, tile_px = True, 0

    def __init__(self, spec: BuiltinSpec) -> None:
        super().__init__()
        self.spec = spec
        self.id = "builtin"
        self.resources = BUILTIN_RESOURCES
        self.weights_sha256 = ""
        self.channels = spec.channels
        self.shape = builtin_shape(spec.channels)
        self.linear = LinearCodec(spec.channels)
        self.encoder = EncoderResidual(spec.channels, spec.width, spec.encoder_depth)
        self.decoder = DecoderResidual(
            spec.channels, spec.width, spec.decoder_depth, spec.fine_width, spec.fine_depth
        )
        self.register_buffer("mean", torch.zeros(spec.channels))
        self.register_buffer("std", torch.ones(spec.channels))

    @property
    def statistics(self) -> Statistics:
        """Those of its latents over its training data."""
        return Statistics(mean=tuple(self.mean.tolist()), std=tuple(self.std.tolist()))

    def run_on(self, device: str, dtype: str = "float32", *, batch: int = 1, tiles: bool = False) -> None:
        """Where it computes from now on. It needs neither narrow numbers nor tiles, and has none.

        Raises:
            ModelError: they are asked for.
        """
        require_plain(dtype, tiles=tiles)
        self.to(device)

    @torch.inference_mode()
    def encode(self, video: Tensor, *, chunk: int = CHUNK_LATENTS) -> Tensor:
        """Video `[B, 3, 1 + 4k, H, W]` → latents `[B, C, 1 + k, H/8, W/8]` on the CPU, `chunk` steps at a
        time, each with the past that it depends on: any `chunk` gives the same latents."""
        check_video(video, self.shape, self.kind)
        parts: list[Tensor] = []
        for begin, context, end in _chunks(self._steps(video.shape[2]), chunk, self.encoder.reach):
            first = 0 if context == 0 else 1 + STRIDE_T * (context - 1)
            parts.append(
                self._encode_after(
                    video[:, :, first : 1 + STRIDE_T * (end - 1)], context == 0, begin - context
                )
            )
        return torch.cat(parts, dim=2)  # [B, C, T', h, w]

    @torch.inference_mode()
    def encode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """One video `[1, 3, t, H, W]` piece by piece, of any lengths → its latents, in memory that does not
        grow with it.

        Raises:
            ModelError: the pieces together are not of 1 + 4k frames.
        """
        known: Tensor | None = None  # the frames that the next step depends on, and those not encoded yet
        at, frames = 0, 0  # latent steps that are encoded; frames that came
        for piece in pieces:
            known, frames = (
                piece if known is None else torch.cat([known, piece], dim=2),
                frames + piece.shape[2],
            )
            context = min(at, self.encoder.reach)
            end = self._steps(self.shape.frames.at_most(frames))
            if end > at:
                usable = STRIDE_T * (end - at + context) - (3 if at == context else 0)
                yield self._encode_after(known[:, :, :usable], at == context, context)
                at, context = end, min(end, self.encoder.reach)
                left = frames - self.shape.frames.at_most(frames)
                keep = left + STRIDE_T * context - (3 if at == context else 0)
                known = known[:, :, -keep:]
        if frames not in self.shape.frames:
            raise ModelError(f"{self.kind}: {frames} frames", expected=f"{self.shape.frames} frames")

    def _encode_after(self, frames: Tensor, starts: bool, context: int) -> Tensor:
        """The latents of frames but for those of their first `context` steps: `[B, C, T', h, w]`."""
        blocks = to_blocks(frames.to(self.mean.device), starts=starts)
        return self.encode_blocks(blocks, starts=starts)[:, context:].transpose(1, 2).cpu()

    def posterior(self, video: Tensor) -> tuple[Tensor, None]:
        """Its latents are points: they have no variance."""
        return self.encode(video), None

    @torch.inference_mode()
    def decode(self, latents: Tensor, *, chunk: int = CHUNK_LATENTS) -> Tensor:
        """Raw latents `[B, C, 1 + k, h, w]` → video `[B, 3, 1 + 4k, 8h, 8w]` in [-1, 1]; causal in time."""
        check_latents(latents, self.shape, self.kind)
        by_step = latents.transpose(1, 2).to(self.mean.device)  # [B, T', C, h, w]
        parts: list[Tensor] = []
        for begin, context, end in _chunks(latents.shape[2], chunk, self.decoder.reach):
            blocks = self.decode_blocks(by_step[:, context:end], starts=context == 0)
            parts.append(from_blocks(blocks[:, begin - context :], starts=begin == 0).cpu())
        return torch.cat(parts, dim=2).clamp(-1.0, 1.0)

    def _steps(self, frames: int) -> int:
        """Latent steps of so many frames; 0 of none."""
        return self.shape.latent(frames, 0, 0)[1]

    def encode_blocks(self, blocks: Tensor, *, starts: bool) -> Tensor:
        """Blocks `[B, T', 768, h, w]` → latents `[B, T', C, h, w]`, differentiable."""
        correction = self.encoder(blocks, starts=starts)
        return self.linear.encode(blocks, starts=starts) + correction * self.linear.scale[:, None, None]

    def decode_blocks(self, latents: Tensor, *, starts: bool) -> Tensor:
        """Latents `[B, T', C, h, w]` → blocks `[B, T', 768, h, w]`, differentiable, not clamped."""
        unit = latents / self.linear.scale[:, None, None]
        return self.linear.decode(latents, starts=starts) + self.decoder(unit, starts=starts)


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
