"""The diffusion transformer: a packed sequence of noisy latent tokens and their texts in, velocities out.

In: tokens [N, P] of many samples of any shape (training/layout.py), the noise level of every token
(`NoiseLevels`), one text a sample. Out: velocity [N, P]. Each sample sees only itself: packed or alone the
result is the same. A token whose level is 0 is a given one (a known first frame, say): nothing else marks it.
Never normalises latents, draws noise or knows a VAE.

DiT blocks (Peebles & Xie 2022) with adaLN-Zero, cross-attention to the text, query/key norm and rotary
positions in (seconds, y, x).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.attention import rotary_table, rotate, segment_attention
from training.config import ModelConfig
from training.layout import PATCH, Layout, Segments

FOURIER_BANDS = 4  # 1, 2, 4, 8 half-waves across the frame: tells left from right without counting tokens
TIME_FEATURES = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseLevels:
    """The noise level of every token: 0 = clean, 1 = pure noise. Rows are shared, so that they stay few."""

    times: Tensor  # float32 [R]
    row_sample: Tensor  # int64 [R]: whose text modulates this row
    token_row: Tensor  # int64 [N]

    @staticmethod
    def of(times: Tensor, layout: Layout, given: Tensor | None = None) -> NoiseLevels:
        """One level a sample, `times` [S]; tokens marked in `given` (bool [N]) are clean."""
        samples = torch.arange(len(times), device=times.device)
        if given is None:
            return NoiseLevels(times=times.float(), row_sample=samples, token_row=layout.sample)
        return NoiseLevels(
            times=torch.cat([times.float(), torch.zeros_like(times, dtype=torch.float32)]),
            row_sample=samples.repeat(2),
            token_row=layout.sample + len(times) * given,
        )


class Block(nn.Module):
    """Self-attention, cross-attention, MLP; adaLN-Zero gates start at 0, so a new block is the identity."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.modulation = nn.Linear(width, 6 * width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.k_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.attention_out = nn.Linear(width, width)
        self.cross_q = nn.Linear(width, width)
        self.cross_kv = nn.Linear(width, 2 * width)
        self.cross_q_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.cross_k_norm = nn.LayerNorm(width // config.heads, bias=False)
        self.cross_out = nn.Linear(width, width)
        self.mlp_in = nn.Linear(width, config.mlp_ratio * width)
        self.mlp_out = nn.Linear(config.mlp_ratio * width, width)
        for zero in (self.modulation, self.cross_out):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self,
        x: Tensor,  # [N, D]
        condition: Tensor,  # [R, D]
        token_row: Tensor,  # [N]
        rotary: tuple[Tensor, Tensor],
        tokens: Segments,
        text: Tensor,  # [M, D]
        texts: Segments,
    ) -> Tensor:
        modulation = self.modulation(condition).to(x.dtype)  # [R, 6D]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=1)

        h = _modulate(x, shift_a, scale_a, token_row)
        q, k, v = self.qkv(h).unflatten(1, (3, self.heads, -1)).unbind(1)  # [N, heads, d] each
        q, k = rotate(self.q_norm(q), rotary), rotate(self.k_norm(k), rotary)
        h = segment_attention(q.to(v.dtype), k.to(v.dtype), v, tokens, tokens).flatten(1)
        x = torch.addcmul(x, gate_a[token_row], self.attention_out(h))

        q = self.cross_q(_norm(x)).unflatten(1, (self.heads, -1))
        k, v = self.cross_kv(text).unflatten(1, (2, self.heads, -1)).unbind(1)  # [M, heads, d] each
        q, k = self.cross_q_norm(q), self.cross_k_norm(k)
        h = segment_attention(q.to(v.dtype), k.to(v.dtype), v, tokens, texts).flatten(1)
        x = x + self.cross_out(h)

        h = self.mlp_in(_modulate(x, shift_m, scale_m, token_row))
        h = F.relu(h).square()  # Primer (So et al. 2021): as good as GELU, whose bfloat16 CPU kernel is slow
        return torch.addcmul(x, gate_m[token_row], self.mlp_out(h))


class VideoDiT(nn.Module):
    """See the module's docstring. `config.channels` and `config.text_dim` fix what it can be fed."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        patch_dim = config.channels * PATCH * PATCH
        width = config.width
        self.patch_in = nn.Linear(patch_dim, width)
        self.place_in = nn.Linear(4 * FOURIER_BANDS, width)
        self.time_in = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.text_in = nn.Sequential(nn.LayerNorm(config.text_dim), nn.Linear(config.text_dim, width))
        self.text_pooled = nn.Linear(width, width)
        self.null_text = nn.Parameter(torch.randn(1, config.text_dim) * 0.02)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.modulation_out = nn.Linear(width, 2 * width)
        self.patch_out = nn.Linear(width, patch_dim)
        for zero in (self.modulation_out, self.patch_out):
            nn.init.zeros_(zero.weight)
            nn.init.zeros_(zero.bias)

    def forward(
        self, tokens: Tensor, levels: NoiseLevels, layout: Layout, texts: Sequence[Tensor | None]
    ) -> Tensor:
        """Velocity [N, P] of `tokens` [N, P]; a text is [L, text_dim], or None for "no text"."""
        packed, text_segments = self._pack_texts(texts)
        text = self.text_in(packed)  # [M, D]
        pooled = self.text_pooled(_segment_means(text, text_segments))  # [S, D]
        condition = self.time_in(_sinusoids(levels.times)) + pooled[levels.row_sample]
        condition = F.silu(condition)  # [R, D]

        x = self.patch_in(tokens) + self.place_in(_place_features(layout.relative))  # [N, D]
        rotary = rotary_table(layout, self.config.width // self.config.heads)
        for block in self.blocks:
            x = block(x, condition, levels.token_row, rotary, layout.segments, text, text_segments)
        shift, scale = self.modulation_out(condition).to(x.dtype).chunk(2, dim=1)
        return self.patch_out(_modulate(x, shift, scale, levels.token_row)).float()  # [N, P]

    def _pack_texts(self, texts: Sequence[Tensor | None]) -> tuple[Tensor, Segments]:
        """Texts one after another [M, text_dim]; a missing one is the learned null token, never empty."""
        device = self.null_text.device
        parts = [self.null_text if text is None else text.to(device, torch.float32) for text in texts]
        return torch.cat(parts), Segments.of([len(part) for part in parts], device)


def _norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:])


def _modulate(x: Tensor, shift: Tensor, scale: Tensor, token_row: Tensor) -> Tensor:
    return torch.addcmul(shift[token_row], _norm(x), 1 + scale[token_row])


def _segment_means(x: Tensor, segments: Segments) -> Tensor:
    """Mean of each segment of x [M, D] → [S, D]."""
    return torch.stack([part.mean(0) for part in torch.split(x, list(segments.lengths))])


def _sinusoids(times: Tensor) -> Tensor:
    """[R] in 0…1 → [R, TIME_FEATURES]; float32 always, for small steps of the sampler must differ."""
    half = TIME_FEATURES // 2
    frequencies = 10_000 ** (-torch.arange(half, device=times.device, dtype=torch.float32) / half)
    angles = 1000 * times.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def _place_features(relative: Tensor) -> Tensor:
    """(y, x) shares [N, 2] → [N, 4·FOURIER_BANDS]."""
    bands = torch.pi * 2.0 ** torch.arange(FOURIER_BANDS, device=relative.device)
    angles = (relative[:, :, None] * bands).flatten(1)  # [N, 2·bands]
    return torch.cat([angles.cos(), angles.sin()], dim=1)
