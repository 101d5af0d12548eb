"""Text encoders by name: `builtin:`. In: strings. Out: per-token features [L, dim], L ≥ 1 each.

Features of a text are computed once and kept, up to a bound, since captions come back every epoch. Never
trains, never pads, never truncates silently beyond what the encoder itself does.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pipeline.bundle import parse_name

CACHE_BYTES = 512 * 2**20


class TextEncoder(Protocol):
    """What the trainer knows of a text encoder."""

    name: str
    dim: int
    sha256: str

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        """float16 features [L_i, dim] of each text."""


class CachedTextEncoder:
    """Keeps the features of recent texts (float16), least recently used out first."""

    def __init__(
        self,
        name: str,
        dim: int,
        sha256: str,
        embed: Callable[[list[str]], list[Tensor]],
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.name, self.dim, self.sha256 = name, dim, sha256
        self._embed, self._cache_bytes = embed, cache_bytes
        self._kept: OrderedDict[str, Tensor] = OrderedDict()
        self._bytes = 0

    def encode(self, texts: Sequence[str]) -> list[Tensor]:
        missing = [text for text in dict.fromkeys(texts) if text not in self._kept]
        fresh: dict[str, Tensor] = {}
        if missing:
            with torch.inference_mode():
                # each alone: a row's last bits depend on the size of its batch, and a resumed run has others
                fresh = {text: self._embed([text])[0].half().clone() for text in missing}
        features = [fresh[text] if text in fresh else self._kept[text] for text in texts]
        for text in dict.fromkeys(texts):
            if text in fresh:
                self._kept[text] = fresh[text]
                self._bytes += fresh[text].nbytes
            self._kept.move_to_end(text)
        while self._bytes > self._cache_bytes:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return features


def load_text_encoder(name: str) -> CachedTextEncoder:
    """The text encoder of that name, on the CPU."""
    parse_name(name, "text encoder", ("builtin:",))
    from captioner.model import load_builtin

    model = load_builtin()
    dim = model.encode_text_tokens(["a"])[0].shape[1]
    return CachedTextEncoder(name, dim, model.text_sha256, model.encode_text_tokens)
