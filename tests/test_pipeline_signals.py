"""Signals order things the way eyes do, and do not depend on what they should not."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.corpus import tables
from pipeline.sandbox.sandbox import Sandbox
from pipeline.signals.flow import Follower
from pipeline.signals.measure import CLOSE, clip_signals, inspect, measure

GREY = np.full((45, 80), 128, np.uint8)


def texture(shift_px: float = 0.0, high: int = 90, wide: int = 160) -> np.ndarray:
    """uint8 [H, W]: smooth waves, moved to the right."""
    y, x = np.mgrid[:high, :wide].astype(float)
    waves = np.sin((x - shift_px) / 9) * np.cos(y / 7) + np.sin((x - shift_px) / 5 + y / 11)
    return np.rint(128 + 45 * waves).astype(np.uint8)


def rows(planes: list[np.ndarray], fps: float = 24.0, batch: int = 8) -> np.ndarray:
    y, grey, follower = np.stack(planes), np.stack([GREY] * len(planes)), Follower()
    found = []
    for i in range(0, len(y), batch):
        part = slice(i, i + batch)
        found.append(measure(y[part], grey[part], grey[part], y[i - 1] if i else None))
        follower.follow(np.arange(i, min(i + batch, len(y))) / fps, y[part])
    whole = np.concatenate(found)
    follower.fill(whole)
    return whole


def signals(planes: list[np.ndarray], fps: float) -> dict[str, float | None]:
    grids = np.stack([p.ravel() for p in planes])
    return clip_signals(rows(planes, fps), np.zeros(0, CLOSE), grids, np.arange(len(planes)) / fps)


def test_batches_change_no_value() -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 255, (90, 160), np.uint8) for _ in range(9)]
    planes += [texture(t * 3.0) for t in range(40)]
    assert all((rows(planes, batch=batch) == rows(planes)).all() for batch in (1, 3, 17, 49))


def test_every_signal_has_a_column_and_every_column_a_signal() -> None:
    assert set(signals([texture()] * 3, fps=3)) == {field.name for field in tables.SIGNALS}


@pytest.mark.parametrize("fps", [10, 24, 60])
def test_motion_does_not_depend_on_the_frame_rate(fps: int) -> None:
    pan = signals([texture(t * 20 / fps) for t in range(2 * fps)], fps)
    assert pan["motion"] == pytest.approx(20 / 160, rel=0.2)
    assert pan["pan"] == pytest.approx(-20 / 160, rel=0.1)


def test_motion_does_not_depend_on_the_size() -> None:
    small = signals([texture(t)[::1, ::1] for t in range(24)], fps=12)
    large = signals([texture(t / 2, 180, 320) for t in range(24)], fps=12)  # waves of half the share
    assert large["motion"] == pytest.approx(small["motion"] / 4, rel=0.25)


def test_a_still_picture_does_not_move() -> None:
    still = signals([texture()] * 12, fps=12)
    assert still["motion"] == still["camera_motion"] == still["shake"] == 0
    assert still["static_ratio"] == 1
    assert still["duplicate_ratio"] == 0  # nothing moves that a repeated frame would interrupt
    assert still["flicker"] == 0


def test_slow_motion_is_not_static() -> None:
    assert signals([texture(t * 0.2) for t in range(50)], fps=25)["static_ratio"] == 0


@pytest.mark.parametrize("times", [2, 5])
def test_repeated_frames_are_counted(times: int) -> None:
    repeated = signals([texture(t // times * 1.0) for t in range(150)], fps=60)
    assert repeated["duplicate_ratio"] == pytest.approx(1 - 1 / times, abs=0.08)
    assert signals([texture(t * 1.0) for t in range(60)], fps=60)["duplicate_ratio"] == 0


def test_a_picture_that_comes_to_rest_repeats_no_frame() -> None:
    assert signals([texture(min(t, 20) * 1.0) for t in range(60)], fps=24)["duplicate_ratio"] < 0.02


def test_black_and_clipped_pixels_are_counted() -> None:
    black, white = np.zeros_like(texture()), np.full_like(texture(), 255)
    found = signals([black] * 3 + [white] * 3 + [texture()] * 6, fps=12)
    assert found["black_ratio"] == found["underexposed"] == found["overexposed"] == pytest.approx(0.25)


def test_one_frame_has_no_motion_rather_than_none() -> None:
    alone = signals([texture()], fps=0.1)
    unknown = {name for name, value in alone.items() if value is None}
    assert {"motion", "camera_motion", "pan", "shake", "static_ratio", "duplicate_ratio"} <= unknown
    assert alone["luma"] == pytest.approx(0.5, abs=0.02)


def test_motion_across_a_cut_belongs_to_neither_clip() -> None:
    before, after = [texture(t * 1.0) for t in range(12)], [texture()[::-1].copy()] * 12
    whole, times_s = rows(before + after, fps=12), np.arange(24) / 12
    grids = np.stack([p.ravel() for p in before + after])
    second = clip_signals(whole[12:], np.zeros(0, CLOSE), grids[12:], times_s[12:])
    assert second["motion"] == second["camera_motion"] == 0


def test_a_closer_look_fills_every_field() -> None:
    row = inspect(texture(high=360, wide=640), texture(high=360, wide=640), full_range=True)
    assert row.dtype == CLOSE
    assert row.shape == (1,)


NAMES = {
    "brightness": "luma",
    "colourfulness": "saturation",
    "watermark": "logo_area",
    "visual_quality": "quality",
}


def test_real_clips_are_ordered_as_they_look(media_dir: Path) -> None:
    relations = json.loads((media_dir / "truth" / "quality.json").read_text())["relations"]
    files = sorted({f for _, left, _, right in relations for f in (left, right) if f})
    with Sandbox() as box:
        known = {f: box.analyze(media_dir / f, AnalyzeConfig()).clips[0]["signals"] for f in files}
    for name, left, sign, right in relations:
        value = known[left][NAMES.get(name, name)]
        if sign == ">":
            assert value > known[right][NAMES.get(name, name)], (name, left, right)
        else:
            assert value == pytest.approx(0, abs=0.01), (name, left)


def test_real_traits_are_told_from_their_absence(media_dir: Path) -> None:
    woven = "clips/made_interlaced_vtest_mpeg2.mpg"
    progressive = ("clips/palawan_1080p.mp4", "clips/carphone_176x144.mp4", "clips/bbb5s_720p.mp4")
    with Sandbox() as box:
        known = {
            f: box.analyze(media_dir / f, AnalyzeConfig()).clips[0]["signals"] for f in (woven, *progressive)
        }
    assert known[woven]["interlacing"] > 0.01
    assert all(known[f]["interlacing"] < 0.005 and known[f]["duplicate_ratio"] < 0.1 for f in progressive)
