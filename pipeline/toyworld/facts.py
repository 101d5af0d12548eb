"""Reads the facts out of a toy-world caption and scores them against the truth.

In: caption text, from a template, a model or a person. Out: the set of `Fact`s it states, and precision,
recall, F1 and hallucination against a shot's true facts. Reading never fails: what is not understood states
nothing. Never looks at pixels and never guesses a fact that no phrase states.

How a caption is read. Text is cut into clauses (full stop, semicolon, "while"). In each clause the phrases
of `pipeline.toyworld.wording` are found and blanked out in a fixed order (overlay text, background, camera,
objects, motion, place), longest phrase first, so that no word is read twice. A size, motion or place
belongs to the nearest object before it in its clause, else to the first object after it, else (as in "It
spins.") to the last object of the clauses before. An object is named by its colour and shape: calling a red
star orange makes every fact about that star false, because no orange star is there.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pipeline.toyworld.scene import OBJECT_RGB, TEXT_WORDS, Fact
from pipeline.toyworld.wording import (
    BACKGROUND_NOUNS,
    CAMERA_PHRASES,
    COLOUR_WORDS,
    MOTION_FINITE,
    MOTION_PARTICIPLE,
    MOTION_PASSIVE,
    PLACE_PHRASES,
    SHAPE_WORDS,
    SIZE_WORDS,
    TEXTURE_ADJECTIVES,
    TEXTURE_TAILS,
    Phrases,
)


class _Lexicon:
    """Phrase tables turned into one pattern, longest phrase first, and a way back to values."""

    def __init__(self, *tables: Phrases) -> None:
        self.value_of = {
            phrase.lower(): value for table in tables for value, ways in table.items() for phrase in ways
        }
        longest_first = sorted(self.value_of, key=lambda phrase: (-len(phrase), phrase))
        self.alternatives = "(?:" + "|".join(re.escape(phrase) for phrase in longest_first) + ")"
        self.pattern = re.compile(rf"\b{self.alternatives}\b")


def _alternatives(words: Iterable[str]) -> str:
    return "(?:" + "|".join(words) + ")"


_COLOUR, _SHAPE, _SIZE = _Lexicon(COLOUR_WORDS), _Lexicon(SHAPE_WORDS), _Lexicon(SIZE_WORDS)
_TEXTURE = _Lexicon(TEXTURE_ADJECTIVES, TEXTURE_TAILS)
_CAMERA = _Lexicon(CAMERA_PHRASES)
_MOTION = _Lexicon(MOTION_FINITE, MOTION_PARTICIPLE, MOTION_PASSIVE)
_PLACE = _Lexicon(PLACE_PHRASES)
_TEXT = _Lexicon({word: (word.lower(),) for word in TEXT_WORDS})
_OBJECT = re.compile(
    rf"\b(?:(?P<size>{_SIZE.alternatives}) )?"
    rf"(?P<colour>{_COLOUR.alternatives}) (?P<shape>{_SHAPE.alternatives})\b"
)
_NOUN = _alternatives(BACKGROUND_NOUNS)
_QUALITY = rf"(?:{_TEXTURE.alternatives}|{_COLOUR.alternatives}(?! {_SHAPE.alternatives}\b))"
_BACKGROUND = re.compile(rf"\b(?:{_QUALITY} )*{_NOUN}(?: (?:(?:is|and) )?{_QUALITY})*\b")
_CLAUSE_END = re.compile(r"[.;!?]+|\bwhile\b")


def parse_facts(text: str) -> frozenset[Fact]:
    """Every fact that the caption states.

    >>> sorted(fact.value for fact in parse_facts("A small red star spins on a plain blue background."))
    ['blue', 'plain', 'red star', 'small', 'spinning']
    """
    words = " ".join(re.sub(r"[\"'“”‘’,:()]", " ", text.lower()).split())
    facts: set[Fact] = set()
    subject: str | None = None
    for clause in _CLAUSE_END.split(re.sub(r"\s+([.;!?])", r"\1", words)):
        of_clause, subject = _parse_clause(" ".join(clause.split()), subject)
        facts |= of_clause
    return frozenset(facts)


def _parse_clause(clause: str, subject: str | None) -> tuple[set[Fact], str | None]:
    """Facts of one clause, and the object that a following "it" means."""
    facts: set[Fact] = set()
    for match in _TEXT.pattern.finditer(clause):
        facts.add(Fact(kind="text", subject="overlay", value=_TEXT.value_of[match.group()]))
    clause = _blank(_TEXT.pattern, clause)
    for match in _BACKGROUND.finditer(clause):
        facts |= _background_facts(match.group())
    clause = _blank(_BACKGROUND, clause)
    for match in _CAMERA.pattern.finditer(clause):
        facts.add(Fact(kind="camera", subject="camera", value=_CAMERA.value_of[match.group()]))
    clause = _blank(_CAMERA.pattern, clause)
    mentions: list[tuple[int, str]] = []
    for match in _OBJECT.finditer(clause):
        colour, shape = _COLOUR.value_of[match["colour"]], _SHAPE.value_of[match["shape"]]
        if colour not in OBJECT_RGB:
            continue
        name = f"{colour} {shape}"
        mentions.append((match.start(), name))
        facts.add(Fact(kind="object", subject=name, value=name))
        if match["size"]:
            facts.add(Fact(kind="size", subject=name, value=_SIZE.value_of[match["size"]]))
    clause = _blank(_OBJECT, clause)
    for kind, lexicon in (("motion", _MOTION), ("place", _PLACE)):
        for match in lexicon.pattern.finditer(clause):
            owner = _owner(mentions, match.start(), subject)
            if owner is not None:
                facts.add(Fact(kind=kind, subject=owner, value=lexicon.value_of[match.group()]))
        clause = _blank(lexicon.pattern, clause)
    return facts, mentions[-1][1] if mentions else subject


def _background_facts(phrase: str) -> set[Fact]:
    """ "plain blue background" -> its colour and its texture"""
    colours = {_COLOUR.value_of[match.group()] for match in _COLOUR.pattern.finditer(phrase)}
    textures = {_TEXTURE.value_of[match.group()] for match in _TEXTURE.pattern.finditer(phrase)}
    return {Fact(kind="background", subject="colour", value=colour) for colour in colours} | {
        Fact(kind="background", subject="texture", value=texture) for texture in textures
    }


def _owner(mentions: list[tuple[int, str]], position: int, subject: str | None) -> str | None:
    before = [name for start, name in mentions if start < position]
    if before:
        return before[-1]
    return mentions[0][1] if mentions else subject


def _blank(pattern: re.Pattern[str], clause: str) -> str:
    """Replaces what was read by as many marks, so that positions stay and no new phrase forms."""
    return pattern.sub(lambda match: "#" * len(match.group()), clause)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactScore:
    """Counts of facts, over one caption or many; the rates follow from the counts (micro-averages)."""

    correct: int  # stated and true
    predicted: int  # stated
    actual: int  # true

    @property
    def precision(self) -> float:
        """Share of the stated facts that are true; 0 where nothing is stated."""
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        """Share of the true facts that are stated."""
        return self.correct / self.actual if self.actual else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.correct / (self.predicted + self.actual) if self.predicted + self.actual else 0.0

    @property
    def hallucination(self) -> float:
        """Share of the stated facts that are false; 0 where nothing is stated."""
        return (self.predicted - self.correct) / self.predicted if self.predicted else 0.0

    def __add__(self, other: "FactScore") -> "FactScore":
        return FactScore(
            correct=self.correct + other.correct,
            predicted=self.predicted + other.predicted,
            actual=self.actual + other.actual,
        )


def score(predicted: frozenset[Fact], truth: frozenset[Fact]) -> FactScore:
    """Scores one caption's facts."""
    return FactScore(correct=len(predicted & truth), predicted=len(predicted), actual=len(truth))


def score_all(pairs: Iterable[tuple[frozenset[Fact], frozenset[Fact]]]) -> FactScore:
    """Scores (predicted, truth) pairs together."""
    total = FactScore(correct=0, predicted=0, actual=0)
    for predicted, truth in pairs:
        total = total + score(predicted, truth)
    return total


def score_by_kind(pairs: Iterable[tuple[frozenset[Fact], frozenset[Fact]]]) -> dict[str, FactScore]:
    """The same for each kind of fact, to see what a captioner gets wrong."""
    totals: dict[str, FactScore] = {}
    for predicted, truth in pairs:
        for kind in sorted({fact.kind for fact in predicted | truth}):
            part = score(_of_kind(predicted, kind), _of_kind(truth, kind))
            totals[kind] = totals[kind] + part if kind in totals else part
    return totals


def _of_kind(facts: frozenset[Fact], kind: str) -> frozenset[Fact]:
    return frozenset(fact for fact in facts if fact.kind == kind)


def facts_from_rows(rows: Iterable[Mapping[str, str]]) -> frozenset[Fact]:
    """The `facts` of a shot in truth.jsonl."""
    return frozenset(Fact(kind=row["kind"], subject=row["subject"], value=row["value"]) for row in rows)
