"""The caption stage: every clip gets one row, failures included, and the same task gives the same bytes."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from captioner.caption import Caption
from captioner.filmstrip import Filmstrip
from captioner.recaption import Load, RecaptionStage, caption_tasks, recaption_corpus
from pipeline.config import CaptionConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.engine.stage import KILLED, Failure, Resources

SOURCE = "0123456789abcdef"


class Echo:
    """Says the clip's id; fails for ids that end in 3."""

    name, dir_name, weights_sha256 = "echo:", "echo", "f" * 64
    resources = Resources()

    def __init__(self) -> None:
        self.asked: list[str] = []

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        self.asked += [strip.clip_id for strip in strips]
        return [
            Failure(reason="unreadable")
            if strip.clip_id.endswith("3")
            else Caption(short=strip.clip_id, detailed=f"Clip {strip.clip_id}.", confidence=-0.123456)
            for strip in strips
        ]


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Five kept clips, one rejected; the strip of clip 4 is missing."""
    made = Corpus(str(tmp_path / "corpus"))
    ids = [f"{SOURCE}-{i}-{i + 1}" for i in range(6)]
    made.record(Config(), "analyze", "a" * 16)

    def put(path: str, schema: pa.Schema, rows: list[dict[str, object]]) -> None:
        made.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))

    put("inputs.parquet", tables.INPUTS, [{"source_key": "k", "uri": "u"}])
    part = f"{'a' * 8}-1.parquet"
    clips = [
        {"clip_id": c, "source_id": SOURCE, "kind": "video", "start_s": 0.0, "end_s": 1.0, "status": "ok"}
        for c in ids
    ]
    put(f"clips/{part}", tables.CLIPS, clips)
    strips = [{"clip_id": c, "times_s": [0.0], "frames": [b"jpeg"]} for i, c in enumerate(ids) if i != 4]
    put(f"strips/{part}", tables.STRIPS, strips)
    put(
        f"sources/{part}",
        tables.SOURCES,
        [{"source_key": "k", "source_id": SOURCE, "uri": "u", "status": "ok"}],
    )
    judged = [
        {"clip_id": c, "source_id": SOURCE, "status": "rejected" if i == 5 else "kept"}
        for i, c in enumerate(ids)
    ]
    put("judged.parquet", tables.JUDGED, judged)
    return made


def echo_of(captioner: Echo) -> Load:
    return lambda name, max_tokens: captioner


@pytest.fixture
def echo() -> Echo:
    return Echo()


def test_every_kept_clip_has_one_row(corpus: Corpus, echo: Echo) -> None:
    config = Config(caption=CaptionConfig(clips_per_task=2))
    summary = recaption_corpus(corpus, config, LocalExecutor(), load=echo_of(echo))
    rows = corpus.captions("echo").to_pylist()
    assert [row["clip_id"][-1] for row in rows] == list("12345")
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "ok", "failed"]
    assert summary.counts == {"ok": 3, "failed": 2}
    assert rows[2]["reason"] == "unreadable"
    assert "filmstrip" in rows[4]["reason"]
    for row in (rows[0], rows[1], rows[3]):
        assert row["short"] == row["clip_id"]  # joined by id, never by position
        assert row["captioner"] == "echo:"
        assert row["confidence"] == pytest.approx(-0.1235)


def test_running_again_captions_only_what_is_missing(corpus: Corpus, echo: Echo) -> None:
    config = Config(caption=CaptionConfig(clips_per_task=2))
    recaption_corpus(corpus, config, LocalExecutor(), load=echo_of(echo))
    asked = list(echo.asked)
    assert recaption_corpus(corpus, config, LocalExecutor(), load=echo_of(echo)).tasks == 0
    corpus.edit("captions/echo", corpus.captions("echo")["clip_id"][:2].combine_chunks())
    recaption_corpus(corpus, config, LocalExecutor(), load=echo_of(echo))
    assert len(echo.asked) == len(asked) + 2
    assert corpus.captions("echo").num_rows == 5


def test_other_weights_caption_anew(corpus: Corpus, echo: Echo) -> None:
    recaption_corpus(corpus, Config(), LocalExecutor(), load=echo_of(echo))
    echo.weights_sha256 = "e" * 64
    assert recaption_corpus(corpus, Config(), LocalExecutor(), load=echo_of(echo)).counts["ok"] == 3
    assert set(corpus.captions("echo")["captioner_sha256"].to_pylist()) == {"e" * 64}


def test_the_same_task_gives_the_same_bytes(corpus: Corpus, echo: Echo) -> None:
    stage = RecaptionStage(corpus.root, CaptionConfig(), echo_of(echo))
    stage.setup()
    [task] = caption_tasks(corpus, "echo", "f" * 16, 32)
    assert stage.process(task).outputs == stage.process(task).outputs


def test_a_clip_that_killed_its_worker_is_not_asked_about(corpus: Corpus, echo: Echo) -> None:
    stage = RecaptionStage(corpus.root, CaptionConfig(), echo_of(echo))
    stage.setup()
    [task] = caption_tasks(corpus, "echo", "f" * 16, 32)
    result = stage.process(replace(task, poisoned=frozenset({1})))
    rows = tables.from_parquet(result.outputs[0].data, tables.CAPTIONS).to_pylist()
    assert [row["reason"] for row in rows if row["clip_id"].endswith("2")] == [KILLED.reason]
    assert not any(clip_id.endswith("2") for clip_id in echo.asked)
    assert result.counts == {"ok": 2, "failed": 3}
