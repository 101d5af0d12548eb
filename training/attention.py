"""Attention inside the segments of packed sequences, and the rotary positions it is given.

In: queries [N, heads, d] and keys/values [M, heads, d], each cut into segments; segment i of the queries
attends to segment i of the keys and to nothing else. Out: [N, heads, d]. On CUDA this is torch's varlen
kernel; elsewhere a loop over runs of equal lengths (measured on a CPU: 5–20 times faster than a block mask,
padding or nested tensors). Never pads, never masks.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn import functional as F

from training.layout import Layout, Segments

TIME_UNITS_PER_S = (
    2.0  # one latent step of the default rule (4 frames at 8 fps) = one rotary unit, as one token
)
WRITTEN_OUT_SCORES = 512 * 512  # above this many scores a head, memory counts more than speed
ROPE_BASE = 256.0  # longest wavelength 2π·256 tokens: longer than any side or clip in tokens we train on


def segment_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    queries: Segments,
    keys: Segments,
    *,
    written_out_scores: int = WRITTEN_OUT_SCORES,
) -> Tensor:
    """Attention of each query segment over its own key segment."""
    if q.is_cuda:
        from torch.nn.attention.varlen import varlen_attn

        out = varlen_attn(
            q, k, v, queries.offsets, keys.offsets, max(queries.lengths), max(keys.lengths)
        )  # [N, heads, d]
        assert isinstance(out, Tensor)
        return out
    runs = [
        (len(list(run)), q_len, k_len)
        for (q_len, k_len), run in itertools.groupby(zip(queries.lengths, keys.lengths, strict=True))
    ]
    q_sizes, k_sizes = [n * q_len for n, q_len, _ in runs], [n * k_len for n, _, k_len in runs]
    outputs = []  # split, not slices: the gradient of a slice is a whole tensor of zeros
    parts = zip(runs, torch.split(q, q_sizes), torch.split(k, k_sizes), torch.split(v, k_sizes), strict=True)
    for (count, _, _), q_run, k_run, v_run in parts:
        q_many, k_many, v_many = (_batched(run, count) for run in (q_run, k_run, v_run))
        out = _attend(q_many, k_many, v_many, written_out_scores)
        outputs.append(out.transpose(1, 2).flatten(0, 1))  # [count·q_len, heads, d]
    return torch.cat(outputs)


def _attend(q: Tensor, k: Tensor, v: Tensor, written_out_scores: int) -> Tensor:
    """Attention [count, heads, q, d] over [count, heads, k, d]; short ones written out.

    torch's CPU flash kernel has a slow bfloat16 backward: 120 × 120, 49 samples, forward + backward 73 ms on
    one core against 37 ms for the two products (120 × 40: 61 against 11 ms).
    """
    if q.shape[2] * k.shape[2] > written_out_scores:
        return F.scaled_dot_product_attention(q, k, v)
    scores = (q * q.shape[3] ** -0.5) @ k.transpose(-1, -2)  # [count, heads, q, k]
    return torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype) @ v


def _batched(packed: Tensor, count: int) -> Tensor:
    return packed.reshape(count, -1, *packed.shape[1:]).transpose(1, 2)


def rotary_table(layout: Layout, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines [N, 1, head_dim/2] of (seconds, y, x), restarting at each sample.

    A quarter of the pairs turns with time, the rest is shared by the two space axes (RoPE, Su et al. 2021).
    """
    pairs = head_dim // 2
    t_pairs = pairs // 4
    y_pairs = (pairs - t_pairs) // 2
    axes = (
        (layout.seconds * TIME_UNITS_PER_S, t_pairs),
        (layout.cells[:, 0], y_pairs),
        (layout.cells[:, 1], pairs - t_pairs - y_pairs),
    )
    angles = torch.cat(
        [
            at[:, None] * ROPE_BASE ** (-torch.arange(n, device=at.device, dtype=torch.float32) / n)
            for at, n in axes
        ],
        dim=1,
    )  # [N, pairs]
    return angles.cos()[:, None], angles.sin()[:, None]


def rotate(x: Tensor, table: tuple[Tensor, Tensor]) -> Tensor:
    """Turn the pairs (i, i + d/2) of x [N, heads, d] by the table's angles."""
    cos, sin = (part.to(x.dtype) for part in table)
    first, second = x.chunk(2, dim=-1)  # [N, heads, d/2] each
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
