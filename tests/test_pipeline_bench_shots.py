"""Scoring boundaries against truth: each rule of the docstring once."""

import importlib.util

import pytest

from pipeline.bench.shots import Detection, Score, Truth, _attempt

TRUTH = Truth(file="x", hard=(50, 100), gradual=((150, 160),), ignored=(200,))


def figures(*detections: Detection) -> dict[str, float]:
    score = Score()
    score.add(detections, TRUTH)
    return score.figures()


def cut(frame: int) -> Detection:
    return (frame, frame, "cut")


def test_all_found() -> None:
    got = figures(cut(51), cut(100), (151, 161, "dissolve"), cut(201))
    assert got == {
        "hard_f1": 1.0,
        "hard_precision": 1.0,
        "hard_recall": 1.0,
        "gradual_f1": 1.0,
        "gradual_precision": 1.0,
        "gradual_recall": 1.0,
        "gradual_typed": 1.0,
        "gradual_false": 0,
    }


def test_a_cut_two_frames_off_is_a_miss_and_a_false_alarm() -> None:
    got = figures(cut(52), cut(100))
    assert (got["hard_precision"], got["hard_recall"], got["gradual_recall"]) == (0.5, 0.5, 0.0)


def test_a_cut_inside_a_gradual_finds_it_and_one_cut_counts_once() -> None:
    got = figures(cut(50), cut(51), cut(158))
    assert (got["gradual_recall"], got["gradual_typed"]) == (1.0, 0.0)
    assert (got["hard_precision"], got["hard_recall"]) == (0.5, 0.5)


def test_a_false_dissolve_is_counted() -> None:
    got = figures((20, 30, "dissolve"), (152, 158, "dissolve"))
    assert (got["gradual_false"], got["gradual_precision"], got["gradual_recall"]) == (1, 0.5, 1.0)


def test_a_detector_that_is_not_installed_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    skipped = _attempt("transnetv2", [TRUTH], lambda file: [cut(50)])
    assert "framemill[transnetv2]" in skipped["skipped"]
