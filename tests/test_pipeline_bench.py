"""Scoring boundaries against truth: each rule of the docstring once."""

from pipeline.bench import Found, Score, Truth

TRUTH = Truth(file="x", hard=(50, 100), gradual=((150, 160),), ignored=(200,))


def figures(*found: Found) -> dict[str, float]:
    score = Score()
    score.add(found, TRUTH)
    return score.figures()


def cut(frame: int) -> Found:
    return (frame, frame, "cut")


def test_all_found() -> None:
    got = figures(cut(51), cut(100), (151, 161, "dissolve"), cut(201))
    assert got == {
        "hard_f1": 1.0,
        "hard_precision": 1.0,
        "hard_recall": 1.0,
        "gradual_recall": 1.0,
        "gradual_false": 0,
    }


def test_a_cut_two_frames_off_is_a_miss_and_a_false_alarm() -> None:
    got = figures(cut(52), cut(100))
    assert (got["hard_precision"], got["hard_recall"], got["gradual_recall"]) == (0.5, 0.5, 0.0)


def test_a_cut_inside_a_gradual_finds_it_and_one_cut_counts_once() -> None:
    got = figures(cut(50), cut(51), cut(158))
    assert got["gradual_recall"] == 1.0
    assert (got["hard_precision"], got["hard_recall"]) == (0.5, 0.5)


def test_a_false_dissolve_is_counted() -> None:
    assert figures((20, 30, "dissolve"))["gradual_false"] == 1
