"""Boundaries: exact on synthetic edits, and on real ones as good as when the thresholds were set."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, ShotConfig
from pipeline.sandbox.sandbox import Sandbox
from pipeline.shots import cuts, gradual
from pipeline.shots.boundaries import Boundary, find_boundaries, split
from pipeline.shots.descriptor import DIMENSIONS, LUMA_SIZE, descriptors, looks, steps
from pipeline.shots.logistic import probability
from pipeline.shots.weights import MODELS

FPS = 25.0


def shot(seed: int, count: int) -> np.ndarray:
    """float [count, DIMENSIONS]: a random picture that drifts a little."""
    rng = np.random.default_rng(seed)
    picture, drift = rng.uniform(30, 220, DIMENSIONS), rng.normal(0, 0.1, DIMENSIONS)
    return np.clip(picture + drift * np.arange(count)[:, None], 0, 255)


def video(*parts: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(np.concatenate(parts), 0, 255)).astype(np.uint8)


def blend(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    share = np.linspace(0, 1, count + 2)[1:-1, None]
    return (1 - share) * a[-1] + share * b[0]


def smooth(seed: int) -> np.ndarray:
    """float [DIMENSIONS]: a picture of large patches."""
    rng = np.random.default_rng(seed)
    planes = [np.kron(rng.uniform(30, 220, (4, 4)), np.ones((n // 4, n // 4))).ravel() for n in (16, 8, 8)]
    return np.concatenate(planes)


def bounds(frames: np.ndarray) -> list[Boundary]:
    return find_boundaries(frames, FPS, ShotConfig())


def test_a_cut_is_found_at_its_frame() -> None:
    assert [(b.kind, b.first, b.frame) for b in bounds(video(shot(1, 40), shot(2, 40)))] == [("cut", 40, 40)]


def test_one_shot_has_no_boundary() -> None:
    assert bounds(video(shot(1, 100))) == []


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_a_flash_is_no_cut(length: int) -> None:
    a = shot(1, 80)
    flash = np.full((length, DIMENSIONS), 250.0)
    assert bounds(video(a[:40], flash, a[40 + length :])) == []


def test_a_flash_that_fades_away_is_no_cut() -> None:
    a = shot(1, 80)
    glow = [a[40] + 35 * share for share in (1.0, 0.65, 0.32)]
    assert bounds(video(a[:40], np.stack(glow), a[43:])) == []


def test_doubled_frames_do_not_hide_a_cut_nor_make_one() -> None:
    frames = video(shot(1, 30), shot(2, 30)).repeat(2, axis=0)
    assert [b.frame for b in bounds(frames)] == [60]


def test_a_dissolve_is_found_with_its_extent() -> None:
    a, b = shot(1, 40), shot(2, 40)
    (boundary,) = bounds(video(a, blend(a, b, 12), b))
    assert boundary.kind == "dissolve"
    assert abs(boundary.first - 40) <= 2
    assert abs(boundary.frame - 52) <= 2


def test_a_fade_through_black_is_one_boundary() -> None:
    a, b = shot(1, 40), shot(2, 40)
    black = np.full((6, DIMENSIONS), 0.0)
    (boundary,) = bounds(video(a, blend(a, black, 8), black, blend(black, b, 8), b))
    assert boundary.kind == "fade"
    assert 40 <= boundary.first <= 50
    assert 52 <= boundary.frame <= 63


def test_a_dissolve_between_walls_is_one() -> None:
    a, b = np.full((40, DIMENSIONS), 150.0), np.full((40, DIMENSIONS), 100.0)
    a[:, :LUMA_SIZE], b[:, :LUMA_SIZE] = 70, 160
    (boundary,) = bounds(video(a, blend(a, b, 12), b))
    assert boundary.kind == "dissolve"
    assert abs(boundary.first - 40) <= 2
    assert abs(boundary.frame - 52) <= 2


def test_a_fade_to_a_plain_wall_is_one_boundary() -> None:
    a, black, wall = shot(1, 40), np.full((3, DIMENSIONS), 128.0), np.full((60, DIMENSIONS), 150.0)
    black[:, :LUMA_SIZE] = 0
    wall[:, :LUMA_SIZE] = 90 + 2 * np.sin(np.arange(LUMA_SIZE))
    for plain in (wall, wall[:12]):
        (boundary,) = bounds(video(a, blend(a, black, 4), black, blend(black, plain, 4), plain))
        assert (boundary.kind, boundary.first, boundary.frame) == ("fade", 40, 51)


def test_a_fade_in_at_the_start_is_no_boundary() -> None:
    a, black = shot(1, 60), np.zeros((10, DIMENSIONS))
    assert bounds(video(black, blend(black, a, 10), a)) == []


def test_frames_left_out_are_a_cut() -> None:
    boundaries = find_boundaries(video(shot(1, 60)), FPS, ShotConfig(), gaps=[25])
    assert [(b.kind, b.frame) for b in boundaries] == [("cut", 25)]


def test_shots_and_transitions_cover_every_frame_once() -> None:
    a, b, c = shot(1, 40), shot(2, 40), shot(3, 30)
    frames = video(a, blend(a, b, 12), b, c)
    boundaries = bounds(frames)
    covered = [f for s in split(boundaries, len(frames)) for f in range(s.start, s.end)]
    covered += [f for b in boundaries for f in range(b.first, b.frame)]
    assert sorted(covered) == list(range(len(frames)))


def test_a_slow_pan_is_one_shot() -> None:
    rng = np.random.default_rng(4)
    wide = np.repeat(np.repeat(rng.uniform(20, 230, (4, 30)), 4, axis=0), 4, axis=1)  # [16, 120]
    luma = [wide[:, x : x + 16].ravel() for x in range(100)]  # a cell a frame
    frames = np.concatenate([luma, np.full((100, DIMENSIONS - 256), 128.0)], axis=1)
    assert bounds(video(frames)) == []


def test_an_exposure_ramp_is_no_dissolve() -> None:
    frames = np.tile(smooth(1), (60, 1))
    frames[:, :256] *= 1 + 0.5 * np.clip((np.arange(60) - 20) / 15, 0, 1)[:, None]
    assert bounds(video(frames)) == []


def test_a_wipe_is_told_from_a_dissolve() -> None:
    a, b = smooth(1), smooth(2)
    side = np.repeat(np.arange(16)[None], 16, axis=0).ravel()
    chroma = np.repeat(np.arange(8)[None], 8, axis=0).ravel() * 2
    column = np.concatenate([side, chroma, chroma])
    frames = [np.where(column < k, b, a) for k in range(1, 16)]
    (boundary,) = bounds(video(np.tile(a, (40, 1)), np.stack(frames), np.tile(b, (40, 1))))
    assert boundary.kind == "wipe"
    assert abs(boundary.first - 40) <= 2
    assert abs(boundary.frame - 55) <= 2


def test_a_sharper_change_is_surer() -> None:
    a, b = shot(1, 40), shot(2, 40)
    near = a[-1] + 0.25 * (b - a[-1])
    (sure,), (less,) = bounds(video(a, b)), bounds(video(a, near))
    assert sure.confidence > less.confidence >= ShotConfig().cut_probability


@pytest.mark.parametrize("max_shot_s", [2.0, 3.3, 10.0])
def test_long_shots_are_split_without_losing_a_frame(max_shot_s: float) -> None:
    a, b = shot(1, 700), shot(2, 300)
    frames = video(a, blend(a, b, 12), b)
    boundaries = find_boundaries(frames, FPS, ShotConfig(max_shot_s=max_shot_s))
    pieces = split(boundaries, len(frames))
    covered = [f for s in pieces for f in range(s.start, s.end)]
    covered += [f for b in boundaries for f in range(b.first, b.frame)]
    assert sorted(covered) == list(range(len(frames)))
    assert max(s.end - s.start for s in pieces) <= max_shot_s * FPS
    assert min(s.end - s.start for s in pieces) >= 0.3 * max_shot_s * FPS - 1
    assert [b.kind for b in boundaries if b.kind != "stride"] == ["dissolve"]


def test_a_long_shot_is_split_where_least_happens() -> None:
    rng = np.random.default_rng(3)
    frames = shot(1, 300) + rng.normal(0, 6, (300, DIMENSIONS))
    frames[140:160] = frames[140]
    (boundary,) = find_boundaries(video(frames), FPS, ShotConfig(max_shot_s=10.0))
    assert boundary.kind == "stride"
    assert 140 <= boundary.frame <= 160


def test_zero_means_no_greatest_length() -> None:
    assert find_boundaries(video(shot(1, 2000)), 1.0, ShotConfig(max_shot_s=0.0)) == []


def test_another_detectors_boundaries_take_the_place_of_the_own() -> None:
    named = [Boundary(first=20, frame=20, kind="cut", confidence=0.9)]
    frames = video(shot(1, 40), shot(2, 40))
    assert find_boundaries(frames, FPS, ShotConfig(), boundaries=named) == named


def test_what_comes_later_changes_nothing_far_before() -> None:
    parts = [video(*(shot(10 * k + i, 60) for i in range(4))) for k in range(3)]
    whole, alone = bounds(np.concatenate(parts)), bounds(parts[0])
    assert whole[: len(alone)] == alone


def test_weights_of_other_evidence_are_refused() -> None:
    rows = np.zeros(2, cuts.EVIDENCE)
    assert probability(rows, MODELS.cut).shape == (2,)
    with pytest.raises(AssertionError, match="evidence of"):
        probability(rows, MODELS.wipe)


def test_a_model_that_is_handed_in_decides() -> None:
    frames = video(shot(1, 40), shot(2, 40))
    never = dataclasses.replace(MODELS, cut={**MODELS.cut, "constant": -1000.0})
    assert find_boundaries(frames, FPS, ShotConfig(), models=never) == []


def test_evidence_of_nothing_is_empty() -> None:
    frames = video(shot(1, 40))
    nowhere, views = np.zeros(0, int), looks(frames)
    spans = np.zeros((0, 2), int)
    changed = gradual.changes(views, spans)
    assert len(probability(cuts.evidence(frames, steps(frames), nowhere, FPS), MODELS.cut)) == 0
    assert len(probability(changed, MODELS.screen)) == 0
    assert len(probability(gradual.evidence(frames, views, spans, changed, FPS), MODELS.wipe)) == 0


def test_a_video_of_one_frame_is_one_shot() -> None:
    assert [(s.start, s.end) for s in split(bounds(video(shot(1, 1))), 1)] == [(0, 1)]


def test_a_descriptor_is_small_and_of_fixed_size() -> None:
    levels = (((2, 20, 35), 9), ((2, 10, 18), 100), ((2, 10, 18), 200))
    cells = descriptors(*(np.full(shape, level, np.uint8) for shape, level in levels))
    assert cells.shape == (2, DIMENSIONS)
    assert set(cells.ravel()) == {9, 100, 200}


@pytest.mark.slow
def test_real_montages_keep_their_measured_score(media_dir: Path) -> None:
    truth = json.loads((media_dir / "truth" / "cuts.json").read_text())
    hits = missed = wrong = gradual_true = gradual_right = 0
    with Sandbox() as box:
        for name in (
            "m01_hard_320x240_25.mp4",
            "m02_dissolve_640x360_24.mp4",
            "m05_flash_handheld_1280x720_30.mp4",
        ):
            known = truth[f"montages/{name}"]
            clips = box.analyze(media_dir / "montages" / name, AnalyzeConfig()).clips
            starts = [c["start_frame"] for c in clips[1:]]
            for cut in known["hard_cuts"]:
                near = [s for s in starts if abs(s - cut) <= 1]
                hits, missed = hits + bool(near), missed + (not near)
                starts = [s for s in starts if s not in near]
            for first, last in known["gradual"]:
                near = [s for s in starts if first - 2 <= s <= last + 2]
                gradual_true, gradual_right = gradual_true + 1, gradual_right + bool(near)
                starts = [s for s in starts if s not in near]
            wrong += len(starts)
    assert (hits, missed, wrong) == (14, 0, 0)
    assert gradual_right == gradual_true
