"""The text tower of this repository's captioner as a text encoder. It knows the toy world's words."""

from collections.abc import Sequence

import numpy as np

from captioner.caption import BUILTIN_DIR, MADE_BY
from pipeline.bundle import read_description
from pipeline.config import TextConfig
from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from pipeline.settings import fingerprint
from tokenizer_stage.text.encoder import TextDescription, TextFeatures, one_thread

NAME = "builtin:"


def describe_builtin(config: TextConfig) -> TextDescription:
    """Read from the captioner's description, without its weights."""
    saved = read_description(BUILTIN_DIR, MADE_BY)
    sizes = saved["model"]
    limit = int(sizes["context_length"])
    if config.max_tokens not in (0, limit):
        raise ModelError(f"text.max_tokens = {config.max_tokens}", expected=f"{limit} or 0 for {NAME}")
    return TextDescription(
        name=NAME,
        family="builtin",
        width=int(sizes["width"]),
        limit=limit,
        template=config.template,
        identity=fingerprint(saved["text_sha256"], limit, config.template),
        resources=Resources(cpus=1, memory_gb=2),
    )


class BuiltinTextEncoder:
    """Always on the CPU."""

    def __init__(self, config: TextConfig) -> None:
        from captioner.model import load_builtin

        self.description = describe_builtin(config)
        self._model = load_builtin()

    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        with one_thread():
            return [self._encode(self.description.template.format(text)) for text in texts]

    def _encode(self, text: str) -> TextFeatures:
        (features,) = self._model.encode_text_tokens([text])  # alone: no other text, no padding
        cut_tokens = self._model.tokenizer.length(text) - len(features)
        return TextFeatures(tokens=features.numpy().astype(np.float16), cut_tokens=cut_tokens)
