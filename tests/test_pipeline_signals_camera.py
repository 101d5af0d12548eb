"""What the camera does, on pictures whose motion is known."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.sandbox.sandbox import Sandbox
from pipeline.signals import camera
from pipeline.signals.flow import MOTION, Follower, motion
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

RNG = np.random.default_rng(3)
NOISE = np.asarray(
    Image.fromarray(RNG.integers(0, 255, (40, 60), np.uint8)).resize((480, 320), 3)
)  # [320, 480]


def view(right: float = 0, down: float = 0, scale: float = 1, turn: float = 0) -> np.ndarray:
    """uint8 [90, 160] of NOISE, with its content moved, grown and turned clockwise (radians)."""
    c, s = np.cos(turn) / scale, np.sin(turn) / scale
    x0, y0 = 240 - (80 + right) * c - (45 + down) * s, 160 + (80 + right) * s - (45 + down) * c
    matrix = (c, s, x0, -s, c, y0)  # of PIL: from the view to the picture
    image = Image.fromarray(NOISE).transform(
        (160, 90), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.asarray(image)


def follow(planes: list[np.ndarray], fps: float = 12.0) -> tuple[np.ndarray, np.ndarray]:
    times_s, rows, follower = np.arange(len(planes)) / fps, np.zeros(len(planes), MOTION), Follower()
    follower.follow(times_s, np.stack(planes))
    follower.fill(rows)
    return rows, times_s


def seen(planes: list[np.ndarray]) -> tuple[str | None, dict[str, float | None]]:
    amounts = camera.path(*follow(planes))
    return camera.kind(amounts), amounts


@pytest.mark.parametrize("step_px", [0.1, 0.3, 1.0, 3.0, 12.0])
def test_a_shift_is_measured_from_a_tenth_of_a_pixel_to_a_whip_pan(step_px: float) -> None:
    fine = Image.fromarray(NOISE).resize((4800, 3200), Image.Resampling.BICUBIC)
    planes = []
    for right, down in ((0, 0), (round(10 * step_px), -round(5 * step_px))):
        part = fine.crop((1600 - right, 900 - down, 3200 - right, 1800 - down))
        planes.append(np.asarray(part.resize((160, 90), Image.Resampling.BOX)))
    row = motion(np.stack(planes))[0]
    assert row["dx"] == pytest.approx(step_px / 160, rel=0.1)
    assert row["dy"] == pytest.approx(-round(5 * step_px) / 1600, rel=0.15, abs=2e-5)
    assert row["moved"] == pytest.approx(np.hypot(row["dx"], row["dy"]), rel=0.3)
    assert row["agree"] > 0.5


def test_growth_and_turn_are_measured_together() -> None:
    row = motion(np.stack([view(), view(scale=1.02, turn=0.015)]))[0]
    assert row["zoom"] == pytest.approx(np.log(1.02), rel=0.15)
    assert row["roll"] == pytest.approx(0.015, rel=0.15)
    assert abs(row["dx"]) < 0.001


MOVES = {
    "pan_right": {"right": -1.2},
    "pan_left": {"right": 1.2},
    "tilt_up": {"down": 1.0},
    "tilt_down": {"down": -1.0},
    "zoom_in": {"scale": 1.015},
    "zoom_out": {"scale": 1 / 1.015},
    "roll_right": {"turn": 0.012},
    "roll_left": {"turn": -0.012},
    "static": {},
}


@pytest.mark.parametrize("kind", MOVES)
def test_each_kind_is_named(kind: str) -> None:
    step = MOVES[kind]
    at = [{k: v**t if k == "scale" else v * t for k, v in step.items()} for t in range(20)]
    assert seen([view(**moves) for moves in at])[0] == kind


def test_shake_is_motion_to_and_fro() -> None:
    found, amounts = seen([view(*RNG.normal(0, 1.5, 2)) for _ in range(24)])
    assert found == "shake"
    assert amounts["shake"] > 5 * abs(amounts["pan"])


def test_an_object_that_moves_is_no_camera_that_moves() -> None:
    planes = []
    for t in range(16):
        plane = view().copy()
        plane[30:60, 10 + 4 * t : 50 + 4 * t] = view(right=4 * t)[30:60, 10 + 4 * t : 50 + 4 * t] // 2
        planes.append(plane)
    found, amounts = seen(planes)
    assert found == "static"
    assert amounts["camera_motion"] == 0


def test_rows_do_not_depend_on_where_a_pass_begins() -> None:
    planes, times_s = np.stack([view(right=t) for t in range(60)]), np.arange(60) / 25
    whole, later = np.zeros(60, MOTION), np.zeros(50, MOTION)
    for rows, start in ((whole, 0), (later, 10)):
        follower = Follower()
        for i in range(start, 60, 7):
            follower.follow(times_s[i : i + 7], planes[i : i + 7])
        follower.fill(rows)
    assert (whole[15:] == later[5:]).all()


def test_kinds_of_a_toy_world(tmp_path: Path) -> None:
    render_corpus(tmp_path, ToyWorldConfig(videos=12, images=0, seed=4711))
    right = total = 0
    with Sandbox() as box:
        for row in map(json.loads, (tmp_path / "truth.jsonl").read_text().splitlines()):
            clips = box.analyze(tmp_path / row["file"], AnalyzeConfig()).clips
            for shot in row["shots"]:
                middle = (shot["start_frame"] + shot["end_frame"]) // 2
                found = next(
                    (c["camera"] for c in clips if c["start_frame"] <= middle < c["end_frame"]), None
                )
                said = next(f["value"] for f in shot["facts"] if f["kind"] == "camera")
                total += 1
                right += found == said.replace("still", "static").replace(" ", "_")
    assert right >= 0.95 * total, (right, total)
