"""Captions read back into exactly the facts they state; scores follow from counts."""

import numpy as np
import pytest

from pipeline.toyworld.facts import FactScore, parse_facts, score, score_all, score_by_kind
from pipeline.toyworld.scene import CAMERAS, MOTIONS, Fact, Shot, sample_shot
from pipeline.toyworld.wording import (
    DETAILED_WORDS,
    IMAGE_WORDS,
    MOTION_FINITE,
    MOTION_PARTICIPLE,
    SHORT_WORDS,
    caption_shot,
)


def shots(count: int, seed: int = 0) -> list[tuple[Shot, np.random.Generator]]:
    rng = np.random.default_rng(seed)
    return [
        (
            sample_shot(
                rng, static=i % 9 == 0, with_text=i % 5 == 0, blurred=i % 11 == 0, is_image=i % 7 == 0
            ),
            rng,
        )
        for i in range(count)
    ]


def values(text: str, kind: str) -> set[tuple[str, str]]:
    return {(fact.subject, fact.value) for fact in parse_facts(text) if fact.kind == kind}


def test_a_detailed_caption_states_every_fact_and_no_other() -> None:
    for shot, rng in shots(1000):
        text = caption_shot(shot, rng).detailed
        assert parse_facts(text) == shot.facts, text


def test_a_short_caption_is_true_and_names_its_subject() -> None:
    for shot, rng in shots(1000, seed=1):
        text = caption_shot(shot, rng).short
        stated = parse_facts(text)
        assert stated <= shot.facts, text
        assert Fact(kind="object", subject=shot.objects[0].name, value=shot.objects[0].name) in stated, text


def test_captions_keep_to_their_lengths() -> None:
    for shot, rng in shots(500, seed=2):
        caption = caption_shot(shot, rng)
        low, high = IMAGE_WORDS if shot.is_image else DETAILED_WORDS
        assert SHORT_WORDS[0] <= len(caption.short.split()) <= SHORT_WORDS[1], caption.short
        assert low <= len(caption.detailed.split()) <= high, caption.detailed


def test_one_shot_is_worded_in_many_ways() -> None:
    rng = np.random.default_rng(3)
    shot = sample_shot(rng)
    captions = [caption_shot(shot, rng) for _ in range(60)]
    assert len({c.detailed for c in captions}) > 50
    assert len({c.short for c in captions}) > 20


def test_a_lower_case_caption_with_loose_punctuation_reads_the_same() -> None:
    for shot, rng in shots(200, seed=4):
        text = caption_shot(shot, rng).detailed
        for mark in ('"', ".", ","):
            text = text.replace(mark, f" {mark} ")
        assert parse_facts(text.lower()) == shot.facts, text


def test_no_phrase_means_two_values() -> None:
    for motion in MOTIONS:
        for verb in (*MOTION_FINITE[motion], *MOTION_PARTICIPLE[motion]):
            assert values(f"A red star {verb}.", "motion") == {("red star", motion)}, verb
    assert len(CAMERAS) == 7


@pytest.mark.parametrize(
    ("text", "kind", "stated"),
    [
        ("On the left, a small red star spins.", "place", {("red star", "left")}),
        ("There is a big blue box at the top. It shrinks.", "motion", {("blue square", "shrinking")}),
        (
            "A red ring rises while on the right a white disc grows.",
            "motion",
            {("red ring", "moving up"), ("white circle", "growing")},
        ),
        ("A red ring rises while on the right a white disc grows.", "place", {("white circle", "right")}),
        (
            "The frame is crossed from left to right by an orange hoop.",
            "motion",
            {("orange ring", "moving right")},
        ),
        ("The camera holds still.", "motion", set()),
        ("The camera pans to the left past a red box.", "camera", {("camera", "pan left")}),
        ("The backdrop is blue and striped.", "background", {("colour", "blue"), ("texture", "striped")}),
        (
            "A red ring rises and a white disc sinks.",
            "motion",
            {("red ring", "moving up"), ("white circle", "moving down")},
        ),
        ("A grey background and red star.", "background", {("colour", "grey")}),
        ("A backdrop with a red star on it.", "background", set()),
        ("A dog runs across a field at dusk.", "object", set()),
    ],
)
def test_reading(text: str, kind: str, stated: set[tuple[str, str]]) -> None:
    assert values(text, kind) == stated


def test_reading_never_fails() -> None:
    for text in ("", "...", "#### \n\t", "red", "it spins", "the " * 500):
        assert isinstance(parse_facts(text), frozenset)
    assert parse_facts("it spins") == frozenset()


def test_a_wrong_word_costs_precision_and_a_missing_one_recall() -> None:
    truth = parse_facts("A small red star spins on a plain blue background.")
    assert score(truth, truth) == FactScore(correct=5, predicted=5, actual=5)
    wrong = score(parse_facts("A small red star grows on a plain blue background."), truth)
    assert (wrong.precision, wrong.recall, wrong.hallucination) == (0.8, 0.8, pytest.approx(0.2))
    partial = score(parse_facts("A red star spins."), truth)
    assert (partial.precision, partial.recall, partial.hallucination) == (1.0, 0.4, 0.0)
    silent = score(frozenset(), truth)
    assert (silent.precision, silent.recall, silent.f1, silent.hallucination) == (0, 0, 0, 0)


def test_a_wrong_colour_makes_every_fact_of_that_object_false() -> None:
    truth = parse_facts("A small red star spins.")
    assert score(parse_facts("A small orange star spins."), truth).correct == 0


def test_totals_are_micro_averages() -> None:
    truth = parse_facts("A small red star spins on a plain blue background.")
    pairs = [(truth, truth), (parse_facts("A red star grows."), truth)]
    total = score_all(pairs)
    assert total == FactScore(correct=6, predicted=7, actual=10)
    by_kind = score_by_kind(pairs)
    assert by_kind["motion"] == FactScore(correct=1, predicted=2, actual=2)
    assert sum(by_kind.values(), FactScore(correct=0, predicted=0, actual=0)) == total


def test_prompts_state_their_facts_and_repeat_with_the_seed() -> None:
    drawn, again, others = (
        [(caption_shot(shot, rng).detailed, shot.facts) for shot, rng in shots(40, seed)]
        for seed in (7, 7, 8)
    )
    assert drawn == again != others
    assert all(parse_facts(prompt) == facts for prompt, facts in drawn)
