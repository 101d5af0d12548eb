"""Signals order things the way eyes do, and do not depend on what they should not."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.sandbox import Sandbox
from pipeline.signals import CLOSE, active_picture, clip_signals, displacement, measure, sharpness

GREY = np.full((45, 80), 128, np.uint8)


def texture(shift_px: float = 0.0, high: int = 90, wide: int = 160) -> np.ndarray:
    """uint8 [H, W]: smooth waves, moved to the right."""
    y, x = np.mgrid[:high, :wide].astype(float)
    waves = np.sin((x - shift_px) / 9) * np.cos(y / 7) + np.sin((x - shift_px) / 5 + y / 11)
    return np.rint(128 + 45 * waves).astype(np.uint8)


def rows(planes: list[np.ndarray], batch: int = 8) -> np.ndarray:
    grey = np.stack([GREY] * len(planes))
    y = np.stack(planes)
    cuts = range(0, len(y), batch)
    return np.concatenate(
        [
            measure(y[i : i + batch], grey[i : i + batch], grey[i : i + batch], y[i - 1] if i else None)
            for i in cuts
        ]
    )


def signals(planes: list[np.ndarray], fps: float) -> dict[str, float | None]:
    grids = np.stack([p.ravel() for p in planes])
    return clip_signals(rows(planes), np.zeros(0, CLOSE), grids, np.arange(len(planes)) / fps)


def test_batches_change_no_value() -> None:
    rng = np.random.default_rng(0)
    planes = [rng.integers(0, 255, (90, 160), np.uint8) for _ in range(9)]
    assert all((rows(planes, batch) == rows(planes)).all() for batch in (1, 3, 9))


@pytest.mark.parametrize("shift_px", [0.5, 1.0, 2.0])
def test_a_pan_is_measured_in_long_sides(shift_px: float) -> None:
    moved, panned = (float(v[0]) for v in displacement(np.stack([texture(0), texture(shift_px)])))
    assert panned == pytest.approx(shift_px / 160, rel=0.15)
    assert moved == pytest.approx(shift_px / 160, rel=0.25)


def test_motion_does_not_depend_on_the_frame_rate() -> None:
    slow = signals([texture(t * 2.0) for t in range(10)], fps=10)
    fast = signals([texture(t * 1.0) for t in range(20)], fps=20)
    assert slow["motion"] == pytest.approx(fast["motion"], rel=0.1)
    assert slow["camera_motion"] == pytest.approx(20 / 160, rel=0.15)


def test_a_still_picture_does_not_move() -> None:
    still = signals([texture()] * 12, fps=12)
    assert still["motion"] == 0
    assert still["static_ratio"] == 1
    assert still["flicker"] == 0


def test_slow_motion_is_not_static() -> None:
    assert signals([texture(t * 0.2) for t in range(50)], fps=25)["static_ratio"] == 0


def test_black_frames_are_counted() -> None:
    black = np.zeros_like(texture())
    assert signals([black] * 3 + [texture()] * 9, fps=12)["black_ratio"] == pytest.approx(0.25)


def test_sharpness_falls_with_blur_and_ignores_exposure() -> None:
    rng = np.random.default_rng(0)
    sharp = rng.uniform(0, 255, (60, 80)).repeat(2, 0).repeat(2, 1)
    blurred = sum(np.roll(sharp, (dy, dx), (0, 1)) for dy in range(5) for dx in range(5)) / 25
    assert sharpness(sharp.astype(np.uint8)) > 5 * sharpness(blurred.astype(np.uint8))
    assert sharpness((sharp * 0.5).astype(np.uint8)) == pytest.approx(
        sharpness(sharp.astype(np.uint8)), rel=0.05
    )


def test_one_frame_has_no_motion_rather_than_none() -> None:
    alone = signals([texture()], fps=0.1)
    assert alone["motion"] is None
    assert alone["static_ratio"] is None
    assert alone["luma"] == pytest.approx(0.5, abs=0.02)


def test_bars_come_in_pairs() -> None:
    rows, columns = np.full((1, 100), 200), np.full((1, 160), 200)
    assert active_picture(rows, columns) == (0, 0, 160, 100)
    rows[:, :12], rows[:, 88:] = 3, 3
    assert active_picture(rows, columns) == (0, 12, 160, 76)
    columns[:, :40] = 3  # dark on one side only
    assert active_picture(rows, columns) == (0, 12, 160, 76)


def test_a_dark_picture_that_fades_out_has_no_bars() -> None:
    glow = np.clip(60 - np.abs(np.arange(100) - 50) * 1.5, 0, 255)
    assert active_picture(glow[None], np.full((1, 160), 60)) == (0, 0, 160, 100)


NAMES = {"brightness": "luma", "colourfulness": "saturation", "sharpness": "sharpness", "motion": "motion"}


def test_real_clips_are_ordered_as_they_look(media_dir: Path) -> None:
    relations = json.loads((media_dir / "truth" / "quality.json").read_text())["relations"]
    known: dict[str, dict[str, float]] = {}
    with Sandbox() as box:
        for signal, left, sign, right in relations:
            if signal not in NAMES:
                continue
            for file in filter(None, (left, right)):
                if file not in known:
                    known[file] = box.analyze(media_dir / file, AnalyzeConfig()).clips[0]["signals"]
            value = known[left][NAMES[signal]]
            if sign == ">":
                assert value > known[right][NAMES[signal]], (signal, left, right)
            else:
                assert value == pytest.approx(0, abs=0.01), (signal, left)
