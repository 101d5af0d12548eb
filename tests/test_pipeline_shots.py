"""Boundaries: exact on synthetic edits, and on real ones as good as when the thresholds were set."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, ShotConfig
from pipeline.sandbox import Sandbox
from pipeline.shots import DIMENSIONS, Boundary, descriptors, find_boundaries, split

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


def found(frames: np.ndarray) -> list[Boundary]:
    return find_boundaries(frames, FPS, ShotConfig())


def test_a_cut_is_found_at_its_frame() -> None:
    assert [(b.kind, b.first, b.frame) for b in found(video(shot(1, 40), shot(2, 40)))] == [("cut", 40, 40)]


def test_one_shot_has_no_boundary() -> None:
    assert found(video(shot(1, 100))) == []


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_flash_is_no_cut(length: int) -> None:
    a = shot(1, 80)
    flash = np.full((length, DIMENSIONS), 250.0)
    assert found(video(a[:40], flash, a[40 + length :])) == []


def test_a_flash_that_fades_away_is_no_cut() -> None:
    a = shot(1, 80)
    glow = [a[40] + 35 * share for share in (1.0, 0.65, 0.32)]
    assert found(video(a[:40], np.stack(glow), a[43:])) == []


def test_doubled_frames_do_not_hide_a_cut_nor_make_one() -> None:
    frames = video(shot(1, 30), shot(2, 30)).repeat(2, axis=0)
    assert [b.frame for b in found(frames)] == [60]


def test_a_dissolve_is_found_with_its_extent() -> None:
    a, b = shot(1, 40), shot(2, 40)
    (boundary,) = found(video(a, blend(a, b, 12), b))
    assert boundary.kind == "dissolve"
    assert abs(boundary.first - 40) <= 2
    assert abs(boundary.frame - 52) <= 2


def test_a_fade_through_black_is_one_boundary() -> None:
    a, b = shot(1, 40), shot(2, 40)
    black = np.full((6, DIMENSIONS), 0.0)
    (boundary,) = found(video(a, blend(a, black, 8), black, blend(black, b, 8), b))
    assert boundary.kind == "fade"
    assert 40 <= boundary.first <= 50
    assert 52 <= boundary.frame <= 63


def test_a_fade_in_at_the_start_is_no_boundary() -> None:
    a, black = shot(1, 60), np.zeros((10, DIMENSIONS))
    assert found(video(black, blend(black, a, 10), a)) == []


def test_frames_left_out_are_a_cut() -> None:
    boundaries = find_boundaries(video(shot(1, 60)), FPS, ShotConfig(), gaps=[25])
    assert [(b.kind, b.frame) for b in boundaries] == [("cut", 25)]


def test_shots_and_transitions_cover_every_frame_once() -> None:
    a, b, c = shot(1, 40), shot(2, 40), shot(3, 30)
    frames = video(a, blend(a, b, 12), b, c)
    boundaries = found(frames)
    covered = [f for s in split(boundaries, len(frames)) for f in range(s.start, s.end)]
    covered += [f for b in boundaries for f in range(b.first, b.frame)]
    assert sorted(covered) == list(range(len(frames)))


def test_a_video_of_one_frame_is_one_shot() -> None:
    assert [(s.start, s.end) for s in split(found(video(shot(1, 1))), 1)] == [(0, 1)]


def test_a_descriptor_is_small_and_of_fixed_size() -> None:
    levels = (((2, 20, 35), 9), ((2, 10, 18), 100), ((2, 10, 18), 200))
    cells = descriptors(*(np.full(shape, level, np.uint8) for shape, level in levels))
    assert cells.shape == (2, DIMENSIONS)
    assert set(cells.ravel()) == {9, 100, 200}


@pytest.mark.slow
def test_real_montages_keep_their_measured_score(media_dir: Path) -> None:
    truth = json.loads((media_dir / "truth" / "cuts.json").read_text())
    hits = missed = wrong = gradual = gradual_found = 0
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
                gradual, gradual_found = gradual + 1, gradual_found + bool(near)
                starts = [s for s in starts if s not in near]
            wrong += len(starts)
    assert (hits, missed, wrong) == (14, 0, 0)
    assert gradual_found == gradual
