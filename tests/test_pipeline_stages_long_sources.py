"""A long source in parts gives the rows of one pass; whatever could make them differ is decoded in one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import MediaError
from pipeline.onepass.candidates import LOOK_BACK_S, Chooser
from pipeline.progress import silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.shots.descriptor import DIMENSIONS
from pipeline.sources.discover import discover
from pipeline.stages import long_sources as segments
from pipeline.stages.analyze import analyze_corpus

SECOND = replace(AnalyzeConfig(), segment_s=5.0, segment_min_mb=0.0)


@pytest.fixture(scope="module")
def box():
    with Sandbox(deadline_s=60.0) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 s at 25 fps: six shots, one of them begins with a slow change, over several keyframes."""
    rng = np.random.default_rng(3)
    pictures = [np.kron(rng.integers(30, 255, (6, 8, 3)), np.ones((8, 8, 1))) for _ in range(6)]
    frames = np.zeros((600, 48, 64, 3), np.uint8)
    for t in range(600):
        shot, inside = divmod(t, 100)
        picture = pictures[shot]
        if shot == 3 and inside < 20:
            picture = pictures[2] + (picture - pictures[2]) * (inside / 20)
        frames[t] = np.roll(picture, t // 4, axis=1)
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    with Sandbox() as sandbox:
        sandbox.write_video(path, frames, 25.0)
    return path


def test_parts_join_to_the_rows_of_one_pass(box: Sandbox, long_file: Path) -> None:
    parts = box.count_parts(long_file, SECOND)
    packed = [box.watch_part(long_file, SECOND, k, parts) for k in range(parts)]
    assert parts == 5
    assert box.join_parts(long_file, SECOND, list(map(len, packed)), packed) == box.analyze(long_file, SECOND)


def test_parts_that_do_not_fit_are_refused(box: Sandbox, long_file: Path) -> None:
    parts = box.count_parts(long_file, SECOND)
    packed = [box.watch_part(long_file, SECOND, k, parts) for k in range(parts)]
    with pytest.raises(MediaError, match="other frames"):
        box.join_parts(
            long_file,
            SECOND,
            [len(p) for p in packed if p is not packed[1]],
            [packed[0], packed[2], *packed[3:]],
        )
    with pytest.raises(MediaError, match="shorter"):
        box.watch_part(long_file, SECOND, parts + 1, parts + 3)


def analyzed(folder: Path, out: Path, config: AnalyzeConfig) -> Corpus:
    corpus = Corpus(str(out))
    inputs = discover([str(folder)]).inputs
    summary = analyze_corpus(corpus, inputs, Config(analyze=config), LocalExecutor(), silent)
    assert not summary.lost
    return corpus


@pytest.mark.parametrize("trusted", [True, False])
def test_a_run_in_parts_leaves_the_same_corpus(
    long_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    whole = analyzed(long_file.parent, tmp_path / "a", replace(SECOND, segment_s=0.0))
    joins: list[object] = []
    join = segments.join_segments

    def spy(storage, paths, *rest):  # type: ignore[no-untyped-def]
        if not trusted:
            storage.write_bytes(paths[1], b"")
        joins.append(join(storage, paths, *rest))
        return joins[-1]

    monkeypatch.setattr("pipeline.stages.analyze.join_segments", spy)
    cut = analyzed(long_file.parent, tmp_path / "b", SECOND)
    assert len(joins) == 1
    assert hasattr(joins[0], "clips") == trusted
    assert cut.fingerprints() == whole.fingerprints()
    for name in ("sources", "clips", "strips"):
        assert getattr(cut, name)().equals(getattr(whole, name)()), name
    assert cut.storage.list("segments") == []


REAL = ["clips/bbb30s_720p.webm", "clips/cockatoo_720p.mp4", "montages/m02_dissolve_640x360_24.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files_in_parts_give_the_rows_of_one_pass(box: Sandbox, media_dir: Path, name: str) -> None:
    parts = box.count_parts(media_dir / name, SECOND)
    packed = [box.watch_part(media_dir / name, SECOND, k, parts) for k in range(parts)]
    assert parts > 2
    assert box.join_parts(media_dir / name, SECOND, list(map(len, packed)), packed) == box.analyze(
        media_dir / name, SECOND
    )


def test_candidates_depend_on_what_lies_just_before_them_only() -> None:
    rng = np.random.default_rng(1)
    levels = np.repeat(rng.integers(0, 255, 40), rng.integers(5, 60, 40))
    grids = np.clip(levels[:, None] + rng.integers(-9, 9, (len(levels), DIMENSIONS)), 0, 255).astype(np.uint8)
    times_s = np.arange(len(grids)) / 25

    def chosen(start: int, batch: int) -> dict[int, bool]:
        chooser, found = Chooser(opens=start == 0), {}
        for at in range(start, len(grids), batch):
            part = slice(at, min(at + batch, len(grids)))
            for k, close in chooser.choose(times_s[part].tolist(), grids[part], []).items():
                found.setdefault(at + k, close)
        return found

    whole = chosen(0, 8)
    assert chosen(0, 1) == chosen(0, 100) == whole
    late = 300 + round(LOOK_BACK_S * 25) + 1
    assert {k: v for k, v in chosen(300, 7).items() if k >= late} == {
        k: v for k, v in whole.items() if k >= late
    }
