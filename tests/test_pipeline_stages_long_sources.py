"""A long source in pieces gives the rows of one pass; whatever could make them differ is decoded in one."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.engine.stage import Failure, Task
from pipeline.errors import MediaError
from pipeline.onepass.candidates import LOOK_BACK_S, Chooser
from pipeline.progress import silent
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.shots.descriptor import DIMENSIONS
from pipeline.sources.content import content_id
from pipeline.sources.discover import discover
from pipeline.stages.analyze import AnalyzeStage, analyze_corpus
from pipeline.stages.long_sources import join_pieces, make_pieces

SECOND = replace(AnalyzeConfig(), segment_s=5.0, segment_min_mb=0.0)


@pytest.fixture(scope="module")
def box():
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=60.0)) as sandbox:
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


def test_pieces_join_to_the_rows_of_one_pass(box: Sandbox, long_file: Path) -> None:
    pieces = box.count_pieces(long_file, SECOND)
    packed = [box.watch_piece(long_file, SECOND, k, pieces) for k in range(pieces)]
    assert pieces == 5
    assert box.join_pieces(long_file, SECOND, list(map(len, packed)), packed) == box.analyze(
        long_file, SECOND
    )


def test_pieces_that_do_not_fit_are_refused(box: Sandbox, long_file: Path) -> None:
    pieces = box.count_pieces(long_file, SECOND)
    packed = [box.watch_piece(long_file, SECOND, k, pieces) for k in range(pieces)]
    with pytest.raises(MediaError, match="other frames"):
        box.join_pieces(
            long_file,
            SECOND,
            [len(p) for p in packed if p is not packed[1]],
            [packed[0], packed[2], *packed[3:]],
        )
    with pytest.raises(MediaError, match="shorter"):
        box.watch_piece(long_file, SECOND, pieces + 1, pieces + 3)


def analyzed(folder: Path, out: Path, config: AnalyzeConfig) -> Corpus:
    corpus = Corpus(str(out))
    inputs = discover([str(folder)]).inputs
    summary = analyze_corpus(corpus, inputs, Config(analyze=config), LocalExecutor(), silent)
    assert not summary.lost
    return corpus


def test_a_run_in_pieces_leaves_the_same_corpus(long_file: Path, tmp_path: Path) -> None:
    whole = analyzed(long_file.parent, tmp_path / "a", replace(SECOND, segment_s=0.0))
    cut = analyzed(long_file.parent, tmp_path / "b", SECOND)
    assert cut.fingerprints() == whole.fingerprints()
    for name in ("sources", "clips", "strips"):
        assert getattr(cut, name)().equals(getattr(whole, name)()), name
    assert cut.storage.list("segments") == []


@pytest.mark.parametrize("trusted", [True, False])
def test_the_stage_joins_pieces_and_does_without_those_it_cannot_trust(
    box: Sandbox, long_file: Path, tmp_path: Path, trusted: bool
) -> None:
    corpus, inputs = Corpus(str(tmp_path)), discover([str(long_file.parent)]).inputs
    paths = make_pieces(corpus, [inputs], SECOND, "key", LocalExecutor(), lambda *_: None)
    ((source_key, of_source),) = paths.items()
    content = content_id(long_file)
    assert (len(of_source.paths), of_source.source_id) == (5, content)
    assert isinstance(join_pieces(corpus.storage, of_source, long_file, "f" * 16, SECOND, box), Failure)
    if not trusted:
        corpus.storage.write_bytes(of_source.paths[1], b"")
    joined = join_pieces(corpus.storage, of_source, long_file, content, SECOND, box)
    assert isinstance(joined, Failure) != trusted
    by_pieces, at_once = (
        AnalyzeStage(SECOND, root=str(tmp_path), pieces=pieces) for pieces in ({source_key: of_source}, {})
    )
    for stage in (by_pieces, at_once):
        stage.setup()
    assert by_pieces.process(Task(key="k", inputs=inputs)) == at_once.process(Task(key="k", inputs=inputs))


REAL = ["clips/bbb30s_720p.webm", "clips/cockatoo_720p.mp4", "montages/m02_dissolve_640x360_24.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_files_in_pieces_give_the_rows_of_one_pass(box: Sandbox, media_dir: Path, name: str) -> None:
    pieces = box.count_pieces(media_dir / name, SECOND)
    packed = [box.watch_piece(media_dir / name, SECOND, k, pieces) for k in range(pieces)]
    assert pieces > 2
    assert box.join_pieces(media_dir / name, SECOND, list(map(len, packed)), packed) == box.analyze(
        media_dir / name, SECOND
    )


def test_both_sides_of_a_gap_are_candidates_in_whichever_batch_they_fall() -> None:
    grids = np.full((60, DIMENSIONS), 90, np.uint8)  # a still picture: nothing else makes a candidate here
    for batch in (7, 30, 60):
        chooser, candidates = Chooser(), set()
        for at in range(0, 60, batch):
            times_s = (np.arange(at, min(at + batch, 60)) / 25).tolist()
            candidates |= set(chooser.choose(times_s, grids[at : at + batch], [30]))
        assert {29, 30} <= candidates
        assert 28 not in candidates


def test_candidates_depend_on_what_lies_just_before_them_only() -> None:
    rng = np.random.default_rng(1)
    levels = np.repeat(rng.integers(0, 255, 40), rng.integers(5, 60, 40))
    grids = np.clip(levels[:, None] + rng.integers(-9, 9, (len(levels), DIMENSIONS)), 0, 255).astype(np.uint8)
    times_s = np.arange(len(grids)) / 25

    def chosen(start: int, batch: int) -> dict[int, bool]:
        chooser, candidates = Chooser(opens=start == 0), {}
        for at in range(start, len(grids), batch):
            part = slice(at, min(at + batch, len(grids)))
            for frame, close in chooser.choose(times_s[part].tolist(), grids[part], []).items():
                candidates.setdefault(start + frame, close)
        return candidates

    whole = chosen(0, 8)
    assert chosen(0, 1) == chosen(0, 100) == whole
    late = 300 + round(LOOK_BACK_S * 25) + 1
    assert {k: v for k, v in chosen(300, 7).items() if k >= late} == {
        k: v for k, v in whole.items() if k >= late
    }
