"""The stage: its parts fit the schemas, add up, and are the same bytes every time."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.engine.stage import Task, TaskResult
from pipeline.progress import silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import AnalyzeStage, analyze_corpus


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shots with bars in a video, its copy, a still, and a file that is no video."""
    root = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    pictures = [np.kron(rng.integers(60, 255, (6, 12, 3)), np.ones((8, 8, 1))) for _ in range(2)]
    frames = np.zeros((40, 64, 96, 3), np.uint8)
    for t in range(40):
        frames[t, 8:56] = np.roll(pictures[t >= 24], t, axis=1)
    with Sandbox() as box:
        box.write_video(root / "a.mp4", frames, 20.0)
    (root / "copy.mp4").write_bytes((root / "a.mp4").read_bytes())
    Image.fromarray(frames[0]).save(root / "still.png")
    (root / "text.mp4").write_text("this is no video")
    return root


def analyze(folder: Path) -> TaskResult:
    stage = pickle.loads(pickle.dumps(AnalyzeStage(AnalyzeConfig())))
    stage.setup()
    return stage.process(Task(key="k", inputs=discover([str(folder)]).inputs))


def test_parts_fit_their_schemas_and_the_done_marker_is_last(folder: Path) -> None:
    result = analyze(folder)
    assert [o.path for o in result.outputs] == ["strips/k.parquet", "clips/k.parquet", "sources/k.parquet"]
    strips, clips, sources = (
        tables.from_parquet(o.data, schema).to_pylist()
        for o, schema in zip(result.outputs, (tables.STRIPS, tables.CLIPS, tables.SOURCES), strict=True)
    )
    assert [s["status"] for s in sources] == ["ok", "ok", "ok", "failed"]
    assert sources[3]["reason"].startswith("not a video")
    assert sources[0]["source_id"] == sources[1]["source_id"]
    assert result.counts == {"ok": 3, "salvaged": 0, "failed": 1, "clips": 3}
    assert [c["clip_id"] for c in clips] == [s["clip_id"] for s in strips]
    video = [c for c in clips if c["kind"] == "video"]
    assert [(c["start_frame"], c["end_frame"], c["start_s"], c["end_s"]) for c in video] == [
        (0, 24, 0.0, 1.2),
        (24, 40, 1.2, 2.0),
    ]
    assert [c["clip_id"].removeprefix(c["source_id"]) for c in video] == ["-0-1200", "-1200-2000"]
    assert all(abs(a - b) <= 1 for c in video for a, b in zip(c["crop"], [0, 8, 96, 48], strict=True))


def test_filmstrips_show_the_active_picture_inside_the_clip(folder: Path) -> None:
    with Sandbox() as box:
        found = box.analyze(folder / "a.mp4", AnalyzeConfig())
    for clip, strip in zip(found.clips, found.strips, strict=True):
        assert clip["start_s"] == strip["times_s"][0]
        assert clip["start_s"] <= min(strip["times_s"])
        assert max(strip["times_s"]) < clip["end_s"]
        assert 6 <= len(strip["times_s"]) == len(strip["frames"]) == len(clip["phash"]) <= 8
        assert strip["times_s"] == sorted(strip["times_s"])


def test_the_same_input_gives_the_same_bytes(folder: Path) -> None:
    first, second = analyze(folder), analyze(folder)
    assert [o.data for o in first.outputs] == [o.data for o in second.outputs]


def test_a_longer_deadline_makes_no_part_stale(folder: Path, tmp_path: Path) -> None:
    corpus, inputs = Corpus(str(tmp_path)), discover([str(folder)]).inputs

    def tasks(config: AnalyzeConfig) -> int:
        run = analyze_corpus(corpus, inputs, Config(analyze=config), LocalExecutor(), silent)
        return run.tasks

    assert tasks(AnalyzeConfig()) > 0
    assert tasks(AnalyzeConfig(deadline_s=900.0, sources_per_task=1, memory_gb=3.0)) == 0
    assert tasks(AnalyzeConfig(strip_frames=4)) > 0
