"""Compaction: the files of a table from its rows, whatever parts they came in.

In: what is compacted already (a manifest), rows that are not, and an edit of some rows. Out: files, written,
and the manifest that names them, not yet committed. Rows are sorted by id, each id once: of rows of one id,
which are equal (a row is a function of content and settings), the one that was compacted first stays. Only
files that a new row or the edit falls in are read and written, unless the number of rows asks for another
split. Never more in memory than a few files' rows: what comes in is sorted in runs, which lie in temporary
files when they are large. Never: a deletion, a commit.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.manifest import MOST_RANGES, FoldedFile, Manifest, RowTable, places
from pipeline.storage import Storage, sha256_hex

RUN_BYTES = 128 * 2**20  # of rows in memory, before they are sorted into a run on disk
COUNT_RANGES = 64  # at least so many ranges are counted one by one, so that few ids lie in memory at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Rows of these ids become what `change` makes of them, with the ids they had; None: they are erased.
    `column`, where named, is the column of the key that the ids are of."""

    ids: pa.Array
    change: Callable[[pa.Table], pa.Table] | None = None
    column: str = ""

    def hits(self, rows: pa.Table, table: RowTable) -> pa.ChunkedArray:
        """bool [N]: the rows that are edited."""
        return pc.is_in(rows[self.column or table.id], value_set=self.ids)

    def of(self, rows: pa.Table, table: RowTable) -> pa.Table:
        """The rows after the edit, those that it leaves first."""
        hit = self.hits(rows, table)
        left = rows.filter(pc.invert(hit))
        return left if self.change is None else pa.concat_tables([left, self.change(rows.filter(hit))])


def unique_sorted(rows: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """The rows sorted by the key, the first of each only."""
    if rows.num_rows < 2:
        return rows
    columns = [rows[name].combine_chunks() for name in key]
    if not _increasing(columns):
        rows = rows.sort_by([(name, "ascending") for name in key])
        columns = [rows[name].combine_chunks() for name in key]
    fresh = pc.not_equal(columns[0][1:], columns[0][:-1])
    for column in columns[1:]:
        fresh = pc.or_(fresh, pc.not_equal(column[1:], column[:-1]))
    if pc.all(fresh).as_py():
        return rows
    return rows.filter(pa.concat_arrays([pa.array([True]), fresh]))


def _increasing(columns: list[pa.Array]) -> bool:
    """Whether rows with this key are in order already, which spares a copy of them."""
    return len(columns) == 1 and bool(pc.all(pc.less_equal(columns[0][:-1], columns[0][1:])).as_py())


class Runs:
    """Rows that are not compacted yet, in sorted runs. Close it: runs may lie in temporary files."""

    def __init__(self, table: RowTable, parts: Iterable[pa.Table], run_bytes: int = RUN_BYTES) -> None:
        self._table, self._stack = table, ExitStack()
        self._folder = ""
        self.runs: list[pa.Table] = []
        self._places: list[np.ndarray] = []  # of each run's rows among MOST_RANGES
        rows: list[pa.Table] = []
        held_bytes = 0
        for part in parts:
            rows.append(part)
            held_bytes += part.nbytes
            if held_bytes > run_bytes:
                self._add(rows, spill=True)
                rows, held_bytes = [], 0
        self._add(rows, spill=False)

    def __enter__(self) -> "Runs":
        return self

    def __exit__(self, *_: object) -> None:
        self.runs = []
        self._stack.close()

    def _add(self, rows: list[pa.Table], *, spill: bool) -> None:
        if not sum(part.num_rows for part in rows):
            return
        run = unique_sorted(pa.concat_tables(rows).combine_chunks(), self._table.key)
        if spill:
            self._folder = self._folder or self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="framemill-fold-")
            )
            path = Path(self._folder) / f"{len(self.runs)}.arrow"
            with pa.ipc.new_file(str(path), run.schema) as stream:
                stream.write_table(run)
            run = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        self.runs.append(run)
        self._places.append(places(run[self._table.id], MOST_RANGES))

    def within(self, place: int, ranges: int) -> list[pa.Table]:
        """The rows of one range, of each run in turn."""
        width = MOST_RANGES // ranges
        edges = [np.searchsorted(p, [place * width, (place + 1) * width]) for p in self._places]
        return [
            run.slice(begin, end - begin)
            for run, (begin, end) in zip(self.runs, edges, strict=True)
            if begin < end
        ]

    def counts(self, ranges: int) -> np.ndarray:
        """int64 [ranges]: the rows in each range, of all runs."""
        width = MOST_RANGES // ranges
        totals = [np.bincount(p // width, minlength=ranges) for p in self._places]
        return np.sum(totals, axis=0) if totals else np.zeros(ranges, np.int64)


def compacted(
    storage: Storage, table: RowTable, old: Manifest, runs: Runs, edit: Edit | None = None
) -> Manifest:
    """The manifest of what `old` names and of the runs, after the edit; its new files are written."""
    touched = runs.counts(old.ranges) > 0
    if edit is not None:
        touched[... if edit.column else np.unique(places(edit.ids, old.ranges))] = True
    if not touched.any():
        return old
    compaction = _Compaction(storage, table, old, runs, edit)
    rows = sum(
        compaction.count(place) if touched[place] else compaction.rows_of(place)
        for place in range(old.ranges)
    )
    ranges = table.split(rows)
    if ranges != old.ranges:
        files = filter(None, (compaction.written(place, ranges) for place in range(ranges)))
        return replace(old, ranges=ranges, files=tuple(files))
    kept = {file.place: file for file in old.files}
    for place in np.flatnonzero(touched).tolist():
        file = compaction.written(place, ranges)
        kept.pop(place, None)
        if file is not None:
            kept[place] = file
    return replace(old, files=tuple(kept[place] for place in sorted(kept)))


class _Compaction:
    """One compaction. Files of the old manifest are read as often as a new one needs them: the last that was
    read is kept, since the files of two splits lie inside each other and are asked for in order."""

    def __init__(
        self, storage: Storage, table: RowTable, old: Manifest, runs: Runs, edit: Edit | None
    ) -> None:
        self._storage, self._table, self._old, self._runs, self._edit = storage, table, old, runs, edit
        self._files = {file.place: file for file in old.files}
        self._last: tuple[int, pa.Table | None] = (-1, None)

    def rows_of(self, place: int) -> int:
        return self._files[place].rows if place in self._files else 0

    def count(self, place: int) -> int:
        """The rows of one old range, as they will be."""
        ranges = max(self._old.ranges, COUNT_RANGES)
        each = ranges // self._old.ranges
        keys = list(self._table.key)
        file = self._files.get(place)
        known = (
            None if file is None else read_file(self._storage, self._table, self._old.file_path(file), keys)
        )
        rows = 0
        for fine in range(place * each, (place + 1) * each):
            of_ranges = [self._table.schema.empty_table().select(keys)]
            of_ranges += [] if known is None else _within(known, self._table, fine, ranges)
            of_ranges += [run.select(keys) for run in self._runs.within(fine, ranges)]
            of_range = unique_sorted(pa.concat_tables(of_ranges), self._table.key)
            rows += of_range.num_rows
            if self._edit is not None and self._edit.change is None:
                rows -= pc.sum(self._edit.hits(of_range, self._table)).as_py() or 0
        return rows

    def written(self, place: int, ranges: int) -> FoldedFile | None:
        """The file of one range of the new split, written; None for one without rows."""
        rows = pa.concat_tables(
            [
                self._table.schema.empty_table(),
                *self._old_rows(place, ranges),
                *self._runs.within(place, ranges),
            ]
        )
        rows = unique_sorted(rows, self._table.key)
        if self._edit is not None:
            rows = unique_sorted(self._edit.of(rows, self._table), self._table.key)
        if not rows.num_rows:
            return None
        data = tables.to_row_groups(rows, self._table.group_rows)
        digest = sha256_hex(data)
        ids = rows[self._table.id]
        file = FoldedFile(
            place=place,
            name=f"{self._old.fingerprint}.{digest[:16]}.parquet",
            rows=rows.num_rows,
            min_id=ids[0].as_py(),
            max_id=ids[-1].as_py(),
            bytes=len(data),
            sha256=digest,
        )
        if all(known.sha256 != digest for known in self._files.values()):
            self._storage.write_bytes(self._old.file_path(file), data)
        return file

    def _old_rows(self, place: int, ranges: int) -> Iterator[pa.Table]:
        """Rows of the old files that fall in one range of a new split."""
        each = self._old.ranges / ranges  # old ranges a new one: powers of two, so exact
        for old_place in range(int(place * each), max(int((place + 1) * each), int(place * each) + 1)):
            if old_place not in self._files:
                continue
            if self._last[0] != old_place:
                self._last = (-1, None)  # before the next is read
                path = self._old.file_path(self._files[old_place])
                self._last = (old_place, read_file(self._storage, self._table, path))
            assert self._last[1] is not None
            yield from _within(self._last[1], self._table, place, ranges)


def _within(rows: pa.Table, table: RowTable, place: int, ranges: int) -> list[pa.Table]:
    """Of sorted rows, those of one range."""
    begin, end = np.searchsorted(places(rows[table.id], ranges), [place, place + 1])
    return [rows.slice(begin, end - begin)] if begin < end else []


def read_file(storage: Storage, table: RowTable, path: str, columns: list[str] | None = None) -> pa.Table:
    """A compacted file, or some columns of it, checked against the table's schema."""
    if columns is None:
        return tables.from_parquet(storage.read_bytes(path), table.schema)
    return tables.fitted(storage.read_columns(path, columns), table.schema, columns)
