"""Why items fail, by class: `access denied` for 50,000 files rather than 50,000 lines.

In: reasons as the tables hold them, which name the file, what was expected and what mends it. Out: the class
of each, and counts with a few whole texts a class. A class is a function of the text alone, so that corpora
of any age have them. Never in a class: a uri, a path, a quoted name or a number of the text.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

EXAMPLES = 3  # whole texts of a class, in JSON
MOST_CHARS = 80  # of the class of a reason that nobody foresaw

# How the reasons begin that are worded with a file, a size or a time; the first that fits counts. One that is
# worded without (`no video stream`) is its own class.
BEGINNINGS = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"its worker died", "its worker died"),
        (r"not tried", "not tried"),
        (r"no such file", "no such file"),
        (r"its file may not be read|cannot be read: Permission denied", "access denied"),
        (r"its file is no longer the one", "changed since its analysis"),
        (r"its file changed while", "changed while it was read"),
        (r"(decoding|TransNetV2) took longer than", "deadline"),
        (r"the decoder died", "killed its decoder"),
        (r"needs more than \S+ GB|out of memory", "not enough memory"),
        (r"\S* ?too many pixels", "refused: too many pixels"),
        (r"more than \d+ frames", "refused: too many frames"),
        (r"not a whole tar", "not a whole tar"),
        (r"cannot seek", "cannot seek"),
        (r"cannot decode|damaged|cut off inside|\d+ damaged|ends after|begins inside", "damaged"),
        (r"no frame (at|can)|no packets|no index|.* is not an image", "damaged"),
        (r"its part is not in", "its part is not there"),
        (r"\S+ gave no caption|the server's answer holds no caption", "the server gave no caption"),
        (r"\S+ answers HTTP 4", "the server refuses"),
        (r"no shot of the truth", "no shot of the truth"),
        (r"colours of the matrix|pictures of the format|a picture of", "refused: pixel format"),
    )
)
OF_A_CLIP = re.compile(r"clip \S+?:? (?=\S)")
# What a store says at the end of `cannot read PLACE: …`; the place may hold any of these words itself.
OF_A_PLACE = re.compile(
    r"cannot (?:read|write|list|look for|delete) .*: "
    r"(?:(?P<named>no such file|access denied|the credentials have expired|the store does not know these "
    r"credentials|this machine's clock is wrong)(?:[ ,(][^:/]*)?|(?P<attempts>\d+ attempts failed, .*))$"
)
OF_THE_SYSTEM = re.compile(r"\[[Ee]rrno \d+\] (?!Error )([A-Z][A-Za-z -]*)")
OF_AWS = re.compile(r"AWS Error ([A-Z_]+)")
ONE_WORD_FOR = {"permission denied": "access denied", "no such file or directory": "no such file"}

ADVICE = re.compile(r"; (?:expected|fix:?) .*", re.DOTALL)
QUOTED = re.compile(r"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"|`[^`]*`|«[^»]*»")
PLACE = re.compile(r"\S*[/\\].*", re.DOTALL)  # and all that follows: a name may hold spaces and colons
FILE_NAME = re.compile(r"\S+\.[A-Za-z]\w{1,4}\b(?!\.)")
VALUE = re.compile(r"\b[0-9a-f]{8,}\b|\d[\d.,×]*")


def reason_class(text: str) -> str:
    """The class of one reason: a few words, the same for every file that failed alike."""
    what = ADVICE.sub("", OF_A_CLIP.sub("", text, count=1))
    for pattern, name in BEGINNINGS:
        if pattern.match(what):
            return name
    if said := OF_A_PLACE.match(what):
        return said["named"] or "the store does not answer"
    if aws := OF_AWS.search(text):
        return f"the store says {aws[1]}"
    if errors := OF_THE_SYSTEM.findall(text):
        word = errors[-1].strip().lower()
        return ONE_WORD_FOR.get(word, word)
    return _without_names(what)


def _without_names(text: str) -> str:
    """A text nobody foresaw, with `…` for what may name an item and `N` for numbers."""
    for pattern, stand_in in ((QUOTED, "…"), (PLACE, "…"), (FILE_NAME, "…"), (VALUE, "N")):
        text = pattern.sub(stand_in, text)
    words = re.sub(r"…(?:[\s,;]*…)+", "…", " ".join(text.split())).rstrip(" :;,.")
    return words[:MOST_CHARS] or "no reason given"


def by_class(reasons: Mapping[str, int]) -> dict[str, Any]:
    """`reasons`: class → count, the most frequent first; `examples`: class → its first few texts that say
    more than their class, where there are any. In: text → count."""
    counts: Counter[str] = Counter()
    examples: dict[str, list[str]] = {}
    for text, count in sorted(reasons.items()):
        name = reason_class(text)
        counts[name] += count
        of_class = examples.setdefault(name, [])
        if text != name and len(of_class) < EXAMPLES:
            of_class.append(text)
    ordered = dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
    return {"reasons": ordered, "examples": {name: examples[name] for name in ordered if examples[name]}}


def of_column(reasons: pa.ChunkedArray | pa.Array) -> dict[str, Any]:
    """`by_class` of a column of texts, nulls left out."""
    counted = pc.value_counts(reasons.drop_null())
    return by_class(dict(zip(*(counted.field(name).to_pylist() for name in (0, 1)), strict=True)))


def failures_of(reasons: Iterable[str | None]) -> dict[str, int]:
    """class → count of a task's failed rows."""
    return dict(Counter(reason_class(reason or "") for reason in reasons))
