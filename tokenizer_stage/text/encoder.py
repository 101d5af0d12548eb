"""What a text encoder of a generative model is.

In: texts. Out: features of each. Never: a model by name (tokenizer_stage/text/names.py has them).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.engine.stage import Resources
from pipeline.errors import ModelError


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFeatures:
    """What an encoder says of one text, of which `cut_tokens` lay beyond its limit and are in nothing."""

    tokens: np.ndarray  # float16 [L, D], L of 1 or more: exactly as long as the text
    cut_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDescription:
    """What planning needs of an encoder. `identity` is a hash of its weights, tokenizer and settings: equal
    identity, equal features on a device of one class. `limit` is in tokens, specials included."""

    name: str
    family: str
    width: int
    limit: int
    template: str
    identity: str
    resources: Resources


class TextEncoder(Protocol):
    """An encoder with its weights loaded."""

    description: TextDescription

    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        """Features of each text. They never depend on the other texts: alone, in any order, after a restart
        they are the same bits on one kind of CPU.

        Raises:
            MediaError: the features of a text are not finite in float16.
        """


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread: sums on several are grouped otherwise, and a text's last bits would depend on the
    cores that a worker was given."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def limited(own: int, asked: int, name: str) -> int:
    """The limit in tokens: the encoder's own, or the smaller one that the config asks for (0: none)."""
    if asked > own:
        raise ModelError(
            f"text.max_tokens = {asked} is beyond {name}, which takes {own} tokens",
            fix=f"--set text.max_tokens={own} or 0",
        )
    return asked or own
