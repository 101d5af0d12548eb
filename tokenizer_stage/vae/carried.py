"""Encoding a video of any length in the small steps in which some classes of diffusers do it themselves.

In: one of those models and a video in pieces. Out: the moments of its latents, step by step, equal to those
of one call: the state that the class carries from one step to the next is kept between pieces. Knows how four
classes do that; the tests hold each of them equal to its class's own call. A state is never left behind for
the next video.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import ModelError
from tokenizer_stage.vae.geometry import Counts

CARRYING = (
    "AutoencoderKLCogVideoX",
    "AutoencoderKLMagvit",
    "AutoencoderKLQwenImage",
    "AutoencoderKLWan",
)


def carried_moments(
    model: Any, kind: str, pieces: Iterable[Tensor], frames: Counts, ready: Callable[[Tensor], Tensor]
) -> Iterator[Tensor]:
    """Pieces `[1, 3, t, H, W]` of one video → moments `[1, 2C, t', h, w]` of each of the model's steps;
    `ready` brings a step to where the model computes.

    Raises:
        ModelError: the pieces together are of no frame count that it takes.
    """
    encode, forget = _stepping(model, kind)
    forget()
    try:
        for step in _steps(pieces, frames, whole_start=kind == "AutoencoderKLCogVideoX", kind=kind):
            yield encode(ready(step))
    finally:
        forget()


def _stepping(model: Any, kind: str) -> tuple[Callable[[Tensor], Tensor], Callable[[], None]]:
    """How a model encodes its next step, and how it forgets those before."""
    if kind == "AutoencoderKLMagvit":
        return lambda step: model.quant_conv(model.encoder(step)), model._clear_conv_cache
    if kind == "AutoencoderKLCogVideoX":
        cache: dict[str, Any] = {"conv_cache": None}

        def encode_batch(step: Tensor) -> Tensor:
            moments, cache["conv_cache"] = model.encoder(step, conv_cache=cache["conv_cache"])
            return moments if model.quant_conv is None else model.quant_conv(moments)

        return encode_batch, lambda: cache.update(conv_cache=None)

    def encode_step(step: Tensor) -> Tensor:
        model._enc_conv_idx = [0]
        if patch := model.config.get("patch_size"):
            step = _folded(step, patch)
        moments = model.encoder(step, feat_cache=model._enc_feat_map, feat_idx=model._enc_conv_idx)
        return model.quant_conv(moments)

    return encode_step, model.clear_cache


def _steps(pieces: Iterable[Tensor], frames: Counts, *, whole_start: bool, kind: str) -> Iterator[Tensor]:
    """The pieces cut anew: the first frame, then `frames.step` at a time; the first frame together with those
    after it where `whole_start`."""
    waiting: Tensor | None = None
    need = frames.first + (frames.step if whole_start else 0)
    count, started = 0, False
    for piece in pieces:
        count += piece.shape[2]
        waiting = piece if waiting is None else torch.cat([waiting, piece], dim=2)
        while waiting.shape[2] >= need:
            yield waiting[:, :, :need]
            waiting, need, started = waiting[:, :, need:], frames.step, True
    if count not in frames:
        raise ModelError(f"{kind}: {count} frames", expected=f"{frames} frames", fix="use frame_times")
    if waiting is not None and not started:
        yield waiting


def _folded(video: Tensor, patch: int) -> Tensor:
    """`[B, C, T, H, W]` → `[B, C·patch², T, H/patch, W/patch]`, in the order in which Wan 2.2 does it."""
    b, c, t, h, w = video.shape
    cells = video.reshape(b, c, t, h // patch, patch, w // patch, patch)
    return cells.permute(0, 1, 6, 4, 2, 3, 5).reshape(b, c * patch**2, t, h // patch, w // patch)
