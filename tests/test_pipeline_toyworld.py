"""The toy world says only what its pixels show, and the same seed gives the same bytes."""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.storage import sha256_hex
from pipeline.toyworld.render import render_frames
from pipeline.toyworld.scene import (
    BACKGROUND_RGB,
    HORIZONTAL,
    MOTIONS,
    OBJECT_RGB,
    VERTICAL,
    Shot,
    ToyObject,
    contrasting_colours,
    sample_shot,
)
from pipeline.toyworld.script import ASPECTS, FRAME_RATES, plan_corpus
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

CONFIG = ToyWorldConfig(
    videos=8,
    images=3,
    seed=5,
    max_shots=4,
    max_shot_s=1.6,
    letterbox_share=0.4,
    duplicate_share=0.3,
    gradual_share=0.5,
)


def decoded(path: str) -> np.ndarray:
    """Runs in a child process: codec libraries stay out of the process that other tests fill with torch."""
    from pipeline.media.decode import decode
    from pipeline.media.frames import Damage

    frames = list(decode(path, Damage(), max_pixels=10**7))
    return np.stack([f.rgb(f.picture.width, f.picture.height) for f in frames])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toyworld")
    render_corpus(folder, CONFIG, workers=2)
    return folder


@pytest.fixture(scope="module")
def truth(corpus: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (corpus / "truth.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def pixels(corpus: Path, truth: list[dict[str, Any]]) -> Iterator[dict[str, np.ndarray]]:
    videos = [row["file"] for row in truth if row["kind"] == "video"]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield dict(zip(videos, pool.map(decoded, [str(corpus / name) for name in videos]), strict=True))


def test_truth_names_every_file_and_nothing_else_is_written(
    corpus: Path, truth: list[dict[str, Any]]
) -> None:
    written = {str(path.relative_to(corpus)) for path in corpus.rglob("*") if path.is_file()}
    assert written == {row["file"] for row in truth} | {"truth.jsonl"}
    for row in truth:
        assert row["source_id"] == sha256_hex((corpus / row["file"]).read_bytes())[:16]


def test_spans_and_boundaries_cover_each_file_without_gap(truth: list[dict[str, Any]]) -> None:
    for row in truth:
        at = 0
        for shot, boundary in zip(row["shots"], [*row["boundaries"], None], strict=True):
            assert shot["start_frame"] == at < shot["end_frame"]
            at = shot["end_frame"]
            if boundary is not None:
                assert boundary["first_frame"] == at
                is_cut = boundary["kind"] == "cut"
                assert is_cut == (boundary["first_frame"] == boundary["last_frame"])
                at = boundary["last_frame"] + (0 if is_cut else 1)
        assert at == row["frames"]


def test_videos_hold_the_frames_that_truth_says(
    truth: list[dict[str, Any]], pixels: dict[str, np.ndarray]
) -> None:
    for row in truth:
        if row["kind"] == "video":
            assert pixels[row["file"]].shape == (row["frames"], row["height"], row["width"], 3)


def test_cuts_are_visible_where_truth_says_and_nowhere_else(
    truth: list[dict[str, Any]], pixels: dict[str, np.ndarray]
) -> None:
    for name, frames in pixels.items():
        row = next(row for row in truth if row["file"] == name)
        step = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))  # [T - 1]
        cuts = [b["first_frame"] for b in row["boundaries"] if b["kind"] == "cut"]
        for shot in row["shots"]:
            inside = step[shot["start_frame"] : shot["end_frame"] - 1]
            assert all(step[cut - 1] > 1.5 * inside.max() for cut in cuts)
            assert not shot["static"] or inside.max() < 3


def test_letterbox_bars_are_black_and_the_active_picture_is_not(
    truth: list[dict[str, Any]], pixels: dict[str, np.ndarray]
) -> None:
    boxed = [
        row for row in truth if row["kind"] == "video" and row["active"][2:] != [row["width"], row["height"]]
    ]
    assert boxed
    for row in boxed:
        x, y, w, h = row["active"]
        frame = pixels[row["file"]][row["shots"][0]["start_frame"]].astype(int)
        assert frame[y : y + h, x : x + w].max(axis=2).mean() > 40
        bars = np.ones(frame.shape[:2], bool)
        bars[max(y - 2, 0) : y + h + 2, max(x - 2, 0) : x + w + 2] = False
        assert frame[bars].max() < 40


def test_a_duplicate_looks_like_its_original(
    truth: list[dict[str, Any]], pixels: dict[str, np.ndarray]
) -> None:
    rows = {row["file"]: row for row in truth}
    copies = [(row, shot) for row in truth for shot in row["shots"] if shot["duplicate_of"]]
    assert copies
    for row, shot in copies:
        source_row = rows[shot["duplicate_of"]["file"]]
        source = source_row["shots"][shot["duplicate_of"]["shot"]]
        assert source["facts"] == shot["facts"]
        for offset in (0, -1):
            pair = []
            for owner, span in ((row, shot), (source_row, source)):
                x, y, w, h = owner["active"]
                frame = pixels[owner["file"]][span["start_frame"] if offset == 0 else span["end_frame"] - 1]
                pair.append(np.asarray(Image.fromarray(frame[y : y + h, x : x + w]).resize((32, 32)), int))
            assert np.abs(pair[0] - pair[1]).mean() < 8


def test_same_seed_same_bytes_whatever_the_workers(corpus: Path, tmp_path: Path) -> None:
    render_corpus(tmp_path, CONFIG, workers=3)
    for path in sorted(corpus.rglob("*.*")):
        assert path.read_bytes() == (tmp_path / path.relative_to(corpus)).read_bytes(), path.name


def test_a_plan_uses_every_aspect_rate_and_kind_of_shot() -> None:
    plans = plan_corpus(ToyWorldConfig(videos=150, images=0, seed=1))
    shots = [planned for plan in plans for planned in plan.shots]
    assert {plan.aspect for plan in plans} == set(ASPECTS)
    assert {plan.fps for plan in plans} == set(FRAME_RATES)
    assert {b.kind for plan in plans for b in plan.boundaries} == {"cut", "dissolve", "fade"}
    for trait in ("blurred", "text", "static"):
        assert any(getattr(planned.shot, trait) for planned in shots), trait
    assert any(planned.duplicate_of for planned in shots)
    for plan in plans:
        assert plan.width_px % 2 == plan.height_px % 2 == 0
        names = [planned.shot.background for planned in plan.shots]
        assert all(a != b for a, b in pairwise(names))


def test_a_config_that_cannot_be_rendered_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_shots 3"):
        ToyWorldConfig(min_shots=3, max_shots=2)


def lone_shot(rng: np.random.Generator, **options: bool) -> Shot:
    """A one-object shot on a background that does not share the object's colour."""
    while True:
        shot = sample_shot(rng, **options)
        if len(shot.objects) == 1:
            return shot


def drawn(frame: np.ndarray, thing: ToyObject) -> tuple[float, float, int]:
    """Centre (shares of the sides) and area in pixels of the object's colour."""
    ys, xs = np.nonzero(np.abs(frame.astype(int) - OBJECT_RGB[thing.colour]).max(axis=2) < 12)
    return xs.mean() / frame.shape[1], ys.mean() / frame.shape[0], len(xs)


@pytest.mark.parametrize(("width_px", "height_px"), [(160, 96), (82, 190), (120, 120)])
def test_motion_camera_and_place_can_be_read_from_the_pixels(width_px: int, height_px: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(120):
        shot = lone_shot(rng)
        (thing,) = shot.objects
        first, middle, last = (
            drawn(frame, thing) for frame in render_frames(shot, width_px, height_px, np.array([0, 0.5, 1]))
        )
        dx, dy, growth = last[0] - first[0], last[1] - first[1], last[2] / first[2]
        moves_as = {
            "moving left": dx < -0.25, "moving right": dx > 0.25,
            "moving up": dy < -0.25, "moving down": dy > 0.25,
            "growing": growth > 2, "shrinking": growth < 0.5,
            "spinning": abs(dx) < 0.05 and abs(dy) < 0.05 and 0.8 < growth < 1.25,
        }  # fmt: skip
        camera = {
            "pan left": dx > 0.25, "pan right": dx < -0.25, "tilt up": dy > 0.25, "tilt down": dy < -0.25,
            "zoom in": growth > 1.5, "zoom out": growth < 0.7,
        }  # fmt: skip
        if shot.camera == "still":
            assert moves_as[thing.motion], (shot, dx, dy, growth)
        else:
            assert thing.motion == "still"
            assert camera[shot.camera], (shot, dx, dy, growth)
        place = {
            "left": middle[0] < 0.4, "right": middle[0] > 0.6,
            "top": middle[1] < 0.4, "bottom": middle[1] > 0.6,
            "centre": abs(middle[0] - 0.5) < 0.1 and abs(middle[1] - 0.5) < 0.1,
        }  # fmt: skip
        assert thing.place is None or place[thing.place], shot


def test_facts_that_the_rules_forbid_are_never_stated() -> None:
    rng = np.random.default_rng(1)
    motions = set()
    for _ in range(2000):
        shot = sample_shot(rng)
        assert not shot.static
        assert shot.camera == "still" or shot.texture in ("striped", "checkered")
        assert (
            len({thing.colour for thing in shot.objects})
            == len({t.shape for t in shot.objects})
            == len(shot.objects)
        )
        for thing in shot.objects:
            motions.add(thing.motion)
            assert thing.colour in contrasting_colours(shot.background)
            assert shot.camera == "still" or thing.motion == "still"
            assert thing.motion not in HORIZONTAL or thing.place in ("top", "bottom", None)
            assert thing.motion not in VERTICAL or thing.place in ("left", "right", None)
    assert motions == set(MOTIONS)


def test_static_shots_freeze_and_blurred_shots_have_soft_edges() -> None:
    rng = np.random.default_rng(2)
    frozen = render_frames(sample_shot(rng, static=True), 96, 96, np.array([0, 0.3, 1]))
    assert (frozen[0] == frozen[2]).all()
    for _ in range(20):
        state = rng.bit_generator.state
        edges = []
        for blurred in (False, True):
            rng.bit_generator.state = state
            frame = render_frames(sample_shot(rng, blurred=blurred), 96, 96, np.array([0.5]))[0].astype(int)
            edges.append(np.abs(np.diff(frame, axis=0)).max())
        assert edges[1] < 0.5 * edges[0]


def test_large_objects_fill_twice_the_side_of_small_ones() -> None:
    rng = np.random.default_rng(3)
    sides: dict[str, list[float]] = {"small": [], "large": []}
    for _ in range(200):
        shot = lone_shot(rng, static=True)
        (thing,) = shot.objects
        area = drawn(render_frames(shot, 120, 120, np.array([0.5]))[0], thing)[2]
        if thing.size and thing.shape == "square":
            sides[thing.size].append(area**0.5)
    assert min(sides["large"]) > 1.5 * max(sides["small"])


def test_every_background_leaves_a_choice_of_colours() -> None:
    assert all(
        len(contrasting_colours(name)) >= 5 and name not in contrasting_colours(name)
        for name in BACKGROUND_RGB
    )
