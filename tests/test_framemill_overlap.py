"""Captions and latents at once: stages that overlap, and the bytes of stages that do not."""

import json
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from captioner.recaption import recaption_corpus
from framemill import main
from pipeline.corpus.corpus import Corpus
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Beat, Receipt
from pipeline.engine.stage import Stage, Task
from pipeline.progress import silent
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.encode import encode_corpus, latents_ahead

SMALL = ["--set", "caption.clips_per_task=4", "--set", "encode.clips_per_task=4"]


class Watched(PoolExecutor):
    """Keeps when each stage began and ended."""

    def __init__(self) -> None:
        super().__init__(2)
        self.spans: dict[str, tuple[float, float]] = {}

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        started_s = time.monotonic()
        yield from super().execute(stage, tasks, root)
        self.spans[stage.name] = started_s, time.monotonic()


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    render_corpus(folder, ToyWorldConfig(videos=6, images=2, seed=11, min_shots=1, max_shots=3))
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    return folder


@pytest.fixture(scope="module")
def in_turn(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose stages ran one after another."""
    out = tmp_path_factory.mktemp("in_turn") / "corpus"
    assert main(["run", str(raw), "--out", str(out), "--max-failed", "0.5", "--workers", "1", *SMALL]) == 0
    return out


def tables_and_shards(corpus: Path) -> dict[str, bytes]:
    """What two equal runs have in common: every file but those that hold clocks or paths."""
    files = (p for p in sorted(corpus.rglob("*")) if p.is_file() and not p.name.startswith("."))
    named = {str(p.relative_to(corpus)): p.read_bytes() for p in files}
    return {name: data for name, data in named.items() if not name.startswith(("report/", "receipts/"))}


def test_a_run_makes_captions_and_latents_at_once_and_the_same_bytes(
    raw: Path, in_turn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpus"
    words = ["run", str(raw), "--out", str(out), "--max-failed", "0.5", "--workers", "2", *SMALL, "--json"]
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["stages"]
    assert [row["stage"] for row in rows] == ["analyze", "judge", "latents", "caption", "encode", "report"]
    assert {row["stage"]: row for row in rows}["latents"]["ok"] > 0
    assert tables_and_shards(out) == tables_and_shards(in_turn)
    assert main(words) == 0
    rows = json.loads(capsys.readouterr().out.strip().splitlines()[-1])["stages"]
    assert "latents" not in [row["stage"] for row in rows]  # with no caption open there is nothing beside it


def test_the_two_stages_overlap_and_encode_decodes_nothing_again(
    raw: Path, in_turn: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    for verb in (["analyze", str(raw), "--out", str(out)], ["judge", str(out)]):
        assert main([*verb, "--max-failed", "0.5", "--workers", "1", *SMALL]) == 0
    corpus, executor = Corpus(str(out)), Watched()
    config = corpus.config()
    with corpus.writing():
        thread = threading.Thread(target=latents_ahead(corpus, config, executor, silent))
        thread.start()
        recaption_corpus(corpus, config, executor)
        thread.join()
        assert not (out / "latents" / "default" / "index.parquet").exists()  # nobody takes the set for whole
        moved = raw.with_name("moved")
        raw.rename(moved)  # whoever decodes now fails
        try:
            summary = encode_corpus(corpus, config, executor, silent)
        finally:
            moved.rename(raw)
    assert summary.failed == 0
    assert tables_and_shards(out) == tables_and_shards(in_turn)
    (latents_s, latents_end_s), (captions_s, captions_end_s) = (
        executor.spans[name] for name in ("latents", "caption")
    )
    assert max(latents_s, captions_s) < min(latents_end_s, captions_end_s)
