"""Text encoders of transformers.

In: texts. Out: the last hidden state of each, exactly as long as the text, in float16. A CPU encodes each
text alone; a GPU encodes texts of one length together, without padding. Reads safetensors only.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.config import TextConfig
from pipeline.errors import MediaError, ModelError
from tokenizer_stage.text.encoder import TextFeatures, one_thread
from tokenizer_stage.text.repository import Repository

BATCH = 32  # texts of one length at once on a GPU


class PretrainedTextEncoder:
    """The encoder in a repository, on the GPU that this worker sees, else on the CPU."""

    def __init__(self, name: str, argument: str, config: TextConfig) -> None:
        try:
            import transformers
        except ImportError as error:
            raise ModelError(f"{name} needs transformers", fix="pip install 'framemill[hf]'") from error
        repository = Repository.at(argument)
        self.description = repository.describe(name, config)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(repository.tokenizer)
            model_class = getattr(transformers, repository.family.model_class)
            model = model_class.from_pretrained(
                repository.model, use_safetensors=True, dtype=getattr(torch, config.dtype)
            )
        except (OSError, ValueError, ImportError) as error:
            raise ModelError(f"cannot load {name}: {' '.join(str(error).split())[:300]}") from error
        self._model = model.eval().requires_grad_(False).to(self._device)

    def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
        ids = [self._ids(self.description.template.format(text)) for text in texts]
        features: list[Tensor | None] = [None] * len(ids)
        for numbers in self._batches([len(row) for row, _ in ids]):
            rows = torch.tensor([ids[number][0] for number in numbers], device=self._device)  # [B, L]
            with one_thread():
                answers = self._features(rows)  # [B, L, D]
            for number, one in zip(numbers, answers, strict=True):
                features[number] = one
        return [
            TextFeatures(tokens=_stored(one), cut_tokens=cut)
            for one, (_, cut) in zip(features, ids, strict=True)
        ]

    def _ids(self, text: str) -> tuple[list[int], int]:
        """Ids with the tokenizer's specials, and how many tokens lay beyond the limit."""
        whole: list[int] = self._tokenizer(text)["input_ids"]
        limit = self.description.limit
        if len(whole) <= limit:
            return whole, 0
        return self._tokenizer(text, truncation=True, max_length=limit)["input_ids"], len(whole) - limit

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Which texts go together: a row's bits may depend on the size of its batch, so on a CPU none."""
        if self._device.type == "cpu":
            return [[number] for number in range(len(lengths))]
        of_length: dict[int, list[int]] = {}
        for number, length in enumerate(lengths):
            of_length.setdefault(length, []).append(number)
        return [rows[at : at + BATCH] for rows in of_length.values() for at in range(0, len(rows), BATCH)]

    @torch.inference_mode()
    def _features(self, ids: Tensor) -> Tensor:
        """Ids [B, L] → the last hidden state [B, L, D]."""
        answer: Any = self._model(input_ids=ids, attention_mask=torch.ones_like(ids))
        hidden: Tensor = answer.last_hidden_state
        return hidden


def _stored(features: Tensor | None) -> np.ndarray:
    assert features is not None
    stored = features.to("cpu", torch.float32).numpy().astype(np.float16)
    if not np.isfinite(stored).all():
        raise MediaError(
            "its text features are not finite in float16",
            fix="--set text.dtype=float32, or report the encoder",
        )
    return stored
