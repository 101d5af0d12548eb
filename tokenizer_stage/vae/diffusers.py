"""Video VAEs of the diffusers library behind the `VideoVAE` protocol.

In: `diffusers:<repo or folder>` (a `vae` subfolder is found). Out: an adapter that takes and gives what
`tokenizer_stage.vae.builtin` documents. It enforces the frame and size rules that those classes break in
silence, takes the posterior's mode, and loads safetensors only. Downloads only the repo that was named.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from tokenizer_stage.vae.pixels import check_video

CAUSAL_CLASSES = {  # diffusers class → (frames, pixels) a latent
    "AutoencoderKLWan": (4, 8),
    "AutoencoderKLHunyuanVideo": (4, 8),
    "AutoencoderKLCogVideoX": (4, 8),
    "AutoencoderKLCosmos": (8, 8),
    "AutoencoderKLLTXVideo": (8, 32),
}


class DiffusersVAE:
    """One of the causal video autoencoders of diffusers."""

    def __init__(self, model: Any, name: str) -> None:
        kind, config = type(model).__name__, model.config
        if kind not in CAUSAL_CLASSES:
            raise ModelError(f"{name} is a {kind}", expected=f"one of {', '.join(CAUSAL_CLASSES)}")
        stride_t, stride_s = CAUSAL_CLASSES[kind]
        self.id = f"diffusers:{name}"
        self.stride_t: int = config.get("scale_factor_temporal") or stride_t
        self.stride_s: int = config.get("scale_factor_spatial") or stride_s
        self.channels: int = config.get("z_dim") or config["latent_channels"]
        self.mean, self.std = _statistics(config, self.channels)
        self.weights_sha256 = _state_sha256(model.state_dict())
        weights_gb = sum(value.numel() * value.element_size() for value in model.parameters()) / 2**30
        self.resources = Resources(cpus=1, gpus=1, memory_gb=3 + weights_gb)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model = model.eval().requires_grad_(False)  # where it is loaded it need not run

    @torch.inference_mode()
    def encode(self, video: Tensor) -> Tensor:
        """Video `[B, 3, 1 + k·stride_t, H, W]` → the posterior's mode `[B, C, 1 + k, h, w]`."""
        check_video(video, self.stride_t, self.stride_s)
        self._model.to(self._device)
        return self._model.encode(video.to(self._device)).latent_dist.mode().cpu()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Tensor:
        """Latents → video in [-1, 1]."""
        self._model.to(self._device)
        return self._model.decode(latents.to(self._device)).sample.clamp(-1.0, 1.0).cpu()


def load_diffusers(name: str) -> DiffusersVAE:
    """The VAE of a diffusers repo or folder, in float32."""
    try:
        import diffusers
    except ImportError as error:
        raise ModelError("diffusers is not installed", fix="pip install 'framemill[diffusers]'") from error
    try:
        try:
            model = diffusers.AutoModel.from_pretrained(name, subfolder="vae", use_safetensors=True)
        except (OSError, ValueError):
            model = diffusers.AutoModel.from_pretrained(name, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no VAE at diffusers:{name}: {error}", expected="a diffusers repo or folder with safetensors"
        ) from error
    return DiffusersVAE(model.float(), name)


def _statistics(config: Mapping[str, Any], channels: int) -> tuple[Tensor, Tensor]:
    """Per-channel mean and standard deviation: listed in the config, or one shift and scale for all."""
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if mean is not None and std is not None and len(mean) == channels:
        return torch.tensor(mean), torch.tensor(std)
    shift, scale = config.get("shift_factor") or 0.0, config.get("scaling_factor") or 1.0
    return torch.full((channels,), float(shift)), torch.full((channels,), 1.0 / float(scale))


def _state_sha256(state: Mapping[str, Tensor]) -> str:
    """A hash of every weight, whatever files they came from."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
