"""The child's failures cost one call each, and the parent never loads a codec."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.engine.stage import Task
from pipeline.errors import FramemillError, MediaError
from pipeline.sandbox.sandbox import Sandbox
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
        child = box._running()
        os.kill(child.pid, signal.SIGSTOP)  # so that it is surely inside the call when it dies
        threading.Timer(0.2, child.kill).start()
        with pytest.raises(MediaError, match="SIGKILL"):
            span(box, video)
        assert span(box, video).shape == (1, 8, 8, 3)


def test_a_child_ends_with_the_last_that_holds_its_sandbox(video: Path) -> None:
    box = Sandbox()
    span(box, video)
    child = box._running()
    del box
    assert child.returncode == -signal.SIGKILL


def test_a_hang_is_cut_off(video: Path) -> None:
    with Sandbox(deadline_s=0.5) as box:
        child = box._running()
        os.kill(child.pid, signal.SIGSTOP)
        started = time.monotonic()
        with pytest.raises(MediaError, match=r"longer than 0\.5 s"):
            span(box, video)
        assert time.monotonic() - started < 5
        assert child.returncode is not None


def test_too_much_memory_is_refused(video: Path) -> None:
    with Sandbox(memory_gb=1.0) as box:
        with pytest.raises(MediaError, match=r"memory|allocate"):
            span(box, video, side=16000)
        assert span(box, video).shape == (1, 8, 8, 3)


def test_too_many_frames_are_refused(video: Path) -> None:
    with Sandbox() as box:
        assert box.analyze(video, AnalyzeConfig(max_frames=12)).source["frames"] == 12
        with pytest.raises(MediaError, match="more than 11 frames"):
            box.analyze(video, AnalyzeConfig(max_frames=11))


def test_a_source_past_its_deadline_fails_and_the_next_goes_on(video: Path, tmp_path: Path) -> None:
    (tmp_path / "b.mp4").write_bytes(video.read_bytes() + bytes(8))
    stage = AnalyzeStage(AnalyzeConfig(deadline_s=3.0))
    stage.setup()
    assert stage._box is not None
    os.kill(stage._box._running().pid, signal.SIGSTOP)  # the first file hangs
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
        "print(box._running().pid, 'av' in sys.modules, flush=True)\nimport os\nos._exit(0)"
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
