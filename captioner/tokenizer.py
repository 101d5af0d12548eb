"""Caption text ↔ token ids.

In: caption strings. Out: int64 ids [B, L], padded with 0, each row `<style> words … <end>`. A byte-level
BPE trained on toy-world captions: any text has ids, words of the toy world mostly have one each. Case is
kept. The same training texts give the same file. Never truncates silently past the context without
keeping `<end>`.
"""

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from pipeline.errors import ModelError

STYLES = ("any", "short", "detailed", "tags")  # what the first token asks for; "any" is also plain text
SPECIALS = ("<pad>", "<end>", *(f"<{style}>" for style in STYLES))
PAD_ID, END_ID = 0, 1


class CaptionTokenizer:
    """A `tokenizers` BPE with a style token in front and `<end>` behind."""

    def __init__(self, definition: str, context_length: int) -> None:
        try:
            self._bpe = Tokenizer.from_str(definition)
        except Exception as error:  # the library raises plain Exception only
            raise ModelError(f"not a tokenizer definition: {error}", expected="a tokenizers JSON") from error
        self._bpe.encode_special_tokens = True  # "<end>" in a caption is five characters, not the end
        self.definition = definition
        self.context_length = context_length
        self.vocab_size = self._bpe.get_vocab_size()
        self._style_ids = {style: SPECIALS.index(f"<{style}>") for style in STYLES}

    def encode(self, text: str, style: str = "any") -> list[int]:
        """`<style> words … <end>`, at most the context; words past it are cut, `<end>` stays."""
        words = self._bpe.encode(text.strip(), add_special_tokens=False).ids
        return [self._style_ids[style], *words[: self.context_length - 2], END_ID]

    def length(self, text: str) -> int:
        """Tokens of the whole text with its style and `<end>`, however long."""
        return len(self._bpe.encode(text.strip(), add_special_tokens=False).ids) + 2

    def encode_batch(self, texts: Sequence[str], style: str = "any") -> torch.Tensor:
        """Ids int64 [B, L], padded to the longest."""
        rows = [torch.tensor(self.encode(text, style)) for text in texts]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)  # [B, L]

    def style_id(self, style: str) -> int:
        return self._style_ids[style]

    def decode(self, ids: Iterable[int]) -> str:
        """The words up to `<end>`, without special tokens."""
        words: list[int] = []
        for token in ids:
            if token == END_ID:
                break
            if token >= len(SPECIALS):
                words.append(int(token))
        return str(self._bpe.decode(words)).strip()


def train_tokenizer(texts: Iterable[str], vocab_size: int, context_length: int) -> CaptionTokenizer:
    """Learns the merges; special tokens take the first ids, in the order of SPECIALS."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return CaptionTokenizer(bpe.to_str(), context_length)
