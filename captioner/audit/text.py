"""Statistics of many captions: lengths, diversity, openings.

In: texts. Out: numbers.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from captioner.quality import ngrams, words


@dataclass(frozen=True, slots=True, kw_only=True)
class TextStatistics:
    """Of a set of captions. `distinct_n` is the share of n-grams that differ among the first
    `compared_words` words: it falls with length, so compare it at equal `compared_words` only."""

    captions: int
    words: int
    lengths: tuple[int, ...]  # words a caption, in the order given
    distinct_1: float
    distinct_2: float
    compared_words: int
    repeated: tuple[tuple[str, int], ...]  # texts that stand more than once, the commonest first
    openers: tuple[tuple[str, int], ...]  # first two words, the commonest first


def text_statistics(
    texts: Sequence[str], *, compare_words: int | None = None, top: int = 5
) -> TextStatistics:
    """Figures of these captions; diversity over their first `compare_words` words (all when None)."""
    split = [words(text) for text in texts]
    lengths = tuple(len(s) for s in split)
    total = sum(lengths)
    compared = total if compare_words is None else min(total, compare_words)
    return TextStatistics(
        captions=len(texts),
        words=total,
        lengths=lengths,
        distinct_1=_distinct(split, 1, compared),
        distinct_2=_distinct(split, 2, compared),
        compared_words=compared,
        repeated=_top((t.strip() for t in texts if t.strip()), top, at_least=2),
        openers=_top((" ".join(s[:2]) for s in split if s), top, at_least=1),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation in sorted, non-empty values: ([1, 2, 4], 0.5) -> 2."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _distinct(split: Sequence[Sequence[str]], n: int, budget: int) -> float:
    """Different n-grams (none across captions) over all of them, within the first `budget` words."""
    distinct: set[tuple[str, ...]] = set()
    count = 0
    for caption in split:
        taken = caption[:budget]
        budget -= len(taken)
        grams = ngrams(taken, n)
        distinct.update(grams)
        count += len(grams)
    return len(distinct) / count if count else 0.0


def _top(items: Iterable[str], top: int, *, at_least: int) -> tuple[tuple[str, int], ...]:
    counts = Counter(items)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((text, count) for text, count in ordered[:top] if count >= at_least)
