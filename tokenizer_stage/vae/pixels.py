"""Video as pixels and as tensors, and the shapes that a VAE takes.

In: uint8 frames `[T, H, W, 3]`. Out: float video `[3, T, H, W]` in [-1, 1], and back.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ModelError
from tokenizer_stage.vae.geometry import VaeShape


def to_video(frames: np.ndarray) -> Tensor:
    """uint8 `[T, H, W, 3]` → float `[3, T, H, W]` in [-1, 1]."""
    return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float() / 127.5 - 1.0


def to_frames(video: Tensor) -> np.ndarray:
    """float `[3, T, H, W]` in [-1, 1] → uint8 `[T, H, W, 3]`."""
    levels = ((video.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous().numpy()


def check_video(video: Tensor, shape: VaeShape, kind: str) -> None:
    """Refuses, in the name of a VAE, what it would silently drop or fill up: frames and pixels beyond what it
    takes."""
    if video.ndim != 5 or video.shape[1] != 3:
        raise ModelError(
            f"{kind}: video of shape {tuple(video.shape)}", expected="[B, 3, T, H, W] in [-1, 1]"
        )
    t, h, w = video.shape[2:]
    if t not in shape.frames:
        raise ModelError(f"{kind}: {t} frames", expected=f"{shape.frames} frames", fix="use frame_times")
    if h not in shape.sides.height or w not in shape.sides.width:
        raise ModelError(
            f"{kind}: frames of {w}×{h} pixels",
            expected=f"widths of {shape.sides.width} and heights of {shape.sides.height}",
            fix="use target_geometry",
        )


def check_latents(latents: Tensor, shape: VaeShape, kind: str) -> int:
    """The number of frames that these latents `[B, C, T, h, w]` are of; refuses those of no video."""
    if latents.ndim != 5 or latents.shape[1] != shape.channels:
        raise ModelError(
            f"{kind}: latents of shape {tuple(latents.shape)}", expected=f"[B, {shape.channels}, T, H, W]"
        )
    if not (frames := shape.frames_of(latents.shape[2])):
        raise ModelError(
            f"{kind}: {latents.shape[2]} latent steps", expected=f"those of {shape.frames} frames"
        )
    return frames
