"""Single frames: detail, overlays and bars."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.config import AnalyzeConfig
from pipeline.sandbox.sandbox import Sandbox
from pipeline.signals import bars, detail, overlay

RNG = np.random.default_rng(1)


def scene(seed: int = 0, long_px: int = 640) -> np.ndarray:
    """uint8 [H, W]: a smooth picture with an outline or two."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(40, 200, (9, 16), np.uint8))
    image = small.resize((long_px, long_px * 9 // 16), Image.Resampling.BICUBIC)
    ImageDraw.Draw(image).ellipse((long_px // 3, 60, long_px // 2, 240), fill=30)
    return np.asarray(image)


def written(plane: np.ndarray, words: str, at: tuple[int, int], px: int = 24) -> np.ndarray:
    image = Image.fromarray(plane)
    ImageDraw.Draw(image).text(
        at, words, fill=255, stroke_width=2, stroke_fill=0, font=ImageFont.load_default(px)
    )
    return np.asarray(image)


def blocky(plane: np.ndarray) -> np.ndarray:
    high, wide = (n // 8 * 8 for n in plane.shape)
    means = plane[:high, :wide].reshape(high // 8, 8, wide // 8, 8).mean(axis=(1, 3), keepdims=True)
    return np.broadcast_to(means, (high // 8, 8, wide // 8, 8)).reshape(high, wide).astype(np.uint8)


def test_sharpness_falls_with_blur_and_ignores_exposure() -> None:
    sharp = RNG.uniform(0, 255, (60, 80)).repeat(2, 0).repeat(2, 1)
    blurred = sum(np.roll(sharp, (dy, dx), (0, 1)) for dy in range(5) for dx in range(5)) / 25
    value = detail.sharpness(sharp.astype(np.uint8))
    assert value > 5 * detail.sharpness(blurred.astype(np.uint8))
    assert detail.sharpness((sharp * 0.5).astype(np.uint8)) == pytest.approx(value, rel=0.05)


def test_noise_is_measured_in_steps_of_luma() -> None:
    flat = np.full((360, 640), 128.0)
    for sigma in (1.0, 4.0):
        noisy = np.clip(np.rint(flat + RNG.normal(0, sigma, flat.shape)), 0, 255).astype(np.uint8)
        assert detail.noise(noisy) == pytest.approx(sigma, rel=0.15)
    assert detail.noise(scene()) < 0.5


def test_block_edges_show_on_the_grid_only() -> None:
    assert detail.blockiness(scene()) < 0.1
    assert detail.blockiness(blocky(scene())) > 0.5
    assert detail.blockiness(blocky(scene())[3:, 4:]) < 0.1  # block edges off the grid are the picture's own


def test_woven_fields_comb_and_fine_lines_do_not() -> None:
    field = scene(long_px=320)
    woven = np.where(np.arange(len(field))[:, None] % 2, np.roll(field, 12, axis=1), field)
    assert detail.combing(woven) > 0.02
    assert detail.combing(field) == 0


def test_quality_falls_with_each_fault() -> None:
    best = detail.technical_quality(0.1, 0.0, 0.0)
    assert best > 0.9
    worse = [detail.technical_quality(*fault) for fault in ((0.002, 0, 0), (0.1, 0.8, 0), (0.1, 0, 5.0))]
    assert all(w < 0.6 * best for w in worse)


def areas(planes: list[np.ndarray]) -> tuple[float, float | None]:
    return overlay.areas(np.stack([overlay.strokes(p) for p in planes]))


def test_text_stays_and_scenes_do_not_look_like_it() -> None:
    plain = [scene(seed) for seed in range(4)]
    assert areas(plain) == (0, 0)
    text, logo = areas([written(p, "SUBSCRIBE NOW FOR MORE", (120, 280)) for p in plain])
    assert 0.02 < text < 0.15
    assert logo == 0


def test_a_logo_stays_in_its_corner() -> None:
    text, logo = areas([written(scene(seed), "TV ONE", (530, 20), 20) for seed in range(4)])
    assert logo is not None
    assert 0.001 < logo < 0.02
    assert text == logo


def test_what_moves_is_no_overlay() -> None:
    assert areas([written(scene(), "HELLO WORLD", (40 + 90 * t, 60 + 70 * t)) for t in range(4)]) == (0, 0)


def test_one_frame_cannot_tell_whether_a_logo_stays() -> None:
    text, logo = areas([written(scene(), "SUBSCRIBE", (200, 200))])
    assert text > 0
    assert logo is None


def box(rows: np.ndarray, columns: np.ndarray, usual: bars.Box | None = None) -> bars.Box:
    return bars.active_picture(rows[None].astype(np.uint8), columns[None].astype(np.uint8), usual)


def test_bars_come_in_pairs() -> None:
    rows, columns = np.full(100, 200), np.full(160, 200)
    assert box(rows, columns) == (0, 0, 160, 100)
    rows[:12], rows[88:] = 3, 3
    assert box(rows, columns) == (0, 12, 160, 76)
    columns[:40] = 3  # dark on one side only
    assert box(rows, columns) == (0, 12, 160, 76)


def test_a_dark_picture_that_fades_out_has_no_bars() -> None:
    glow = np.clip(60 - np.abs(np.arange(100) - 50) * 1.5, 0, 255)
    assert box(glow, np.full(160, 60)) == (0, 0, 160, 100)


def test_a_clip_too_dark_to_tell_has_the_bars_of_its_source() -> None:
    rows, columns, usual = np.full(100, 2), np.full(160, 30), (0, 12, 160, 76)
    assert box(rows, columns, usual) == usual
    rows[40:60] = 35
    assert box(rows, columns, usual) == usual
    rows[5:60] = 35  # lit where the bars are elsewhere
    assert box(rows, columns, usual) == (0, 0, 160, 100)


def test_no_frame_no_bars() -> None:
    assert bars.active_picture(np.zeros((0, 90), np.uint8), np.zeros((0, 160), np.uint8)) == (0, 0, 160, 90)


def test_active_pictures_of_real_files(media_dir: Path) -> None:
    truth = json.loads((media_dir / "truth" / "geometry.json").read_text())
    known = {file: facts["active_xywh"] for file, facts in truth.items() if "active_xywh" in facts}
    assert len(known) >= 4
    with Sandbox() as sandbox:
        for file, (x, y, w, h) in known.items():
            for clip in sandbox.analyze(media_dir / file, AnalyzeConfig()).clips:
                left, top, wide, high = clip["crop"]
                edges = np.array([left, top, left + wide, top + high])
                assert np.abs(edges - [x, y, x + w, y + h]).max() <= 2, (file, clip["crop"])
