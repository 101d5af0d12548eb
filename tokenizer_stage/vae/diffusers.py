"""VAEs of the diffusers library behind the `VideoVAE` protocol: of video, and of images, frame by frame.

In: `diffusers:<repo or folder>` (a `vae` subfolder is found). Out: an adapter that takes and gives what
`tokenizer_stage.vae.builtin` documents. Strides, channels, frame counts and statistics are read from the
model; that it keeps them is for tokenizer_stage/vae/measure.py to see. What the class itself would drop, fill
up or refuse is refused here first. Loads safetensors only, downloads only the repo that was named.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from tokenizer_stage.vae.carried import CARRYING, carried_moments
from tokenizer_stage.vae.geometry import Counts, Sides, VaeShape, causal_shape
from tokenizer_stage.vae.pixels import check_latents, check_video
from tokenizer_stage.vae.statistics import Statistics, published

VIDEO_CLASSES = (
    *CARRYING,
    "AutoencoderKLAllegro",
    "AutoencoderKLCosmos",
    "AutoencoderKLHunyuanVideo",
    "AutoencoderKLHunyuanVideo15",
    "AutoencoderKLLTX2Video",
    "AutoencoderKLLTXVideo",
    "AutoencoderKLMochi",
)
IMAGE_CLASSES = ("AutoencoderDC", "AutoencoderKL", "AutoencoderTiny")
UNTILED_CLASSES = (
    "AutoencoderKLAllegro",
    "AutoencoderKLCosmos",
)  # always in tiles; never, whatever is enabled


class DiffusersVAE:
    """An autoencoder of diffusers. Its state while it encodes lies in the model: one call at a time."""

    def __init__(self, model: Any, name: str, *, licence: str = "") -> None:
        """`model` holds its weights in float32.

        Raises:
            ModelError: its class is none of those that are known here, or its config is of no such model.
        """
        self.kind = type(model).__name__
        if self.kind not in VIDEO_CLASSES + IMAGE_CLASSES:
            raise ModelError(
                f"diffusers:{name} is a {self.kind}",
                expected=f"one of {', '.join(sorted(VIDEO_CLASSES + IMAGE_CLASSES))}",
            )
        self.id, self.licence = f"diffusers:{name}", licence
        self.shape = _shape(model, self.kind)
        self.statistics = _statistics(model, self.shape.channels)
        self.weights_sha256 = _state_sha256(model.state_dict())
        weights_gb = sum(value.numel() * value.element_size() for value in model.parameters()) / 2**30
        self.resources = Resources(cpus=1, gpus=1, memory_gb=3 + weights_gb)
        self.streams = self.kind in CARRYING
        self.tile_px = 0 if self.kind in UNTILED_CLASSES else _tile_px(model)
        self._device, self._dtype, self._batch = torch.device("cpu"), torch.float32, 1
        self._model = model.eval().requires_grad_(False)
        if self.kind == "AutoencoderKLAllegro":
            model.enable_tiling()  # the class has no other way

    def run_on(self, device: str, dtype: str = "float32", *, batch: int = 1, tiles: bool = False) -> None:
        """Where and in what numbers it computes from now on, of how many clips (images: frames) at once, and
        whether in the class's own overlapping tiles. Weights that were narrowed once stay so.

        Raises:
            ModelError: the class has no tiles.
        """
        if tiles and not self.tile_px:
            raise ModelError(f"{self.kind} has no tiles of its own", fix="--set encode.tiles=false")
        if tiles:
            self._model.enable_tiling()
            self.streams = False
        self._device, self._dtype, self._batch = torch.device(device), getattr(torch, dtype), batch
        self._model.to(self._device, self._dtype)

    def encode(self, video: Tensor) -> Tensor:
        """Video `[B, 3, T, H, W]` → the posterior's mode `[B, C, T', h, w]`, float32 on the CPU."""
        return self.posterior(video)[0]

    @torch.inference_mode()
    def posterior(self, video: Tensor) -> tuple[Tensor, Tensor | None]:
        """Video → the posterior's mode and the logarithm of its variance, both `[B, C, T', h, w]`, float32 on
        the CPU; no variance of a class whose latents are points.

        Raises:
            ModelError: it does not take such a video.
            MemoryError: the device has too little.
        """
        check_video(video, self.shape, self.kind)
        self._forget()
        lots = torch.split(_by_frame(video) if self.kind in IMAGE_CLASSES else video, self._batch)
        try:
            moments = [_posterior(self._model.encode(self._ready(lot))) for lot in lots]
        except torch.OutOfMemoryError as error:  # says nothing of the clip
            raise MemoryError(f"{self.kind} on {self._device}: {error}") from error
        modes, logvars = zip(*moments, strict=True)
        mode = torch.cat([m.float().cpu() for m in modes])
        logvar = None if logvars[0] is None else torch.cat([v.float().cpu() for v in logvars])
        if self.kind in IMAGE_CLASSES:
            frames = video.shape[2]
            return _by_video(mode, frames), None if logvar is None else _by_video(logvar, frames)
        return mode, logvar

    @torch.inference_mode()
    def encode_pieces(self, pieces: Iterable[Tensor]) -> Iterator[Tensor]:
        """One video `[1, 3, t, H, W]` piece by piece, of any lengths → its latents, the same as in one call,
        step by step in memory that does not grow with it. Only where it `streams`.

        Raises:
            ModelError: the pieces together are of no frame count that it takes.
        """
        if not self.streams:
            raise ModelError(f"{self.kind} carries no state from frame to frame", fix="encode in one call")
        for moments in carried_moments(self._model, self.kind, pieces, self.shape.frames, self._ready):
            yield moments[:, : self.shape.channels].float().cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents → video `[B, 3, T, H, W]` in [-1, 1], float32 on the CPU: as many frames of the size as
        went in."""
        frames = check_latents(latents, self.shape, self.kind)
        z = self._ready(latents)
        if self.kind in IMAGE_CLASSES:
            lots = torch.split(_by_frame(z), self._batch)
            return _by_video(torch.cat([self._model.decode(lot).sample for lot in lots]), frames)
        more = {}
        if self._model.config.get("timestep_conditioning"):
            more["temb"] = torch.zeros(len(z), device=z.device, dtype=z.dtype)
        self._forget()
        with self._fixed_noise():
            video = self._model.decode(z, **more).sample
        if self.kind == "AutoencoderKLAllegro":
            video = video.transpose(1, 2)  # it gives [B, T, 3, H, W]
        return video.float().clamp(-1.0, 1.0).cpu()

    def _ready(self, values: Tensor) -> Tensor:
        return values.to(self._device, self._dtype)

    def _forget(self) -> None:
        """What a call that failed may have left in the model is not for the next video."""
        if self.kind == "AutoencoderKLMagvit":
            self._model._clear_conv_cache()

    @contextmanager
    def _fixed_noise(self) -> Iterator[None]:
        """For decoders that add noise: the same every time."""
        with torch.random.fork_rng([self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(0)
            yield


def load_diffusers(name: str) -> DiffusersVAE:
    """The VAE of a diffusers repo or folder, on the CPU, in float32."""
    try:
        import diffusers
    except ImportError as error:
        raise ModelError("diffusers is not installed", fix="pip install 'framemill[diffusers]'") from error
    how = {"use_safetensors": True, "low_cpu_mem_usage": find_spec("accelerate") is not None}
    try:
        try:
            model = diffusers.AutoModel.from_pretrained(name, subfolder="vae", **how)
        except (OSError, ValueError):
            model = diffusers.AutoModel.from_pretrained(name, **how)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no VAE at diffusers:{name}: {error}", expected="a diffusers repo or folder with safetensors"
        ) from error
    return DiffusersVAE(model.float(), name, licence=_licence(name))


def _shape(model: Any, kind: str) -> VaeShape:
    """Strides, channels and counts, from the model's attributes and config."""
    config = model.config
    channels = config.get("z_dim") or config["latent_channels"]
    blocks = config.get("encoder_block_out_channels") or config.get("block_out_channels") or ()
    stride_s = int(
        _attribute(model, "spatial_compression_ratio", "scale_factor_spatial") or 2 ** (len(blocks) - 1)
    )
    if kind in IMAGE_CLASSES:
        return causal_shape(channels=channels, stride_t=1, stride_s=stride_s)
    halvings = sum(config.get("temperal_downsample") or ())
    stride_t = int(_attribute(model, "temporal_compression_ratio", "scale_factor_temporal") or 2**halvings)
    if kind == "AutoencoderKLAllegro":  # tiles of a fixed size; what they do not cover comes out as zero
        (frames, high, wide), steps = model.kernel, model.stride
        return VaeShape(
            channels=channels,
            stride_t=stride_t,
            stride_s=stride_s,
            frames=Counts(first=frames, step=steps[0]),
            sides=Sides(width=Counts(first=wide, step=steps[2]), height=Counts(first=high, step=steps[1])),
        )
    shape = causal_shape(channels=channels, stride_t=stride_t, stride_s=stride_s)
    if kind != "AutoencoderKLCogVideoX":
        return shape
    # An even number of latents is decoded in pairs, to 8 frames where 5 went in: only odd ones come back.
    frames = Counts(first=1, step=stride_t * model.num_latent_frames_batch_size)
    return VaeShape(channels=channels, stride_t=stride_t, stride_s=stride_s, frames=frames, sides=shape.sides)


def _tile_px(model: Any) -> int:
    """The longer side of the tiles that the class cuts larger frames into."""
    names = ("tile_sample_min_size", "tile_sample_min_height", "tile_sample_min_width")
    return max(int(getattr(model, name, 0)) for name in names)


def _attribute(model: Any, ratio: str, factor: str) -> Any:
    """A compression ratio as the class computes it, or as its config says it."""
    return vars(model).get(ratio) or model.config.get(ratio) or model.config.get(factor)


def _statistics(model: Any, channels: int) -> Statistics | None:
    """Those of its config, or of buffers among its weights."""
    config: Mapping[str, Any] = model.config
    mean, std = config.get("latents_mean"), config.get("latents_std")
    buffers = dict(model.named_buffers())
    if mean is None and "latents_mean" in buffers:
        mean, std = buffers["latents_mean"].tolist(), buffers["latents_std"].tolist()
    return published(channels, mean, std, config.get("scaling_factor"), config.get("shift_factor"))


def _posterior(output: Any) -> tuple[Tensor, Tensor | None]:
    """What a class's `encode` returns: its mode, and the logarithm of its variance, if it has any."""
    if (dist := getattr(output, "latent_dist", None)) is not None:
        return dist.mode(), getattr(dist, "logvar", None)
    latents: Tensor = output.latent if hasattr(output, "latent") else output.latents
    return latents, None


def _by_frame(video: Tensor) -> Tensor:
    """`[B, C, T, H, W]` → `[B·T, C, H, W]`"""
    return video.transpose(1, 2).flatten(0, 1)


def _by_video(frames: Tensor, count: int) -> Tensor:
    """`[B·T, C, H, W]` → `[B, C, T, H, W]`, T = count"""
    return frames.reshape(-1, count, *frames.shape[1:]).transpose(1, 2).contiguous()


def _licence(name: str) -> str:
    """What the README of a repo or folder (or of the folder around it) says at its head; "" for nothing."""
    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError

        try:
            folder = Path(hf_hub_download(name, "README.md")).parent
        except (OSError, ValueError, HfHubHTTPError):
            return ""
    for place in (folder, folder.parent):
        if (readme := place / "README.md").is_file():
            head = readme.read_text(encoding="utf-8", errors="replace").split("---")
            stated = re.search(r"^license:\s*(\S+)", head[1], re.MULTILINE) if len(head) > 2 else None
            return stated.group(1) if stated else ""
    return ""


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    """A hash of every weight, whatever files they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
