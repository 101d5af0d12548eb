"""Latents of any shape ↔ one packed token sequence.

In: latents [C, T, H, W] of many shapes. Out: tokens [N, P] (P = C·2·2, one token a 1×2×2 patch) of all
samples one after another, and a `Layout` that says which token is whose and where it lies. Nothing is
resized and nothing is padded into the pixels: where H or W is odd, the last patch hangs over the edge; its
outside half is zero, is marked invalid, counts in no loss and is dropped by `unpatchify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

PATCH = 2  # latent cells per side of a token (DiT's "/2": the best FID of every size in its table)

Shape = tuple[int, int, int, int]  # [C, T, H, W] of one latent


@dataclass(frozen=True, slots=True, kw_only=True)
class Segments:
    """Runs of a packed sequence, one a sample; lengths are on the host, so a loop over them costs no sync."""

    lengths: tuple[int, ...]
    offsets: Tensor  # int32 [S + 1]: cumulative lengths, on the tokens' device

    @staticmethod
    def of(lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        if min(lengths, default=1) < 1:  # an empty segment kills torch's CPU flash kernel
            raise ValueError(f"segment lengths must be at least 1, got {list(lengths)}")
        offsets = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return Segments(lengths=tuple(lengths), offsets=offsets.to(device))

    def to(self, device: torch.device) -> Segments:
        return Segments(lengths=self.lengths, offsets=self.offsets.to(device))

    @property
    def total(self) -> int:
        return sum(self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each of N packed tokens belongs."""

    shapes: tuple[Shape, ...]  # latent shape of each sample, in packed order
    segments: Segments
    sample: Tensor  # int64 [N]: index of the token's sample in the pack
    seconds: Tensor  # float32 [N]: time since the sample's first frame
    cells: Tensor  # float32 [N, 2]: (y, x) in tokens, from the sample's top left corner
    relative: Tensor  # float32 [N, 2]: (y, x) of the token's centre as a share of the frame, 0…1
    valid: Tensor  # bool [N, P]: False for the half of a patch that hangs over an odd edge

    def to(self, device: torch.device) -> Layout:
        return Layout(
            shapes=self.shapes,
            segments=self.segments.to(device),
            sample=self.sample.to(device),
            seconds=self.seconds.to(device),
            cells=self.cells.to(device),
            relative=self.relative.to(device),
            valid=self.valid.to(device),
        )


def tokens_of(shape: Sequence[int]) -> int:
    """Tokens of one latent [C, T, H, W]."""
    _, frames, height, width = shape
    return frames * -(-height // PATCH) * -(-width // PATCH)


def patchify(latent: Tensor) -> Tensor:
    """[C, T, H, W] → [T·⌈H/2⌉·⌈W/2⌉, C·4], zeros outside an odd edge."""
    channels, frames, height, width = latent.shape
    padded = F.pad(latent, (0, width % PATCH, 0, height % PATCH))  # [C, T, 2h, 2w]
    rows, columns = padded.shape[2] // PATCH, padded.shape[3] // PATCH
    patches = padded.reshape(channels, frames, rows, PATCH, columns, PATCH)
    patches = patches.permute(1, 2, 4, 0, 3, 5)  # [T, h, w, C, 2, 2]
    return patches.reshape(frames * rows * columns, channels * PATCH * PATCH)


def unpatchify(tokens: Tensor, shape: Shape) -> Tensor:
    """The inverse of `patchify`: [n, C·4] → [C, T, H, W] of `shape`."""
    channels, frames, height, width = shape
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    patches = tokens.reshape(frames, rows, columns, channels, PATCH, PATCH)
    padded = patches.permute(3, 0, 1, 4, 2, 5)  # [C, T, h, 2, w, 2]
    padded = padded.reshape(channels, frames, rows * PATCH, columns * PATCH)
    return padded[:, :, :height, :width]


def layout_of(shapes: Sequence[Shape], seconds_per_step: Sequence[float]) -> Layout:
    """The layout of samples of `shapes`, whose latent steps lie `seconds_per_step` apart."""
    sample, seconds, cells, relative, valid = [], [], [], [], []
    for index, (shape, step_s) in enumerate(zip(shapes, seconds_per_step, strict=True)):
        _, frames, height, width = shape
        rows, columns = -(-height // PATCH), -(-width // PATCH)
        axes = (torch.arange(frames), torch.arange(rows), torch.arange(columns))
        t, y, x = (axis.flatten() for axis in torch.meshgrid(*axes, indexing="ij"))  # each [n]
        seconds.append(t * step_s)
        cells.append(torch.stack([y, x], dim=1).float())  # [n, 2]
        relative.append(torch.stack([(y + 0.5) / (height / PATCH), (x + 0.5) / (width / PATCH)], dim=1))
        valid.append(patchify(torch.ones(shape)) > 0)  # [n, P]
        sample.append(torch.full((len(t),), index))
    return Layout(
        shapes=tuple(shapes),
        segments=Segments.of([len(one) for one in sample]),
        sample=torch.cat(sample),
        seconds=torch.cat(seconds).float(),
        cells=torch.cat(cells),
        relative=torch.cat(relative).float(),
        valid=torch.cat(valid),
    )
