"""Caption flags raise on the faults they name and stay silent on sound captions."""

import numpy as np
import pyarrow as pa
import pytest

from captioner.audit.text import diversity, quantile, text_statistics
from captioner.quality import FLAGS, caption_flags, words
from pipeline.toyworld.scene import sample_shot
from pipeline.toyworld.wording import caption_shot

SHORT = "A red ball rolls left."
DETAILED = "A small red ball rolls to the left over a green floor while the camera holds still."


@pytest.mark.parametrize(
    ("short", "detailed", "flags"),
    [
        (SHORT, DETAILED, []),
        ("", DETAILED, ["empty"]),
        (SHORT, " … ", ["empty"]),
        (SHORT, "A red ball.", ["too_short"]),
        ("Ball.", DETAILED, ["too_short"]),
        (DETAILED, DETAILED.upper() + ".", ["identical"]),
        (SHORT, DETAILED[:-1], ["truncated"]),
        (SHORT, f"He said: “{DETAILED}”", []),
        (SHORT, DETAILED.replace("red", "red red red"), ["repeated_word"]),
        (SHORT, "A dog on a mat and a cat on a mat and a hen on a mat and a cow.", ["repeated_ngram"]),
        (SHORT, f"{DETAILED} {DETAILED}", ["repeated_ngram"]),
        ("A photo of a red ball.", DETAILED, ["boilerplate_opener"]),
        (SHORT, f"The short video shows this: {DETAILED}", ["boilerplate_opener"]),
        (SHORT, f"In this clip, {DETAILED}", []),
        (SHORT, "I'm sorry, but I cannot describe what happens in this recording.", ["refusal"]),
        (SHORT, f"<short> {DETAILED}", ["markup"]),
        (SHORT, f"{DETAILED} **Red** is the ball.", ["markup"]),
        ("红色的球向左滚动", "一个红色的小球在绿色的地板上向左滚动，镜头保持不动。", []),
    ],
)
def test_flags(short: str, detailed: str, flags: list[str]) -> None:
    assert caption_flags(short, detailed) == flags


def test_every_named_flag_can_be_raised_and_no_other() -> None:
    raised = set(caption_flags("", "the the the")) | set(caption_flags("a photo of", "a photo of"))
    raised |= set(caption_flags("a <b>", "as an ai a b c d a b c d a b c d"))
    assert raised == set(FLAGS)


def test_true_captions_of_the_toy_world_raise_nothing() -> None:
    rng = np.random.default_rng(7)
    captions = [caption_shot(sample_shot(rng, is_image=i % 4 == 0), rng) for i in range(400)]
    flagged = [c for c in captions if caption_flags(c.short, c.detailed)]
    assert not flagged


def column(*texts: str) -> pa.ChunkedArray:
    return pa.chunked_array([list(texts)], pa.string())


def test_statistics_count_words_repeats_and_openers() -> None:
    texts = column("A dog runs.", "A dog runs.", "A cat's paw", "")
    statistics, varied = text_statistics(texts), diversity(texts, 100)
    assert (statistics.captions, statistics.words, statistics.lengths.tolist()) == (4, 9, [3, 3, 3, 0])
    assert statistics.repeated == (("A dog runs.", 2),)
    assert statistics.openers == (("a dog", 2), ("a cat's", 1))
    assert varied.distinct_1 == 5 / 9
    assert varied.distinct_2 == 4 / 6


def test_texts_repeated_as_often_stand_in_the_order_of_the_alphabet() -> None:
    texts = [letter for letter in "gfedcba" for _ in range(2)] + [" h ", "h", "h\n", "once"]
    found = text_statistics(column(*texts), top=3)
    assert found.repeated == (("h", 3), ("a", 2), ("b", 2))
    assert found.openers == (("h", 3), ("a", 2), ("b", 2))


def test_diversity_is_compared_over_the_words_asked_for() -> None:
    texts = column("a b c d", "a b c d", "a b c d")
    assert diversity(texts, 4).distinct_1 == 1.0
    assert diversity(texts, 8).distinct_1 == 0.5
    assert diversity(texts, 100).compared_words == 12


def test_statistics_of_nothing() -> None:
    statistics, varied = text_statistics(column()), diversity(column(), 100)
    assert (statistics.words, varied.distinct_1) == (0, 0.0)
    assert (statistics.repeated, statistics.openers) == ((), ())


def test_words_and_quantiles() -> None:
    assert words("A well-known dog’s bowl, 3_4") == ["a", "well-known", "dog’s", "bowl", "3", "4"]
    assert quantile([1, 2, 4], 0.5) == 2
    assert quantile([1, 2, 4], 0.75) == 3
    assert quantile([5], 0.95) == 5
