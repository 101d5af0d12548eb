"""Compaction is a function of the rows: grouping, order and number of steps leave no trace in any byte."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.corpus import tables
from pipeline.corpus.compaction import Edit, Runs, compacted
from pipeline.corpus.manifest import Manifest, RowTable, from_json, places, tables_of, to_json
from pipeline.errors import FormatError
from pipeline.storage import Storage, sha256_hex

TABLE = replace(tables_of("captions/x")[0], rows_per_file=64)
PREFIX = "0123abcd"


def row(number: int) -> dict[str, object]:
    source_id = sha256_hex(str(number).encode())[:16]
    flags = ["short"] * (number % 3)
    return {"clip_id": f"{source_id}-0-{number}", "short": f"words {number}", "flags": flags, "status": "ok"}


ROWS = [row(number) for number in range(300)]


class Folded:
    """A table in a folder of its own, to which parts are folded."""

    def __init__(self, folder: Path, table: RowTable = TABLE) -> None:
        self.storage, self.table = Storage(str(folder)), table
        self.manifest = Manifest(table=table.folder, fingerprint=PREFIX)

    def fold(
        self, parts: Sequence[Sequence[dict[str, object]]], edit: Edit | None = None, run_bytes: int = 2**27
    ) -> "Folded":
        rows = (tables.from_rows(part, self.table.schema) for part in parts)
        with Runs(self.table, rows, run_bytes) as runs:
            self.manifest = compacted(self.storage, self.table, self.manifest, runs, edit)
        return self

    def contents(self) -> tuple[bytes, list[bytes]]:
        """The manifest and every file it names, in order."""
        files = [self.storage.read_bytes(self.manifest.file_path(file)) for file in self.manifest.files]
        return to_json(self.manifest), files


def in_parts(rows: Sequence[dict[str, object]], draw: random.Random) -> list[list[dict[str, object]]]:
    """The rows in random order, in parts of random sizes, some of them twice."""
    mixed = [*rows, *draw.sample(list(rows), len(rows) // 5)]
    draw.shuffle(mixed)
    edges = sorted(draw.sample(range(len(mixed)), 7))
    return [mixed[a:b] for a, b in zip([0, *edges], [*edges, len(mixed)], strict=True)]


@pytest.fixture(scope="module")
def at_once(tmp_path_factory: pytest.TempPathFactory) -> Folded:
    return Folded(tmp_path_factory.mktemp("once")).fold([ROWS])


@pytest.mark.parametrize("seed", range(3))
def test_any_grouping_any_order_any_number_of_steps_gives_the_same_bytes(
    tmp_path: Path, at_once: Folded, seed: int
) -> None:
    parts = in_parts(ROWS, random.Random(seed))
    together, stepwise = Folded(tmp_path / "a").fold(parts), Folded(tmp_path / "b")
    for part in parts:
        stepwise.fold([part])
    assert len(at_once.manifest.files) == 8  # a power of two
    assert together.contents() == stepwise.contents() == at_once.contents()


def test_rows_that_do_not_fit_in_memory_are_sorted_on_disk_to_the_same_bytes(
    tmp_path: Path, at_once: Folded
) -> None:
    parts = in_parts(ROWS, random.Random(9))
    assert Folded(tmp_path).fold(parts, run_bytes=1000).contents() == at_once.contents()


def test_files_follow_one_another_in_the_order_of_ids(at_once: Folded) -> None:
    ids: list[str] = []
    for file in at_once.manifest.files:
        rows = tables.from_parquet(at_once.storage.read_bytes(at_once.manifest.file_path(file)), TABLE.schema)
        of_file = rows["clip_id"].to_pylist()
        assert (file.rows, file.min_id, file.max_id) == (len(of_file), of_file[0], of_file[-1])
        ids += of_file
    assert ids == sorted(str(row["clip_id"]) for row in ROWS)


def test_one_row_more_writes_one_file(tmp_path: Path) -> None:
    grown = Folded(tmp_path).fold([ROWS])
    before = {file.name for file in grown.manifest.files}
    grown.fold([[row(1000)]])
    after = {file.name for file in grown.manifest.files}
    assert len(after - before) == len(before - after) == 1
    assert len(grown.storage.list(TABLE.folder)) == len(before) + 1


def test_erased_rows_leave_the_bytes_of_a_table_that_never_had_them(tmp_path: Path) -> None:
    few, many = ROWS[:40], ROWS[40:]
    ids = pa.array([row["clip_id"] for row in many], pa.string())
    erased = Folded(tmp_path / "a").fold([ROWS]).fold([], Edit(ids=ids))
    assert erased.contents() == Folded(tmp_path / "b").fold([few]).contents()
    everything = pa.array([row["clip_id"] for row in ROWS], pa.string())
    assert Folded(tmp_path / "c").fold([ROWS]).fold([], Edit(ids=everything)).manifest.files == ()


def test_changed_rows_are_those_of_a_table_that_was_made_of_them(tmp_path: Path) -> None:
    changed = [row | {"original": "mine"} if n % 10 == 0 else row for n, row in enumerate(ROWS)]
    ids = pa.array([row["clip_id"] for row in ROWS[::10]], pa.string())

    def mine(rows: pa.Table) -> pa.Table:
        column = pa.array(["mine"] * rows.num_rows, pa.string())
        return rows.set_column(rows.schema.get_field_index("original"), "original", column)

    half = Folded(tmp_path / "a").fold([ROWS[:150]])
    edited = half.fold([ROWS[150:]], Edit(ids=ids, change=mine))  # of what is compacted and of what is not
    assert edited.contents() == Folded(tmp_path / "b").fold([changed]).contents()


def test_the_chunks_of_a_table_leave_no_trace() -> None:
    draw = random.Random(0)
    rows = pa.table({"print": pa.array([draw.randbytes(300) for _ in range(20_000)], pa.binary())})
    in_chunks = pa.concat_tables([rows.slice(start, 777) for start in range(0, rows.num_rows, 777)])
    assert tables.to_row_groups(in_chunks, 5000) == tables.to_row_groups(rows, 5000)


def test_ids_that_are_no_hashes_have_a_place_too() -> None:
    ids = pa.array(["", "0", "00ff-1", "7fff", "8000-0", "k1", "zz", "é"])
    assert places(ids, 2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert places(ids, 1).tolist() == [0] * 8


def test_a_part_and_its_source_are_one_row_of_strip_parts_each(tmp_path: Path) -> None:
    table = next(table for table in tables_of("analyze") if table.folder == "strip_parts")
    pairs: list[dict[str, object]] = [
        {"source_id": s, "part": p} for s, p in (("b", "2"), ("a", "2"), ("a", "1"), ("a", "2"))
    ]
    folded = Folded(tmp_path, table).fold([pairs[:2], pairs[2:]])
    assert folded.manifest.rows == 3
    rows = tables.from_parquet(folded.contents()[1][0], table.schema).to_pylist()
    assert [(row["source_id"], row["part"]) for row in rows] == [("a", "1"), ("a", "2"), ("b", "2")]


def test_a_manifest_is_read_back_and_another_format_is_said(at_once: Folded) -> None:
    data = to_json(at_once.manifest.without(["b", "a"]))
    assert from_json(data, "m") == at_once.manifest.without(["a", "b"])
    with pytest.raises(FormatError, match="m is a manifest of format 9"):
        from_json(data.replace(b'"format_version": 1', b'"format_version": 9'), "m")
    with pytest.raises(FormatError, match="m is no manifest"):
        from_json(b"[]", "m")
