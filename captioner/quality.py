"""Pure text checks and text statistics of captions.

In: caption texts. Out: flags for one caption, figures for many. Never looks at a picture, never changes
or drops a caption: a flag is a remark for `captions.flags`, what it means is the reader's decision.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

MIN_SHORT_WORDS = 2
MIN_DETAILED_WORDS = 8  # human long captions: 5th percentile 21 words, of video (DREAM-1K)
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？")
_CLOSERS = "\"'”’)]）」"

_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"  # written without spaces: a character counts as a word
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+(?:['’-][^\W_{_CJK}]+)*")
_MEDIUM = r"(?:image|picture|photo|photograph|video|clip|footage|scene|screenshot)"
_OPENER = re.compile(
    rf"(?:an?|the|this)\s+(?:\w+\s+)?{_MEDIUM}\s+(?:of|shows|showing|depicts|depicting|features|featuring"
    rf"|captures|contains|displays|begins|opens)\b"
    rf"|in\s+(?:the|this)\s+(?:\w+\s+)?{_MEDIUM},?\s+(?:we|you|i|one)\b",
    re.I,
)
_REFUSAL = re.compile(r"\b(?:i['’]m sorry|i am sorry|as an ai|i (?:can ?not|can['’]t|am unable))\b", re.I)
_MARKUP = re.compile(r"<[^>\s][^>]*>|```|\*\*|^#+ |https?://|\ufffd", re.MULTILINE)

FLAGS: dict[str, str] = {  # every flag that `caption_flags` can give, and what it says
    "empty": "one of the two captions has no words",
    "too_short": f"short under {MIN_SHORT_WORDS} words, or detailed under {MIN_DETAILED_WORDS}",
    "identical": "short and detailed are the same text",
    "truncated": "the detailed caption does not end a sentence",
    "repeated_word": "a word stands three times in a row",
    "repeated_ngram": "four words in a row stand three times, or eight twice",
    "boilerplate_opener": "begins like “the image shows …”",
    "refusal": "the captioner talks about itself",
    "markup": "tags, Markdown, an address or broken characters",
}


def words(text: str) -> list[str]:
    """Lower-case words: "A dog's bowl." -> ["a", "dog's", "bowl"]."""
    return [match.group().lower() for match in _WORD.finditer(text)]


def caption_flags(short: str, detailed: str) -> list[str]:
    """The flags of one clip's captions, in the order of FLAGS; none for a sound caption."""
    brief, full = words(short), words(detailed)
    raised = {
        "empty": not brief or not full,
        "too_short": 0 < len(brief) < MIN_SHORT_WORDS or 0 < len(full) < MIN_DETAILED_WORDS,
        "identical": bool(full) and brief == full,
        "truncated": bool(full) and not detailed.rstrip().rstrip(_CLOSERS).endswith(_SENTENCE_ENDS),
        "repeated_word": _runs_three(brief) or _runs_three(full),
        "repeated_ngram": any(_most_common(t, 4) >= 3 or _most_common(t, 8) >= 2 for t in (brief, full)),
        "boilerplate_opener": any(_OPENER.match(text.lstrip()) is not None for text in (short, detailed)),
        "refusal": any(_REFUSAL.search(text) is not None for text in (short, detailed)),
        "markup": any(_MARKUP.search(text) is not None for text in (short, detailed)),
    }
    return [flag for flag in FLAGS if raised[flag]]


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
    seen: set[tuple[str, ...]] = set()
    count = 0
    for caption in split:
        taken = caption[:budget]
        budget -= len(taken)
        grams = _ngrams(taken, n)
        seen.update(grams)
        count += len(grams)
    return len(seen) / count if count else 0.0


def _ngrams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def _most_common(text: Sequence[str], n: int) -> int:
    return max(Counter(_ngrams(text, n)).values(), default=0)


def _runs_three(text: Sequence[str]) -> bool:
    same = [a == b for a, b in pairwise(text)]
    return any(a and b for a, b in pairwise(same))


def _top(items: Iterable[str], top: int, *, at_least: int) -> tuple[tuple[str, int], ...]:
    counts = Counter(items)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple((text, count) for text, count in ordered[:top] if count >= at_least)
