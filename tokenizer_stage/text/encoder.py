"""Text encoders of generative models: what one is, and which there are.

    builtin:             the text tower of this repository's captioner
    hf:REPO              a transformers encoder or decoder: T5, mT5, UMT5, T5Gemma, CLIP, Gemma, Llama, Qwen;
                         a diffusers repository or folder is entered at text_encoder/
    hf:REPO#SUBFOLDER    another one of its encoders, such as text_encoder_2

In: a name. Out: a description, read without torch, or the encoder with its weights. Never downloads anything
that was not named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pipeline.bundle import parse_name
from pipeline.config import TextConfig
from pipeline.engine.stage import Resources
from pipeline.errors import ModelError

FORMS = ("builtin:", "hf:REPO")
PLACE = "{}"  # in a template: where the caption stands


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
        they are the same bits on one CPU.

        Raises:
            MediaError: the features of a text are not finite in float16.
        """


def describe_text_encoder(name: str, config: TextConfig) -> TextDescription:
    """The description of the encoder of that name, with the limit and template of the config.

    Raises:
        ModelError: there is none, or it cannot do what the config asks.
    """
    if config.template.count(PLACE) != 1:
        raise ModelError(
            f"text.template {config.template!r}", expected=f"one {PLACE}, where the caption stands"
        )
    scheme, argument = parse_name(name, "text encoder", FORMS)
    if scheme == "builtin":
        from tokenizer_stage.text.builtin import describe_builtin

        return describe_builtin(config)
    from tokenizer_stage.text.repository import Repository

    return Repository.at(argument).describe(name, config)


def load_text_encoder(name: str, config: TextConfig) -> TextEncoder:
    """The encoder of that name, on the device that this worker was given."""
    scheme, argument = parse_name(name, "text encoder", FORMS)
    if scheme == "builtin":
        from tokenizer_stage.text.builtin import BuiltinTextEncoder

        return BuiltinTextEncoder(config)
    from tokenizer_stage.text.pretrained import PretrainedTextEncoder

    return PretrainedTextEncoder(name, argument, config)


def limited(own: int, asked: int, name: str) -> int:
    """The limit in tokens: the encoder's own, or the smaller one that the config asks for (0: none)."""
    if asked > own:
        raise ModelError(
            f"text.max_tokens = {asked} is beyond {name}, which takes {own} tokens",
            fix=f"--set text.max_tokens={own} or 0",
        )
    return asked or own
