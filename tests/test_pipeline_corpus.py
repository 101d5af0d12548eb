"""The corpus folder: only current rows are read; one writer at a time."""

from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, JUDGED_PATH, TAKEDOWNS_PATH, Corpus
from pipeline.engine.tasks import part_key
from pipeline.errors import FormatError, UsageError

SOURCE = {"status": "ok", "kind": "video"}
OLD, NEW = "a" * 16, "b" * 16


def source(key: str, content: str) -> dict[str, object]:
    return {**SOURCE, "source_key": key, "source_id": content, "uri": f"/{key}.mp4"}


def clip(content: str, start_ms: int) -> dict[str, object]:
    return {"clip_id": f"{content}-{start_ms}-{start_ms + 1000}", "source_id": content, "status": "ok"}


def add_part(corpus: Corpus, fingerprint: str, sources: list[dict[str, object]], starts: list[int]) -> None:
    key = part_key(fingerprint, [str(s["source_key"]) for s in sources])
    clips = [clip(str(s["source_id"]), start) for s in sources for start in starts]
    write(corpus, f"clips/{key}.parquet", clips, tables.CLIPS)
    write(corpus, f"sources/{key}.parquet", sources, tables.SOURCES)


def write(corpus: Corpus, path: str, rows: list[dict[str, object]], schema: object) -> None:
    corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Two current inputs of equal content; a removed one; a part of an older fingerprint."""
    made = Corpus(str(tmp_path))
    write(made, INPUTS_PATH, [{"source_key": "k1", "uri": "/k1.mp4"}, {"source_key": "k2"}], tables.INPUTS)
    made.record(Config(), "analyze", NEW)
    add_part(made, OLD, [source("k1", "c" * 16)], [0, 500])
    add_part(made, NEW, [source("k1", "c" * 16), source("gone", "d" * 16)], [0, 1000])
    add_part(made, NEW, [source("k2", "c" * 16)], [0, 1000])
    return made


def test_reading_keeps_current_rows_and_one_of_each_clip(corpus: Corpus) -> None:
    assert corpus.sources()["source_key"].to_pylist() == ["k1", "k2"]
    assert corpus.clips()["clip_id"].to_pylist() == [f"{'c' * 16}-0-1000", f"{'c' * 16}-1000-2000"]


def test_going_back_to_an_old_fingerprint_finds_its_parts(corpus: Corpus) -> None:
    corpus.record(Config(), "analyze", OLD)
    assert corpus.clips()["clip_id"].to_pylist() == [f"{'c' * 16}-0-1000", f"{'c' * 16}-500-1500"]


def test_of_equal_files_the_first_by_uri_counts(corpus: Corpus) -> None:
    rows = [
        {"source_key": "k1", "uri": "/k1.mp4", "original": "one"},
        {"source_key": "k2", "original": "two"},
    ]
    write(corpus, INPUTS_PATH, rows, tables.INPUTS)
    assert [row["uri"] for row in corpus.sources().to_pylist()] == ["/k1.mp4", "/k2.mp4"]
    only = {"source_id": "c" * 16, "uri": "/k1.mp4", "original": "one"}
    assert corpus.contents(["uri", "original"]).to_pylist() == [only]


def test_only_kept_clips_that_were_not_taken_down_are_kept(corpus: Corpus) -> None:
    states = {"c": "kept", "d": "rejected", "e": "kept", "f": "failed"}
    rows = [{"clip_id": f"{letter * 16}-0-1", "status": status} for letter, status in states.items()]
    write(corpus, JUDGED_PATH, rows, tables.JUDGED)
    write(corpus, TAKEDOWNS_PATH, [{"source_id": "e" * 16}], tables.TAKEDOWNS)
    assert corpus.kept()["clip_id"].to_pylist() == [f"{'c' * 16}-0-1"]


def test_sets_are_named_by_what_they_are_of(corpus: Corpus) -> None:
    for stage in ("latents/small", "captions/hf", "captions/builtin", "pairs"):
        corpus.record(Config(), stage, OLD)
    assert (corpus.sets("captions"), corpus.sets("latents")) == (["builtin", "hf"], ["small"])


def test_the_config_is_read_back(corpus: Corpus) -> None:
    assert corpus.config() == Config()
    assert corpus.fingerprints() == {"analyze": NEW}


def test_a_second_writer_is_told(corpus: Corpus) -> None:
    other = Corpus(corpus.root)
    with corpus.writing(), pytest.raises(UsageError, match="another framemill"), other.writing():
        pass


def test_no_corpus_and_another_format_are_said(tmp_path: Path, corpus: Corpus) -> None:
    with pytest.raises(FormatError, match="no corpus at"):
        Corpus(str(tmp_path / "nothing")).require()
    text = corpus.storage.read_bytes("corpus.toml").decode()
    corpus.storage.write_bytes(
        "corpus.toml", text.replace("format_version = 2", "format_version = 3").encode()
    )
    with pytest.raises(FormatError, match="another corpus format"):
        corpus.config()


def test_a_table_of_another_schema_is_said(corpus: Corpus) -> None:
    write(corpus, "judged.parquet", [{"clip_id": "x"}], tables.STRIPS)
    with pytest.raises(FormatError, match="does not fit its schema"):
        corpus.judged()
