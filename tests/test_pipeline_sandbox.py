"""The child's failures cost one call each, and the parent never loads a codec."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.engine.stage import Task
from pipeline.errors import ConfigError, FramemillError, MediaError
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import AnalyzeStage


@pytest.fixture
def video(tmp_path: Path) -> Path:
    with Sandbox() as box:
        box.write_video(tmp_path / "a.mp4", np.full((12, 32, 32, 3), 90, np.uint8), 12.0)
    return tmp_path / "a.mp4"


def span(box: Sandbox, video: Path, side: int = 8) -> np.ndarray:
    return box.read_span(video, times_s=[0.5], crop=(0, 0, 32, 32), width_px=side, height_px=side)


def test_a_killed_child_is_one_failed_call(video: Path) -> None:
    with Sandbox() as box:
        span(box, video)
        pid = box.pid
        os.kill(pid, signal.SIGSTOP)  # so that it is surely inside the call when it dies
        threading.Timer(0.2, os.kill, (pid, signal.SIGKILL)).start()
        with pytest.raises(MediaError, match="SIGKILL"):
            span(box, video)
        assert span(box, video).shape == (1, 8, 8, 3)


def test_a_child_ends_with_the_last_that_holds_its_sandbox(video: Path) -> None:
    box = Sandbox()
    span(box, video)
    pid = box.pid
    del box
    assert is_gone(pid)


def test_a_hang_is_cut_off(video: Path) -> None:
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=0.5)) as box:
        pid = box.pid
        os.kill(pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
            span(box, video)
        assert time.monotonic() - started < 5
        assert is_gone(pid)


def test_a_child_that_stops_reading_is_cut_off(tmp_path: Path) -> None:
    frames = np.zeros((40, 256, 256, 3), np.uint8)  # more than a pipe holds
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=0.5)) as box:
        os.kill(box.pid, signal.SIGSTOP)
        with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
            box.write_video(tmp_path / "b.mp4", frames, 12.0)


def is_gone(pid: int) -> bool:
    """Whether the process has ended and was waited for."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_too_much_memory_is_refused(video: Path) -> None:
    with Sandbox(replace(DEFAULT_LIMITS, memory_gb=1.0)) as box:
        with pytest.raises(MediaError, match=r"memory|allocate"):
            span(box, video, side=16000)
        assert span(box, video).shape == (1, 8, 8, 3)


def test_too_many_frames_are_refused(video: Path) -> None:
    with Sandbox(replace(DEFAULT_LIMITS, max_frames=12)) as box:
        assert box.analyze(video, AnalyzeConfig()).source["frames"] == 12
        assert len(box.thumbnails(video, width_px=8, height_px=8)) == 12
    with Sandbox(replace(DEFAULT_LIMITS, max_frames=11)) as box:
        with pytest.raises(MediaError, match="more than 11 frames"):
            box.analyze(video, AnalyzeConfig())
        with pytest.raises(MediaError, match="more than 11 frames"):
            box.thumbnails(video, width_px=8, height_px=8)


@pytest.mark.parametrize("name", ["still.png", "a.mp4"])
def test_every_call_has_the_limits_of_its_sandbox(video: Path, name: str) -> None:
    Image.new("RGB", (32, 32), (90, 90, 90)).save(video.with_name("still.png"))
    path, kind = video.with_name(name), "video" if name == "a.mp4" else "image"
    whole = {"kind": kind, "times_s": [0.0], "crop": (0, 0, 32, 32)}
    calls = (
        lambda box: box.analyze(path, AnalyzeConfig()),
        lambda box: box.read_span(path, width_px=8, height_px=8, **whole),
        lambda box: box.read_strip(path, config=AnalyzeConfig(), **whole),
        lambda box: box.thumbnails(path, width_px=8, height_px=8),
    )
    with (
        Sandbox(replace(DEFAULT_LIMITS, max_pixels=32 * 32)) as enough,
        Sandbox(replace(DEFAULT_LIMITS, max_pixels=32 * 32 - 1)) as less,
    ):
        for call in calls:
            call(enough)
            with pytest.raises(MediaError, match="too many pixels"):
                call(less)


@pytest.mark.parametrize("name", ["max_pixels", "max_frames", "deadline_s", "memory_gb"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"analyze.{name}"):
        replace(DEFAULT_LIMITS, **{name: 0})


def test_a_source_past_its_deadline_fails_and_the_next_goes_on(video: Path, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(video.read_bytes() + bytes(8))
    stage = AnalyzeStage(AnalyzeConfig(deadline_s=3.0))
    stage.setup()
    assert stage._box is not None
    os.kill(stage._box.pid, signal.SIGSTOP)  # the first file hangs
    result = stage.process(Task(key="k", inputs=discover([str(tmp_path)]).inputs))
    rows = pq.read_table(pa.BufferReader(result.outputs[-1].data)).to_pylist()
    stage._box.close()
    assert [(row["status"], row["reason"]) for row in rows] == [
        ("failed", "decoding took longer than 3 s"),
        ("ok", None),
    ]


def test_a_child_that_cannot_start_is_no_fault_of_the_file(
    video: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with Sandbox() as box, pytest.raises(FramemillError, match="does not start") as error:
        span(box, video)
    assert not isinstance(error.value, MediaError)  # it would cost every file one failed row


def test_the_parent_loads_no_codec_and_the_child_ends_with_it() -> None:
    code = (
        "import sys\nfrom pipeline.sandbox.sandbox import Sandbox\nbox = Sandbox()\n"
        "print(box.pid, 'av' in sys.modules, flush=True)\nimport os\nos._exit(0)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    pid, loaded = run.stdout.split()
    assert loaded == "False"
    deadline = time.monotonic() + 10
    while (
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
    ):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.1)
