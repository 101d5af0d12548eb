"""The text stage: features beside the latents, of new and changed captions only, equal however made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from framemill import main
from pipeline.config import Config, TextConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.garbage import collect
from pipeline.corpus.manifest import tables_of
from pipeline.corpus.takedown import take_down
from pipeline.engine.runner import LocalExecutor, RunSummary
from pipeline.errors import FormatError, MediaError
from tokenizer_stage.text.encoder import TextFeatures
from tokenizer_stage.text.names import load_text_encoder
from tokenizer_stage.text.stage import Load, encode_texts
from tokenizer_stage.text.text_set import NULL_NAME, TextSet

PLACE = "text/builtin.builtin"
SOURCES = [f"{number:016x}" for number in range(4)]
SMALL = Config(text=TextConfig(shard_mb=1))


@dataclass(frozen=True)
class Counting:
    """The built-in encoder, which notes what it was asked for; texts that hold `broken` have no features."""

    asked: list[str]
    broken: str = "\0"

    def __call__(self, name: str, config: TextConfig) -> "Counting.Encoder":
        return Counting.Encoder(self, load_text_encoder(name, config))

    @dataclass(frozen=True)
    class Encoder:
        counting: "Counting"
        inner: Any

        @property
        def description(self) -> Any:
            return self.inner.description

        def encode(self, texts: Sequence[str]) -> list[TextFeatures]:
            if any(self.counting.broken in text for text in texts):
                raise MediaError("its text features are not finite in float16")
            self.counting.asked.extend(text for text in texts if text)
            features: list[TextFeatures] = self.inner.encode(texts)
            return features


def ids(per_source: int, sources: Sequence[str] = SOURCES) -> list[str]:
    return [f"{source}-{at}-{at + 1}" for source in sources for at in range(per_source)]


def says(clip_id: str) -> dict[str, str]:
    return {
        "short": f"A red circle, {clip_id[-3:]}.",
        "detailed": f"Clip {clip_id}: a large red circle moves.",
    }


def captioned(root: Path, clip_ids: Sequence[str], **changes: dict[str, str]) -> Corpus:
    """A corpus whose caption set `builtin` has these clips."""
    corpus = Corpus(str(root))
    corpus.record(SMALL, "captions/builtin", "c" * 16)
    rows = [{"clip_id": c, "status": "ok", **says(c), **changes.get(c, {})} for c in clip_ids]
    rows.append({"clip_id": f"{'f' * 16}-0-1", "status": "failed", "reason": "unreadable"})
    part = tables.to_parquet(tables.from_rows(rows, tables.CAPTIONS))
    for name in corpus.storage.list("captions/builtin"):
        corpus.storage.delete(f"captions/builtin/{name}")
    corpus.storage.write_bytes(f"captions/builtin/{'c' * 8}-1.parquet", part)
    return Corpus(str(root))


def analyzed(corpus: Corpus) -> None:
    """Gives the corpus the sources of its captions."""
    corpus.record(SMALL, "analyze", "a" * 16)
    rows = [{"source_key": s, "uri": s, "source_id": s, "status": "ok"} for s in SOURCES]
    for path, schema in ((f"sources/{'a' * 8}-1.parquet", tables.SOURCES), ("inputs.parquet", tables.INPUTS)):
        own = [{name: row[name] for name in row if name in schema.names} for row in rows]
        corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(own, schema)))


def encoded(corpus: Corpus, load: Load = load_text_encoder, *, retry: bool = False) -> RunSummary:
    return encode_texts(corpus, SMALL, LocalExecutor(), load=load, retry_failed=retry)


def stored(corpus: Corpus) -> list[dict[str, Any]]:
    (table,) = tables_of(PLACE)
    return Corpus(corpus.root).rows(table, PLACE, table.schema.names).to_pylist()


def tars(corpus: Corpus) -> dict[str, bytes]:
    return {name: corpus.storage.read_bytes(f"{PLACE}/{name}") for name in corpus.storage.list(PLACE, ".tar")}


def features(corpus: Corpus) -> dict[tuple[str, str], bytes]:
    read = TextSet(f"{corpus.root}/{PLACE}")
    return {(row["clip_id"], row["kind"]): read.features(row).tobytes() for row in stored(corpus)}


def test_every_text_has_the_features_that_it_has_alone(tmp_path: Path) -> None:
    corpus = captioned(tmp_path, ids(2))
    assert encoded(corpus).counts == {"ok": 16, "failed": 0}
    encoder, read = load_text_encoder("builtin:", TextConfig()), TextSet(f"{corpus.root}/{PLACE}")
    rows = stored(corpus)
    assert [(row["clip_id"], row["kind"]) for row in rows] == [
        (c, kind) for c in ids(2) for kind in ("detailed", "short")
    ]
    for row in rows:
        (own,) = encoder.encode([row["text"]])
        np.testing.assert_array_equal(read.features(row), own.tokens)
        assert (row["tokens"], row["cut_tokens"]) == (len(own.tokens), 0)
    np.testing.assert_array_equal(read.null(), encoder.encode([""])[0].tokens)
    assert (read.info.encoder, read.info.width, read.info.captions) == ("builtin:", 192, "builtin")


def test_webdataset_reads_them_beside_the_latents(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    corpus = captioned(tmp_path, ids(2))
    encoded(corpus)
    shards = [f"{tmp_path}/{PLACE}/{name}" for name in tars(corpus)]
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert sorted(sample["__key__"] for sample in samples) == ids(2)
    assert all(sample["short.npy"].shape[1] == 192 for sample in samples)


def test_more_clips_and_other_words_touch_nothing_else(tmp_path: Path) -> None:
    asked: list[str] = []
    first = captioned(tmp_path, ids(2))
    encoded(first)
    before = tars(first)
    more = captioned(tmp_path, ids(3), **{ids(3)[0]: {"short": "A blue square."}})
    encoded(more, Counting(asked))
    new = {c for c in ids(3) if c not in ids(2)} | {ids(3)[0]}
    said = [
        text
        for c in sorted(new)
        for text in (says(c) | {"short": "A blue square."} if c == ids(3)[0] else says(c)).values()
    ]
    assert sorted(asked) == sorted(said)
    assert {name: data for name, data in tars(more).items() if name in before} == before
    fresh = captioned(tmp_path / "fresh", ids(3), **{ids(3)[0]: {"short": "A blue square."}})
    encoded(fresh)
    assert features(more) == features(fresh)
    asked.clear()
    assert encoded(more, Counting(asked)).tasks == 0
    assert not asked


def test_a_text_that_is_not_said_any_more_has_no_row(tmp_path: Path) -> None:
    encoded(captioned(tmp_path, ids(2)))
    fewer = captioned(tmp_path, ids(2)[:-1])
    encoded(fewer)
    assert {row["clip_id"] for row in stored(fewer)} == set(ids(2)[:-1])


def test_a_text_without_features_is_a_failed_row(tmp_path: Path) -> None:
    corpus = captioned(tmp_path, ids(1), **{ids(1)[0]: {"short": "broken"}})
    assert encoded(corpus, Counting([], "broken")).counts == {"ok": 7, "failed": 1}
    (failed,) = [row for row in stored(corpus) if row["status"] == "failed"]
    assert (failed["text"], failed["shard"]) == ("broken", None)
    assert encoded(corpus).tasks == 0
    assert encoded(corpus, retry=True).counts["failed"] == 0
    assert all(row["status"] == "ok" for row in stored(corpus))


def test_a_source_that_is_taken_down_leaves_no_feature(tmp_path: Path) -> None:
    corpus = captioned(tmp_path, ids(2))
    encoded(corpus)
    analyzed(corpus)
    take_down(Corpus(corpus.root), [SOURCES[1]])
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name != "takedowns.parquet":
            assert SOURCES[1].encode() not in path.read_bytes() or path.parent.name == "sources", path
    corpus = Corpus(corpus.root)
    encoded(corpus)
    left = [c for c in ids(2) if not c.startswith(SOURCES[1])]
    assert {row["clip_id"] for row in stored(corpus)} == set(left)
    assert len(features(corpus)) == 2 * len(left)


def test_compact_deletes_tars_that_nothing_names(tmp_path: Path) -> None:
    corpus = captioned(tmp_path, ids(2))
    encoded(corpus)
    others = captioned(tmp_path, ids(2), **{c: {"short": "Other words."} for c in ids(2)})
    encoded(others)
    analyzed(others)
    assert len(tars(others)) == 4
    collect(Corpus(corpus.root))
    assert len(tars(others)) == 2
    assert features(others)


def test_damage_is_found(tmp_path: Path) -> None:
    corpus = captioned(tmp_path, ids(1))
    encoded(corpus)
    (name,) = tars(corpus)
    row = stored(corpus)[0]
    path = tmp_path / PLACE / name
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["nbytes"] - 1] ^= 1
    path.write_bytes(data)
    with pytest.raises(FormatError, match="are damaged"):
        TextSet(f"{corpus.root}/{PLACE}").features(row)


def test_the_verb(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captioned(tmp_path, ids(1))
    assert main(["text", str(tmp_path), "--workers", "1", "--captions", "other"]) == 2
    assert "no caption set other" in capsys.readouterr().err
    assert main(["text", str(tmp_path), "--workers", "1"]) == 0
    assert (tmp_path / PLACE / NULL_NAME).is_file()
    assert {row["status"] for row in stored(Corpus(str(tmp_path)))} == {"ok"}
