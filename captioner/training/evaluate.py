"""Scores captions against known facts.

In: a captioner and a toy-world folder (or any examples whose facts are known). Out: micro-averaged
precision, recall, F1 and hallucination of the facts that its detailed captions state, the precision of its
short ones, and all of it by kind of fact. Never judges style, and says nothing about real footage.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from captioner.filmstrip import Filmstrip
from captioner.names import load_captioner
from captioner.training.examples import Example, folder_examples
from pipeline.engine.stage import Failure
from pipeline.progress import Progress, silent
from pipeline.toyworld.facts import parse_facts, score_all, score_by_kind

BATCH = 16
Words = Callable[[Sequence[Filmstrip]], Sequence[tuple[str, str]]]  # strips → (short, detailed) each


def evaluate(
    captioner: str, toyworld: str | Path, progress: Progress = silent, limit: int | None = None
) -> dict[str, Any]:
    """Captions every shot (or the first `limit`) of a rendered toy world from its files and scores them."""
    model = load_captioner(captioner)

    def words(strips: Sequence[Filmstrip]) -> list[tuple[str, str]]:
        answers = model.caption(strips)
        return [("", "") if isinstance(a, Failure) else (a.short, a.detailed) for a in answers]

    examples = list(folder_examples(Path(toyworld), limit))
    return {"captioner": captioner, **evaluate_examples(words, examples, progress)}


def evaluate_examples(
    words: Words, examples: Sequence[Example], progress: Progress = silent
) -> dict[str, Any]:
    """The figures of one captioner over examples with known facts."""
    captions: list[tuple[str, str]] = []
    for start in range(0, len(examples), BATCH):
        captions += words([example.strip for example in examples[start : start + BATCH]])
        progress(len(captions), len(examples), {})
    detailed = [
        (parse_facts(text), example.facts) for (_, text), example in zip(captions, examples, strict=True)
    ]
    short = [
        (parse_facts(text), example.facts) for (text, _), example in zip(captions, examples, strict=True)
    ]
    total = score_all(detailed)
    return {
        "fact_precision": round(total.precision, 4),
        "fact_recall": round(total.recall, 4),
        "fact_f1": round(total.f1, 4),
        "hallucination": round(total.hallucination, 4),
        "short_precision": round(score_all(short).precision, 4),
        "n": len(examples),
        "by_kind": {
            kind: {
                "precision": round(part.precision, 4),
                "recall": round(part.recall, 4),
                "f1": round(part.f1, 4),
                "n": part.actual,
            }
            for kind, part in sorted(score_by_kind(detailed).items())
        },
    }
