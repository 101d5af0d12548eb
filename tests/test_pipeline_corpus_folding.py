"""Folding a corpus: readers see the same rows before, after and in between, whatever is killed when."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from corpora_in_parts import NEW, OLD, add_part, build, content, contents, rows_of, same, write

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, TAKEDOWNS_PATH, Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.takedown import take_down, traces
from pipeline.errors import StorageError
from pipeline.storage import Buffer, Storage

SETS = {"sources", "clips", "prints", "strip_parts", "captions/x"}


class Dying(Storage):
    """Dies at the n-th change of a file: nothing is written or deleted from then on."""

    def __init__(self, root: str, changes: int) -> None:
        super().__init__(root)
        self.left = changes

    def _spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def write_bytes(self, rel: str, data: Buffer) -> None:
        self._spend()
        super().write_bytes(rel, data)

    def delete_all(self, rels: Iterable[str]) -> None:
        for rel in rels:
            self._spend()
            super().delete_all([rel])


def test_an_old_corpus_is_read_as_it_was_and_folded_by_the_next_writer(tmp_path: Path) -> None:
    old, folded = build(tmp_path / "old", range(12)), build(tmp_path / "new", range(12))
    with folded.writing():
        pass
    assert same(folded, old)
    files = {name.rpartition("/")[0] for name in contents(folded)}
    assert files >= SETS
    for name in SETS:
        assert len(folded.storage.list(name, ".parquet")) == 1  # few rows, one file
    assert set(folded.storage.list("strips")) == set(old.storage.list("strips"))
    assert rows_of(folded)["parts"]["part"].null_count == 0
    for path in Path(folded.root).rglob("*.parquet"):
        assert pq.read_metadata(path).num_rows >= 0
    before = contents(folded)
    with folded.writing():
        pass
    assert {n: d for n, d in contents(folded).items() if "lease" not in n} == {
        n: d for n, d in before.items() if "lease" not in n
    }


def test_an_older_version_refuses_what_it_would_not_see(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(3))
    assert b"format_version = 1" in corpus.storage.read_bytes("corpus.toml")
    corpus.fold_all()
    assert b"format_version = 2" in corpus.storage.read_bytes("corpus.toml")
    assert corpus.config() == Config()


def test_folding_leaves_the_same_bytes_however_the_rows_came(tmp_path: Path) -> None:
    at_once, grown = build(tmp_path / "a", range(12)), build(tmp_path / "b", range(6))
    at_once.fold_all()
    grown.fold_all()
    write(grown, INPUTS_PATH, at_once.inputs().to_pylist(), tables.INPUTS)
    for start in (10, 8, 6):
        add_part(grown, [start, start + 1])
        grown.fold_all()
    assert contents(grown) == contents(at_once)


def test_killed_at_any_change_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    def begin(name: str) -> Corpus:
        """Half of it compacted, the other half in parts."""
        corpus = build(tmp_path / name, range(4))
        corpus.fold_all()
        write(corpus, INPUTS_PATH, inputs, tables.INPUTS)
        add_part(corpus, [4, 5, 6])
        add_part(corpus, [7, 8])
        return corpus

    undisturbed = build(tmp_path / "whole", range(9))
    inputs = undisturbed.inputs().to_pylist()
    undisturbed = begin("undisturbed")
    wanted = rows_of(undisturbed)
    undisturbed.fold_all()
    changes = 0
    while True:
        corpus = begin(f"killed at {changes}")
        corpus.storage = Dying(corpus.root, changes)
        try:
            corpus.fold_all()
            break
        except KeyboardInterrupt:
            after = Corpus(corpus.root)
            assert all(table.equals(wanted[name]) for name, table in rows_of(after).items()), changes
            after.fold_all()
            assert contents(after) == contents(undisturbed), changes
        changes += 1
    assert changes > 20


def test_switching_a_config_back_finds_its_rows(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(6), stage=OLD)
    corpus.fold_all()
    before = rows_of(corpus)
    corpus.record(Config(), "analyze", NEW)
    assert corpus.clips().num_rows == 0
    add_part(corpus, [2, 3])
    corpus.fold_all()
    assert corpus.clips().num_rows == 4
    corpus.record(Config(), "analyze", OLD)
    assert all(rows_of(corpus)[name].equals(before[name]) for name in ("sources", "clips", "parts"))


def test_a_source_that_is_tried_again_under_the_key_of_a_folded_part_counts(tmp_path: Path) -> None:
    corpus = build(tmp_path, [5], per_part=1)
    corpus.fold_all()
    assert forget_failed(corpus, "analyze") == 1
    assert corpus.sources().num_rows == 0
    key = add_part(corpus, [5])
    fine = [{"source_key": content(1005), "source_id": content(5), "uri": "/005.mp4", "status": "ok"}]
    write(corpus, f"sources/{key}.parquet", fine, tables.SOURCES)
    assert corpus.sources()["status"].to_pylist() == ["ok"]
    corpus.fold_all()
    assert corpus.sources()["status"].to_pylist() == ["ok"]


def test_parts_of_a_killed_task_count_for_no_table(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(4))
    before = rows_of(corpus)
    add_part(corpus, [6, 7], marked=False)
    assert all(table.equals(before[name]) for name, table in rows_of(corpus).items())
    corpus.fold_all()
    assert all(table.equals(before[name]) for name, table in rows_of(corpus).items())


def test_columns_are_those_that_were_asked_for(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(8))
    for _ in range(2):
        for reader in (corpus.sources, corpus.clips, lambda c=None: corpus.captions("x", c)):
            whole = reader()
            for names in (["status"], [whole.column_names[-1], whole.column_names[0]]):
                assert reader(names).equals(whole.select(names))
        corpus.fold_all()


def test_a_table_is_read_once_and_again_when_it_changed(tmp_path: Path) -> None:
    class Counting(Storage):
        reads: tuple[str, ...] = ()

        def read_bytes(self, rel: str, *, offset: int = 0, nbytes: int | None = None) -> bytes:
            Counting.reads += (rel,) if rel.endswith(".parquet") else ()
            return super().read_bytes(rel, offset=offset, nbytes=nbytes)

        def read_columns(self, rel: str, columns: list[str]) -> pa.Table:
            Counting.reads += (rel,)
            return super().read_columns(rel, columns)

    corpus = build(tmp_path, range(12))
    corpus.fold_all()
    corpus.storage = Counting(corpus.root)
    for _ in range(3):
        assert corpus.clips().num_rows == 16
        assert corpus.sources().num_rows == 12
    tables_read = [path.split("/")[0] for path in Counting.reads]
    assert max(tables_read.count(name) for name in ("clips", "sources", "inputs.parquet")) <= 2
    corpus.edit("clips", corpus.clips(["clip_id"])["clip_id"][:1].combine_chunks())
    assert corpus.clips().num_rows == 15


def test_a_takedown_leaves_no_trace_in_any_file(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(12), stage=OLD)
    corpus.fold_all()
    for start in (0, 2, 4, 6):
        add_part(corpus, [start, start + 1])
    corpus.record(Config(), "analyze", NEW)  # OLD is history, compacted; NEW lies in parts
    add_part(corpus, [2, 7], marked=False)  # of a killed task
    gone = content(2)  # of two files
    listed = traces(corpus, [gone])
    assert {path.split("/")[0] for path in listed.tables} >= {"sources", "clips", "strips", "captions"}
    assert take_down(corpus, [gone], dry_run=True) == listed == traces(corpus, [gone], open_all=True)
    take_down(corpus, [gone])
    for name, data in contents(corpus).items():
        assert gone.encode() not in data or name == TAKEDOWNS_PATH or name.startswith("sources/"), name
    for path in Path(corpus.root).rglob("*.parquet"):
        rows = pq.read_table(path)
        if path.name != TAKEDOWNS_PATH and path.parent.name != "sources":
            assert gone not in str(rows.to_pydict()), path
    status = pq.read_table(tmp_path / "sources", schema=tables.SOURCES)
    of_gone = status.filter(pc.equal(status["source_id"], gone))
    assert set(of_gone["status"].to_pylist()) == {"taken down"}
    assert traces(corpus, [gone], open_all=True).gone
    assert corpus.clips().num_rows == 8
    corpus.record(Config(), "analyze", OLD)
    assert corpus.clips().num_rows == 14


def test_a_compacted_file_that_is_gone_is_said(tmp_path: Path) -> None:
    corpus = build(tmp_path, range(4))
    corpus.fold_all()
    (name,) = corpus.storage.list("clips", ".parquet")
    corpus.storage.delete(f"clips/{name}")
    with pytest.raises(StorageError, match=f"clips/{name}: no such file"):
        Corpus(corpus.root).clips()
