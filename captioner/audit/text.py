"""Statistics of many captions: lengths, diversity, openings.

In: texts, as a column. Out: numbers. No text is a Python value for longer than it is looked at.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.quality import ngrams, words

READ_AT_ONCE = 10_000  # texts


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStatistics:
    """Of a set of captions."""

    captions: int
    words: int
    lengths: np.ndarray  # int64 [N], words a caption, in the order given
    repeated: tuple[tuple[str, int], ...]  # texts that stand more than once, the commonest first
    openers: tuple[tuple[str, int], ...]  # first two words, the commonest first


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """The share of n-grams that differ among the first `compared_words` words: it falls with length, so
    compare it at equal `compared_words` only."""

    distinct_1: float
    distinct_2: float
    compared_words: int


def text_statistics(texts: pa.ChunkedArray, *, top: int = 5) -> TextStatistics:
    """Figures of these captions (string [N], no nulls)."""
    lengths, openers = np.zeros(len(texts), np.int64), Counter[str]()
    for number, text in enumerate(_each(texts)):
        split = words(text)
        lengths[number] = len(split)
        if split:
            openers[" ".join(split[:2])] += 1
    return TextStatistics(
        captions=len(texts),
        words=int(lengths.sum()),
        lengths=lengths,
        repeated=_repeated(texts, top),
        openers=tuple(sorted(openers.items(), key=lambda item: (-item[1], item[0]))[:top]),
    )


def diversity(texts: pa.ChunkedArray, compare_words: int) -> Diversity:
    """How varied the first `compare_words` words are, all where there are fewer."""
    split: list[list[str]] = []
    left = compare_words
    for text in _each(texts):
        if left <= 0:
            break
        split.append(words(text)[:left])
        left -= len(split[-1])
    return Diversity(
        distinct_1=_distinct(split, 1), distinct_2=_distinct(split, 2), compared_words=compare_words - left
    )


def _each(texts: pa.ChunkedArray) -> Iterable[str]:
    """The texts, few of them Python values at a time."""
    for start in range(0, len(texts), READ_AT_ONCE):
        yield from texts.slice(start, READ_AT_ONCE).to_pylist()


def quantile(ordered: Sequence[float] | np.ndarray, share: float) -> float:
    """Linear interpolation in sorted, non-empty values: ([1, 2, 4], 0.5) -> 2."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def _distinct(split: Sequence[Sequence[str]], n: int) -> float:
    """Different n-grams (none across captions) over all of them."""
    grams = [gram for text in split for gram in ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else 0.0


def _repeated(texts: pa.ChunkedArray, top: int) -> tuple[tuple[str, int], ...]:
    counted = pc.value_counts(pc.utf8_trim_whitespace(texts))
    rows = pa.table({"text": counted.field(0), "count": counted.field(1)})
    rows = rows.filter(pc.and_(pc.greater(rows["count"], 1), pc.not_equal(rows["text"], "")))
    first = rows.sort_by([("count", "descending"), ("text", "ascending")]).slice(0, top).to_pylist()
    return tuple((row["text"], row["count"]) for row in first)
