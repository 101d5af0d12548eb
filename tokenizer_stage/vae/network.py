"""The trained residuals of the built-in VAE: small causal networks around the closed-form stage.

In: pixel blocks `[B, T', 768, h, w]` (encoder) or latents in unit variance `[B, T', C, h, w]`
(decoder). Out: a correction of the same kind as the linear stage's output, zero before training.
Space is mixed by 3×3 convolutions, time by shifting half of the channels one step (Lin et al. 2019,
arXiv 1811.08383): a step sees itself and the past, never the future. Never normalises over time or
space, so a prefix of a video has the latents of the whole.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokenizer_stage.vae.description import STRIDE_S, STRIDE_T
from tokenizer_stage.vae.pca import VIDEO_DIM

FINE = 2  # the decoder's second half works at latent resolution × FINE


class ChannelNorm(nn.Module):
    """Root-mean-square norm over the channels of each position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.float().square().mean(1, keepdim=True) + 1e-6).to(x.dtype) * self.gain


class Block(nn.Module):
    """Norm, one step of time shift, two 3×3 convolutions; zero at the start of training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(width)
        self.conv_in = nn.Conv2d(width, width, 3, padding=1)
        self.conv_out = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, steps: int) -> Tensor:
        """x: `[B·steps, width, h, w]`."""
        h = _shift(self.norm(x), steps)
        return x + self.conv_out(F.silu(self.conv_in(h)))


def _shift(x: Tensor, steps: int) -> Tensor:
    """The first half of the channels comes from one time step earlier (zeros before the first)."""
    by_step = x.reshape(-1, steps, *x.shape[1:])  # [B, T', width, h, w]
    half = x.shape[1] // 2
    past = F.pad(by_step[:, :-1, :half], (0, 0, 0, 0, 0, 0, 1, 0))
    return torch.cat([past, by_step[:, :, half:]], dim=2).flatten(0, 1)


class EncoderResidual(nn.Module):
    """What the nonlinear encoder adds to the linear latents, in units of their standard deviation."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.reach = depth  # latent steps of the past that an output depends on
        self.project = nn.Conv2d(VIDEO_DIM, width, 1)
        self.first = nn.Parameter(torch.zeros(width, 1, 1))  # marks the image step
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Conv2d(width, channels, 1)
        _zero(self.head)

    def forward(self, blocks: Tensor, *, starts: bool) -> Tensor:
        """Blocks `[B, T', 768, h, w]` → correction `[B, T', C, h, w]`."""
        b, steps = blocks.shape[:2]
        x = _enter(self.project(blocks.flatten(0, 1)), self.first, b, starts)
        for block in self.blocks:
            x = block(x, steps)
        x = self.head(x)
        return x.reshape(b, steps, *x.shape[1:])


class DecoderResidual(nn.Module):
    """What the nonlinear decoder adds to the linear blocks: detail that neighbours in space and the
    past predict, and the seams between blocks."""

    def __init__(self, channels: int, width: int, depth: int, fine_width: int, fine_depth: int) -> None:
        super().__init__()
        self.reach = depth + fine_depth
        self.project = nn.Conv2d(channels, width, 1)
        self.first = nn.Parameter(torch.zeros(width, 1, 1))
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.widen = nn.Conv2d(width, fine_width * FINE * FINE, 1)
        self.fine_blocks = nn.ModuleList(Block(fine_width) for _ in range(fine_depth))
        self.head = nn.Conv2d(fine_width, VIDEO_DIM // (FINE * FINE), 1)
        _zero(self.head)

    def forward(self, latents: Tensor, *, starts: bool) -> Tensor:
        """Latents in unit variance `[B, T', C, h, w]` → correction of the blocks `[B, T', 768, h, w]`."""
        b, steps = latents.shape[:2]
        x = _enter(self.project(latents.flatten(0, 1)), self.first, b, starts)
        for block in self.blocks:
            x = block(x, steps)
        x = F.pixel_shuffle(self.widen(x), FINE)  # [B·T', fine_width, 2h, 2w]
        for block in self.fine_blocks:
            x = block(x, steps)
        x = _fine_to_blocks(self.head(x))  # [B·T', 768, h, w]
        return x.reshape(b, steps, *x.shape[1:])


def _fine_to_blocks(x: Tensor) -> Tensor:
    """`[N, 3·4·(4·4), 2h, 2w]` → blocks `[N, 3·4·(8·8), h, w]` of the same pixels."""
    n, _, h, w = x.shape
    side = STRIDE_S // FINE
    x = x.reshape(n, 3 * STRIDE_T, side, side, h // FINE, FINE, w // FINE, FINE)
    x = x.permute(0, 1, 5, 2, 7, 3, 4, 6)  # [N, 12, 2, 4, 2, 4, h, w]: row = 4·(fine row) + row inside
    return x.reshape(n, VIDEO_DIM, h // FINE, w // FINE)


def _enter(x: Tensor, first: Tensor, batch: int, starts: bool) -> Tensor:
    """Channels-last features `[B·T', width, h, w]` with the image step marked."""
    if starts:
        by_step = x.reshape(batch, -1, *x.shape[1:])
        x = torch.cat([by_step[:, :1] + first, by_step[:, 1:]], dim=1).flatten(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


def _zero(conv: nn.Conv2d) -> None:
    nn.init.zeros_(conv.weight)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)
