"""Many stills a message: each has the rows that it has alone, and what goes wrong costs one file."""

import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.corpus import tables
from pipeline.engine.stage import Task
from pipeline.errors import MediaError
from pipeline.sandbox.confine import has_landlock
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.sources.content import read_content
from pipeline.sources.discover import discover
from pipeline.stages.analyze import AnalyzeStage
from pipeline.stages.small_stills import RUN_BYTES, RUN_FILES, SMALL_BYTES, is_small_still, runs

RNG = np.random.default_rng(0)


def save(path: Path, width: int = 96, height: int = 72) -> None:
    cells = Image.fromarray(RNG.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    cells.resize((width, height), Image.Resampling.BICUBIC).save(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stills; among them a video, a broken still, a video with a still's name, and a large still."""
    root = tmp_path_factory.mktemp("mixed")
    with Sandbox() as box:
        box.write_video(root / "d.mp4", np.full((12, 32, 32, 3), 90, np.uint8), 12.0)
    (root / "f.jpg").write_bytes((root / "d.mp4").read_bytes())
    for name in ("a.jpg", "b.png", "c.webp", "e.jpg", "g.png", "h.jpg"):
        save(root / name)
    (root / "c2.jpg").write_bytes((root / "a.jpg").read_bytes()[:300])
    (root / "i.jpg").write_bytes((root / "a.jpg").read_bytes())  # equal content
    Image.fromarray(RNG.integers(0, 256, (700, 900, 3), dtype=np.uint8)).save(root / "j.png")
    (root / "k.jpg").write_bytes(b"")
    assert (root / "j.png").stat().st_size > SMALL_BYTES
    return root


def analyzed(folder: Path, stage: AnalyzeStage, *, each_alone: bool = False) -> list[list[dict[str, Any]]]:
    """Rows of sources, clips and strips."""
    inputs = discover([str(folder)]).inputs
    one_by_one = [inputs.slice(k, 1) for k in range(inputs.num_rows)]
    results = [stage.process(Task(key="k", inputs=rows)) for rows in (one_by_one if each_alone else [inputs])]
    names = zip(("strips", "clips", "sources"), (tables.STRIPS, tables.CLIPS, tables.SOURCES), strict=True)
    return [
        [row for r in results for row in tables.from_parquet(r.outputs[at].data, schema).to_pylist()]
        for at, (_, schema) in enumerate(names)
    ]


@pytest.fixture(scope="module")
def alone(folder: Path) -> list[list[dict[str, Any]]]:
    strips, clips, sources = analyzed(folder, set_up(), each_alone=True)
    seen: set[str] = set()
    fresh = [not (c["clip_id"] in seen or seen.add(c["clip_id"])) for c in clips]  # type: ignore[func-returns-value]
    return [[row for row, first in zip(rows, fresh, strict=True) if first] for rows in (strips, clips)] + [
        sources
    ]


CONFIG = AnalyzeConfig()


def set_up(config: AnalyzeConfig = CONFIG, taken_down: frozenset[str] = frozenset()) -> AnalyzeStage:
    stage = AnalyzeStage(config, taken_down)
    stage.setup()
    return stage


def test_a_task_of_many_has_the_rows_of_tasks_of_one(folder: Path, alone: list[Any]) -> None:
    assert analyzed(folder, set_up()) == alone
    status = {Path(row["uri"]).name: (row["kind"], row["status"]) for row in alone[2]}
    assert status["f.jpg"] == ("video", "ok")  # by content
    assert status["c2.jpg"] == status["k.jpg"] == (None, "failed")
    assert sum(row == ("image", "ok") for row in status.values()) == 8


@pytest.mark.parametrize("end", [signal.SIGKILL, None])
def test_a_child_that_dies_or_stops_among_many_costs_none_of_them(
    folder: Path, alone: list[Any], end: signal.Signals | None
) -> None:
    stage = set_up(AnalyzeConfig(deadline_s=2.0))
    assert stage._box is not None
    pid = stage._box.pid
    os.kill(pid, signal.SIGSTOP)  # inside the first call, which is of many
    if end:
        threading.Timer(0.3, os.kill, (pid, end)).start()
    assert analyzed(folder, stage) == alone


def test_a_still_that_needs_too_much_memory_costs_itself(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    Image.new("RGB", (14_000, 14_000)).save(tmp_path / "b.png")  # 0.6 GB of pixels
    save(tmp_path / "c.png")
    assert (tmp_path / "b.png").stat().st_size < SMALL_BYTES
    _, _, sources = analyzed(tmp_path, set_up(AnalyzeConfig(memory_gb=1.0, max_pixels=10**9)))
    assert [row["status"] for row in sources] == ["ok", "failed", "ok"]
    assert "memory" in sources[1]["reason"] or "allocate" in sources[1]["reason"]


def test_stills_that_were_taken_down_are_not_sent(folder: Path, alone: list[Any]) -> None:
    gone = next(row["source_id"] for row in alone[2] if row["uri"].endswith("/a.jpg"))
    _, clips, sources = analyzed(folder, set_up(taken_down=frozenset({gone})))
    assert {Path(r["uri"]).name for r in sources if r["status"] == "taken down"} == {"a.jpg", "i.jpg"}
    assert gone not in {clip["source_id"] for clip in clips}


def test_the_rows_that_killed_a_worker_are_not_sent(folder: Path) -> None:
    inputs = discover([str(folder)]).inputs
    result = set_up().process(Task(key="k", inputs=inputs, poisoned=frozenset({0, 1})))
    sources = tables.from_parquet(result.outputs[-1].data, tables.SOURCES).to_pylist()
    killed = [row["reason"] == "killed its worker" for row in sources]
    assert killed == [True, True, *[False] * (inputs.num_rows - 2)]


def test_one_message_is_one_call(folder: Path) -> None:
    files = [(folder / name).read_bytes() for name in ("a.jpg", "c2.jpg", "g.png")]
    with Sandbox() as box:
        answers = box.analyze_stills(files, AnalyzeConfig())
        assert [answer is None for answer in answers] == [False, True, False]
        assert answers[0] == box.analyze(folder / "a.jpg", AnalyzeConfig())
        os.kill(box.pid, signal.SIGSTOP)
        threading.Timer(0.2, os.kill, (box.pid, signal.SIGKILL)).start()
        with pytest.raises(MediaError, match="SIGKILL"):
            box.analyze_stills(files, AnalyzeConfig())
    with Sandbox(replace(DEFAULT_LIMITS, max_pixels=96 * 72 - 1)) as box:
        assert box.analyze_stills(files, AnalyzeConfig()) == [None] * 3  # limits are the sandbox's


def test_runs_keep_the_order_and_their_bounds() -> None:
    sizes = RNG.integers(1, 2 * SMALL_BYTES, 3000)
    sizes[1000:2000] = 10
    sizes[2000:] %= SMALL_BYTES
    rows = [
        {"size_bytes": int(n), "uri": f"{i}.{'mp4' if i % 50 == 0 and i < 1000 else 'JPG'}"}
        for i, n in enumerate(sizes)
    ]
    cut = list(runs(rows, is_small_still))
    assert [row for run in cut for row in run] == rows
    for run in cut:
        assert len(run) == 1 or all(is_small_still(row) for row in run)
        assert len(run) <= RUN_FILES
        assert sum(row["size_bytes"] for row in run) <= max(RUN_BYTES, run[0]["size_bytes"])
    assert max(map(len, cut)) == RUN_FILES
    assert any(sum(row["size_bytes"] for row in run) > RUN_BYTES - SMALL_BYTES for run in cut)
    assert not is_small_still({"size_bytes": 0, "uri": "empty.jpg"})


def test_contents_are_read_in_one_version_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "a.jpg"
    save(file)
    data = file.read_bytes()
    content = read_content(str(file), 1 << 20)
    assert content is not None
    assert content[0] == data
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(file, "inside.jpg")
    assert read_content(f"{tmp_path}/x.tar#inside.jpg", 1 << 20) == content
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    for unread in ("none.jpg", "pipe.jpg", "folder.jpg", "x.tar#none.jpg", "y.tar#a.jpg"):
        assert read_content(str(tmp_path / unread), 1 << 20) is None
    assert read_content(str(file), len(data) - 1) is None
    assert read_content(f"{tmp_path}/x.tar#inside.jpg", len(data) - 1) is None


def was_there(content: bytes) -> bool:
    """Whether the file was this at one moment: some pieces of a version, then the rest of the one before. A
    writer that is held up between two pieces leaves it so for as long as that takes."""
    pieces = [set(content[at : at + 10_000]) for at in range(0, len(content), 10_000)]
    if any(len(piece) > 1 for piece in pieces):
        return False
    digits = [int(chr(next(iter(piece)))) for piece in pieces]
    new = digits.count(digits[0])
    return digits == [digits[0]] * new + [(digits[0] - 1) % 10] * (len(digits) - new)


def test_a_file_that_is_written_to_is_not_read_in_pieces(tmp_path: Path) -> None:
    """Some reads fall between two writes; what comes of them is a version that was there, whole."""
    file = tmp_path / "a.jpg"
    file.write_bytes(b"0" * 100_000)
    stop = threading.Event()

    def write() -> None:
        for number in range(10_000):
            if stop.is_set():
                return
            with file.open("r+b") as stream:  # in place, a piece at a time
                for _ in range(10):
                    stream.write(str(number % 10).encode() * 10_000)
                    stream.flush()
            time.sleep(0.001)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        contents = [read_content(str(file), 1 << 20) for _ in range(300)]
    finally:
        stop.set()
        thread.join()
    assert all(was_there(content[0]) for content in contents if content)


@pytest.mark.skipif(not has_landlock(), reason="the kernel has no Landlock")
def test_where_the_bytes_are_sent_no_file_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    code = (
        "from pipeline.sandbox import confine\nassert confine.read_only()\nimport wave\n"
        f"try: open('{tmp_path}/mine')\nexcept PermissionError: print('refused')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["refused"]


def test_unread_inputs_keep_their_reasons(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        save(tmp_path / name)
    inputs = discover([str(tmp_path)]).inputs
    (tmp_path / "b.jpg").unlink()
    result = set_up().process(Task(key="k", inputs=inputs))
    sources = tables.from_parquet(result.outputs[-1].data, tables.SOURCES).to_pylist()
    assert [row["reason"] for row in sources] == [None, "no such file", None]
