"""Video as pixels and as tensors, and the shapes that a VAE takes.

In: uint8 frames `[T, H, W, 3]`. Out: float video `[3, T, H, W]` in [-1, 1], and back.
"""

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import ModelError


def to_video(frames: np.ndarray) -> Tensor:
    """uint8 `[T, H, W, 3]` → float `[3, T, H, W]` in [-1, 1]."""
    return torch.from_numpy(frames.copy()).permute(3, 0, 1, 2).float() / 127.5 - 1.0


def to_frames(video: Tensor) -> np.ndarray:
    """float `[3, T, H, W]` in [-1, 1] → uint8 `[T, H, W, 3]`."""
    levels = ((video.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return levels.permute(1, 2, 3, 0).contiguous().numpy()


def check_video(video: Tensor, stride_t: int, stride_s: int) -> None:
    """Refuses what a VAE would silently drop: frames beyond 1 + 4k, pixels beyond a multiple of 8."""
    if video.ndim != 5 or video.shape[1] != 3:
        raise ModelError(f"video of shape {tuple(video.shape)}", expected="[B, 3, T, H, W] in [-1, 1]")
    t, h, w = video.shape[2:]
    if t % stride_t != 1 % stride_t:
        raise ModelError(f"a video of {t} frames", expected=f"1 + {stride_t}k frames", fix="use frame_times")
    if h % stride_s or w % stride_s or not h or not w:
        raise ModelError(
            f"a video of {w}×{h} pixels", expected=f"multiples of {stride_s}", fix="use target_geometry"
        )
