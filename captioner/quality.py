"""Pure text checks and text statistics of captions.

In: caption texts. Out: flags for one caption, figures for many. Never looks at a picture, never changes
or drops a caption: a flag is a remark for `captions.flags`, what it means is the reader's decision.
"""

import re
from collections import Counter
from collections.abc import Sequence
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
    return [word.lower() for word in _WORD.findall(text)]


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


def ngrams(text: Sequence[str], n: int) -> list[tuple[str, ...]]:
    """Every run of n words: (["a", "b", "c"], 2) -> [("a", "b"), ("b", "c")]."""
    return list(zip(*(text[i:] for i in range(n)), strict=False))


def _most_common(text: Sequence[str], n: int) -> int:
    return max(Counter(ngrams(text, n)).values(), default=0)


def _runs_three(text: Sequence[str]) -> bool:
    same = [a == b for a, b in pairwise(text)]
    return any(a and b for a, b in pairwise(same))
