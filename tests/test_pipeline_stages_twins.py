"""Sources whose content was analyzed before are not decoded again, whatever their names and times are now."""

import os
import shutil
import tarfile
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from corpora_in_parts import build, contents, write
from PIL import Image
from s3_server import BUCKET

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.compaction import Edit, unique_sorted
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from pipeline.corpus.garbage import collect
from pipeline.corpus.takedown import take_down
from pipeline.engine.runner import Beat, LocalExecutor, Receipt, RunSummary
from pipeline.engine.stage import Stage, Task
from pipeline.progress import silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import KNOWN, analyze_corpus
from pipeline.stages.twins import TWIN, twin_id, with_twins
from pipeline.storage import Storage

CONFIG = AnalyzeConfig(sources_per_task=3, segment_s=0.0)
NO_TIME = replace(CONFIG, deadline_s=1e-6)  # of the same fingerprint, and whatever is decoded fails
IN_PIECES = replace(CONFIG, segment_s=2.0, segment_min_mb=0.0)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video in one piece and one in three, stills of which some are of one size, a file that is neither."""
    root = tmp_path_factory.mktemp("made")
    with Sandbox() as box:
        for name, count in (("long.mp4", 140), ("short.mp4", 30)):
            frames = RNG.integers(0, 255, (count, 3, 4, 3), dtype=np.uint8).repeat(16, 1).repeat(16, 2)
            box.write_video(root / name, frames, 20.0)
    for number in range(5):
        Image.fromarray(RNG.integers(0, 255, (40, 60, 3), dtype=np.uint8)).save(root / f"{number}.bmp")
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(root / "z.png")
    (root / "text.mp4").write_text("this is no video")
    return root


@pytest.fixture
def raw(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "raw"))


def analyzed(root: Path, raw: Path, config: AnalyzeConfig = CONFIG) -> tuple[Corpus, RunSummary]:
    corpus, inputs = Corpus(str(root)), discover([str(raw)]).inputs
    return corpus, analyze_corpus(corpus, inputs, Config(analyze=config), LocalExecutor(), silent)


def touch(raw: Path) -> None:
    for path in raw.rglob("*.*"):
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1_000_000))


def shown(corpus: Corpus) -> dict[str, pa.Table]:
    """What readers show, but for the names of parts."""
    prints = unique_sorted(pa.concat_tables(corpus.prints()), ("clip_id",))
    rows = {"sources": corpus.sources(), "clips": corpus.clips(), "strips": corpus.strips(), "prints": prints}
    return rows | {"fingerprint": pa.table({"is": [corpus.analyzed_fingerprint()]})}


def same(ours: Corpus, theirs: Corpus) -> bool:
    a, b = shown(ours), shown(theirs)
    return all(a[name].equals(b[name]) for name in b)


def compacted(corpus: Corpus) -> dict[str, bytes]:
    """The files of the tables that name no parts, without what no input asks for."""
    collect(corpus)
    folders = ("sources", "clips", "prints")
    return {name: data for name, data in contents(corpus).items() if name.startswith(folders)}


def test_touched_sources_are_not_decoded_and_the_corpus_is_that_of_a_fresh_analysis(
    raw: Path, tmp_path: Path
) -> None:
    corpus, first = analyzed(tmp_path / "c", raw, IN_PIECES)
    before = shown(corpus)
    assert first.counts == {"ok": 8, "salvaged": 0, "failed": 1, "clips": corpus.clips().num_rows}
    touch(raw)
    _, again = analyzed(tmp_path / "c", raw, replace(IN_PIECES, deadline_s=NO_TIME.deadline_s))
    assert again.counts == {"ok": 8, "salvaged": 0, "failed": 1, "clips": 0, KNOWN: 8}
    touch(raw)
    _, again = analyzed(tmp_path / "c", raw, IN_PIECES)
    assert (again.counts[KNOWN], again.counts["failed"]) == (8, 1)  # tried again with time, and for good
    fresh, _ = analyzed(tmp_path / "fresh", raw)
    assert same(corpus, fresh)
    assert shown(corpus)["clips"].equals(before["clips"])
    assert shown(corpus)["fingerprint"].equals(before["fingerprint"])
    assert compacted(corpus) == compacted(fresh)
    assert same(corpus, fresh)
    assert corpus.storage.list("segments") == []
    assert len([name for name in corpus.storage.list("receipts") if "segments" in name]) == 1  # of the first


def test_moved_and_renamed_sources_are_those_of_their_content(raw: Path, tmp_path: Path) -> None:
    corpus, _ = analyzed(tmp_path / "c", raw)
    elsewhere = Path(shutil.copytree(raw, tmp_path / "elsewhere"))
    (elsewhere / "long.mp4").rename(elsewhere / "renamed.mp4")
    (elsewhere / "z.png").rename(elsewhere / "Z.PNG")
    (elsewhere / "text.mp4").unlink()
    _, moved = analyzed(tmp_path / "c", elsewhere, NO_TIME)
    assert moved.counts == {"ok": 8, "salvaged": 0, "failed": 0, "clips": 0, KNOWN: 8}
    fresh, _ = analyzed(tmp_path / "fresh", elsewhere)
    assert same(corpus, fresh)
    assert compacted(corpus) == compacted(fresh)


@pytest.mark.slow
def test_the_same_files_on_s3_and_in_a_tar_are_not_decoded(
    raw: Path, tmp_path: Path, s3: pytest.MonkeyPatch
) -> None:
    corpus, _ = analyzed(tmp_path / "c", raw)
    (raw / "text.mp4").unlink()
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        tar.add(raw, "in")
    for path in raw.iterdir():
        Storage(f"{BUCKET}/copy").write_bytes(f"2024/{path.name}", path.read_bytes())
    for place in (f"{BUCKET}/copy", str(tmp_path / "all.tar")):
        inputs = discover([place]).inputs
        summary = analyze_corpus(corpus, inputs, Config(analyze=NO_TIME), LocalExecutor(), silent)
        assert summary.counts == {"ok": 8, "salvaged": 0, "failed": 0, "clips": 0, KNOWN: 8}


def test_another_content_under_the_same_name_and_size_is_decoded(raw: Path, tmp_path: Path) -> None:
    corpus, _ = analyzed(tmp_path / "c", raw)
    shutil.copy(raw / "0.bmp", raw / "1.bmp")  # that of a known source which is not its twin
    data = bytearray((raw / "2.bmp").read_bytes())
    data[-1] ^= 1
    (raw / "2.bmp").write_bytes(data)
    touch(raw)
    _, again = analyzed(tmp_path / "c", raw)
    assert again.counts[KNOWN] == 6
    fresh, _ = analyzed(tmp_path / "fresh", raw)
    assert same(corpus, fresh)
    assert compacted(corpus) == compacted(fresh)


def test_what_was_taken_down_is_no_twin(raw: Path, tmp_path: Path) -> None:
    corpus, _ = analyzed(tmp_path / "c", raw)
    take_down(corpus, [str(raw / "z.png")])
    touch(raw)
    _, again = analyzed(tmp_path / "c", raw, NO_TIME)
    assert again.counts["taken down"] == 1
    assert again.counts[KNOWN] == 7


def test_a_source_whose_clips_are_gone_is_decoded(raw: Path, tmp_path: Path) -> None:
    corpus, _ = analyzed(tmp_path / "c", raw)
    (lost,) = pc.filter(corpus.sources()["source_id"], pc.ends_with(corpus.sources()["uri"], "z.png"))
    ids = pc.filter(corpus.clips()["clip_id"], pc.equal(corpus.clips()["source_id"], lost)).combine_chunks()
    corpus.fold("analyze", {"clips": Edit(ids=ids)})  # as far as a killed garbage collection may have come
    touch(raw)
    _, again = analyzed(tmp_path / "c", raw)
    assert (again.counts[KNOWN], again.counts["clips"]) == (7, 1)
    assert same(corpus, analyzed(tmp_path / "fresh", raw)[0])


class Dying(LocalExecutor):
    """Is killed after a number of tasks, the last of which is committed and has no receipt."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.left = tasks

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        for receipt in super().execute(stage, tasks, root):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
            yield receipt


@pytest.mark.parametrize(("tasks", "was_analyzed"), [(0, True), (1, True), (2, True), (1, False)])
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(
    made: Path, tmp_path: Path, tasks: int, was_analyzed: bool
) -> None:
    raw = Path(shutil.copytree(made, tmp_path / "raw"))
    config, corpus, undisturbed = (
        Config(analyze=CONFIG),
        Corpus(str(tmp_path / "c")),
        tmp_path / "undisturbed",
    )
    if was_analyzed:
        analyzed(tmp_path / "c", raw)
        shutil.copytree(tmp_path / "c", undisturbed)
    touch(raw)
    shutil.copy(raw / "z.png", raw / "0.png")  # of another task
    inputs = discover([str(raw)]).inputs
    analyze_corpus(Corpus(str(undisturbed)), inputs, config, LocalExecutor(), silent)
    with pytest.raises(KeyboardInterrupt):
        analyze_corpus(corpus, inputs, config, Dying(tasks), silent)
    assert corpus.clips().num_rows >= tasks
    analyze_corpus(Corpus(corpus.root), inputs, config, LocalExecutor(), silent)
    assert {n: d for n, d in contents(corpus).items() if not n.startswith("receipts")} == {
        n: d for n, d in contents(Corpus(str(undisturbed))).items() if not n.startswith("receipts")
    }


def test_a_twin_is_of_the_same_name_rather_than_of_another(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(6))  # /000.mp4 to /005.mp4; 0 and 5 failed, 1 and 2 have one content
    rows = [{n: row[n] for n in tables.SOURCES.names} for row in corpus.sources().to_pylist()]
    uris = ["/000.mp4", "/a/b/c/001.mp4", "/a/x/c/001.mp4", "/003.mp4", "/004.mp4", "/005.mp4"]
    rows = [row | {"uri": uri, "size_bytes": 7} for row, uri in zip(rows, uris, strict=True)]
    rows[4]["size_bytes"] = 9
    write(corpus, INPUTS_PATH, [], tables.INPUTS)  # they are former ones
    first, *others = corpus.storage.list("sources")
    write(corpus, f"sources/{first}", rows, tables.SOURCES)
    for name in others:  # the markers of their clips
        write(corpus, f"sources/{name}", [], tables.SOURCES)
    asked = {
        "/003.mp4": "/003.mp4",
        "s3://b/elsewhere/003.mp4": "/003.mp4",
        "/a.tar#003.mp4": "/003.mp4",
        "s3://b/a/b/c/001.mp4": "/a/b/c/001.mp4",
        "s3://b/a/x/c/001.mp4": "/a/x/c/001.mp4",
        "/other.MP4": "a file of its size",
        "/other.mkv": "",
        "/000.mp4": "a file of its size",  # a failed one is none
    }
    names = [{"source_key": uri, "uri": uri, "size_bytes": 7} for uri in asked]
    names += [{"source_key": "done", "uri": "/003.mp4", "size_bytes": 7}]
    names += [{"source_key": "larger", "uri": "/003.mp4", "size_bytes": 8}]
    inputs = tables.from_rows(names, tables.INPUTS)
    twins = {row["uri"]: row[TWIN] for row in with_twins(corpus, inputs, {"done"}).to_pylist()[: len(asked)]}
    of_uri = {row["uri"]: row for row in rows}
    for uri, wanted in asked.items():
        assert (twins[uri] is not None) == bool(wanted), uri
        if wanted in of_uri:
            assert twins[uri] == of_uri[wanted], uri
    last = with_twins(corpus, inputs, {"done"}).to_pylist()[-2:]
    assert [twin_id(row) for row in last] == ["", ""]
    assert with_twins(Corpus(str(tmp_path / "none")), inputs, ())[TWIN].null_count == len(inputs)


def test_a_run_with_nothing_known_looks_at_no_table_of_clips(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(4))
    for name in corpus.storage.list("clips"):
        corpus.storage.write_bytes(f"clips/{name}", b"not to be read")
    new = tables.from_rows([{"source_key": "k", "uri": "/n.mp4", "size_bytes": 5}], tables.INPUTS)
    write(corpus, INPUTS_PATH, new.to_pylist(), tables.INPUTS)
    assert with_twins(corpus, new, ())[TWIN].null_count == 1
