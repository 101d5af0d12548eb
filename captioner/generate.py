"""Greedy caption generation with a key/value cache.

In: a `VideoCoCa`, frames and a style. Out: texts with the mean log-probability of their tokens. The same
input gives the same text: it never samples. open_clip's own `generate` has no cache and fails on current
transformers.
"""

from dataclasses import dataclass, field

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from captioner.caption import MAX_TOKENS
from captioner.model import VideoCoCa
from captioner.tokenizer import END_ID, PAD_ID


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    text: str
    log_probability: float  # mean over the generated tokens, `<end>` included


@dataclass(slots=True)
class _Layer:
    """Keys and values [B, H, L, d] that one block has seen; grows for text, fixed for the video."""

    keys: Tensor | None = None
    values: Tensor | None = None

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], 2), torch.cat([self.values, values], 2)
        self.keys, self.values = keys, values
        return keys, values


@dataclass(slots=True)
class TextState:
    """Everything that predicting the next token needs of the tokens before it."""

    model: VideoCoCa
    video_tokens: Tensor  # [B, Q, D]
    position: int = 0
    layers: dict[int, _Layer] = field(default_factory=dict)

    def step(self, ids: Tensor) -> Tensor:
        """One more token for each row, ids [B] → logits of the next one [B, V]."""
        text, decoder = self.model.text, self.model.text_decoder
        x = text.token_embedding(ids).unsqueeze(1) + text.positional_embedding[self.position]  # [B, 1, D]
        for block in text.transformer.resblocks:
            x = self._attend_to_text(block, x)
        x = text.ln_final(x)
        for block, cross in zip(decoder.resblocks, decoder.cross_attn, strict=True):
            x = self._attend_to_video(cross, self._attend_to_text(block, x))
        self.position += 1
        return decoder.ln_final(x)[:, 0] @ decoder.text_projection  # [B, V]

    def _attend_to_text(self, block: ResidualAttentionBlock, x: Tensor) -> Tensor:
        normed = block.ln_1(x)
        query, key, value = (_project(block.attn, part, normed) for part in range(3))
        keys, values = self.layers.setdefault(id(block), _Layer()).extend(key, value)
        return _finish(block, x, query, keys, values)

    def _attend_to_video(self, block: ResidualAttentionBlock, x: Tensor) -> Tensor:
        layer = self.layers.setdefault(id(block), _Layer())
        if layer.keys is None or layer.values is None:
            video = block.ln_1_kv(self.video_tokens)
            layer.extend(_project(block.attn, 1, video), _project(block.attn, 2, video))
        assert layer.keys is not None
        assert layer.values is not None
        return _finish(block, x, _project(block.attn, 0, block.ln_1(x)), layer.keys, layer.values)


def _project(attention: nn.MultiheadAttention, part: int, x: Tensor) -> Tensor:
    """Query (0), key (1) or value (2) heads of x [B, L, D] → [B, H, L, d]."""
    weight = attention.in_proj_weight.chunk(3)[part]
    bias = attention.in_proj_bias.chunk(3)[part]
    heads = F.linear(x, weight, bias).view(*x.shape[:2], attention.num_heads, -1)  # [B, L, H, d]
    return heads.transpose(1, 2)


def _finish(block: ResidualAttentionBlock, x: Tensor, query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    attended = F.scaled_dot_product_attention(query, keys, values)  # [B, H, 1, d]
    x = x + block.attn.out_proj(attended.transpose(1, 2).flatten(2))  # [B, 1, D]
    return x + block.mlp(block.ln_2(x))


@torch.inference_mode()
def generate(model: VideoCoCa, video_tokens: Tensor, style: str, max_tokens: int) -> list[Generated]:
    """Captions for video tokens [B, Q, D] from `encode_video`, in one style."""
    rows = len(video_tokens)
    limit = min(max_tokens, model.config.context_length - 1)
    state = TextState(model, video_tokens)
    ids = torch.full((rows,), model.tokenizer.style_id(style), device=video_tokens.device)  # [B]
    written = torch.full((rows, limit), PAD_ID, device=video_tokens.device)  # [B, limit]
    total, count = torch.zeros(rows, device=ids.device), torch.zeros(rows, device=ids.device)
    open_rows = torch.ones(rows, dtype=torch.bool, device=ids.device)
    for place in range(limit):
        best, ids = F.log_softmax(state.step(ids).float(), dim=-1).max(-1)  # [B], [B]
        ids = torch.where(open_rows, ids, PAD_ID)
        written[:, place] = ids
        total, count = total + best * open_rows, count + open_rows
        open_rows = open_rows & (ids != END_ID)
        if not open_rows.any():
            break
    return [
        Generated(text=model.tokenizer.decode(row), log_probability=value)
        for row, value in zip(written.tolist(), (total / count).tolist(), strict=True)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class StripCaption:
    """Both captions of one filmstrip. `alignment` is the cosine of the clip and its detailed caption."""

    short: Generated
    detailed: Generated
    alignment: float


@torch.inference_mode()
def caption_video(
    model: VideoCoCa, frames: Tensor, times_s: Tensor, max_tokens: int = MAX_TOKENS
) -> StripCaption:
    """Captions of frames uint8 [T, 3, S, S] at times [T]. One video at a time: in a batch rounding errors
    depend on its size, and a caption must not depend on what is captioned beside it."""
    device = model.logit_scale.device
    video, tokens = model.encode_video(frames[None].to(device), times_s[None].to(device))  # [1, D], [1, Q, D]
    (short,), (detailed,) = (generate(model, tokens, style, max_tokens) for style in ("short", "detailed"))
    text = model.encode_texts([detailed.text])  # [1, D]
    return StripCaption(short=short, detailed=detailed, alignment=float(video[0] @ text[0]))
