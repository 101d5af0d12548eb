"""Row tables: parts, compacted files, and the manifest that says which files hold.

In: rows that stages made in parts. Out: which tables there are, where each lies, and what a manifest says,
both ways. Never: a row.

A **table** (sources, clips, prints, strip_parts, captions/<name>, embeddings/<name>) is, for each fingerprint
of its stage (the first 8 hex of it, which lead every name):

    <fingerprint>-<key>.parquet       a part, as a task of the stage wrote it
    <fingerprint>.<sha256>.parquet    a compacted file: rows sorted by id, each id once
    _<fingerprint>.json               the manifest, committed last: the compacted files that hold, and
                                      `folded`, keys of parts that may lie there still, though their rows
                                      are in those files

What a reader shows is the compacted files and the **tail**: parts that lie there and are not in `folded`. So
a stage that is running or was killed is read like any other, and a corpus of an older version, which has no
manifest, is all tail.

A table is **split** into a power of two of ranges of its ids, one file for each that is not empty; an id's
range is decided by its first four letters, which are hex digits of a hash. The power follows from the number
of rows alone, so that files come to 40 to 200 MB, and so do the files' bytes: how rows came in, in which
order and in how many steps leaves no trace. A few rows more rewrite only the files that they fall in (all of
them when the power changes). Files follow one another in the order of ids.

`clips`, `prints` and `strip_parts` have no done-marker of their own: a part of them counts when the part of
`sources` under its key does. A part of sources may tell of contents whose clips an earlier part brought: it
brings none of them again. Filmstrips are never folded: they stay in the parts of strips/ that the analysis
wrote, `strip_parts` says in which (it is read off the parts of clips), and `prints` is copied out of them, so
that judging opens none.

**The order of a fold** (pipeline/corpus/folding.py): compacted files, manifest with the keys in `folded`, for
clips, prints and strip_parts, then for sources; only then are the parts and the replaced files deleted; last,
the manifests again without those keys. Killed anywhere: a row is in a manifest's file, in a part that no
manifest names, or in both while `folded` says so. Keys leave `folded` before a stage plans: a source that is
tried again may come back under the key of a part that was folded before.
"""

import json
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.errors import FormatError
from pipeline.storage import Storage

FORMAT_VERSION = 1
PREFIX = 8  # hex of a stage's fingerprint that lead the names of its files
LETTERS = 4  # of an id that decide its range
MOST_RANGES = 16**LETTERS
ANALYZE = "analyze"  # the stage that four tables come from


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTable:
    """One table. `key`: the columns that no two rows share; the first is its id. Parts of `parts_folder` are
    made of its rows or hold them; those count whose keys lie in `marker_folder`."""

    folder: str
    schema: pa.Schema
    key: tuple[str, ...]
    rows_per_file: int
    parts_folder: str
    marker_folder: str

    @property
    def id(self) -> str:
        return self.key[0]

    @property
    def group_rows(self) -> int:
        """Rows of a row group: a 32nd of a file, so that few are read for few ids."""
        return self.rows_per_file // 32

    @property
    def owns_parts(self) -> bool:
        """Its parts hold its rows and nothing else: they go when they are folded."""
        return self.parts_folder == self.folder

    def split(self, rows: int) -> int:
        """The number of ranges for so many rows."""
        ranges = 1
        while ranges * self.rows_per_file < rows and ranges < MOST_RANGES:
            ranges *= 2
        return ranges


def _table(
    folder: str, schema: pa.Schema, rows_per_file: int, *key: str, parts: str = "", marker: str = ""
) -> RowTable:
    return RowTable(
        folder=folder,
        schema=schema,
        key=key,
        rows_per_file=rows_per_file,
        parts_folder=parts or folder,
        marker_folder=marker or folder,
    )


# Rows of a file, such that a million synthetic rows come to files of 44 (sources), 106 (clips), 134 (prints
# of three seconds), 50 (short captions) and 138 MB (vectors of 512 floats), and none to more than a GB in
# memory.
SOURCES = _table("sources", tables.SOURCES, 1 << 20, "source_key")
CLIPS = _table("clips", tables.CLIPS, 1 << 19, "clip_id", marker="sources")
PRINTS = _table("prints", tables.PRINTS, 1 << 16, "clip_id", parts="strips", marker="sources")
STRIP_PARTS = _table(
    "strip_parts", tables.STRIP_PARTS, 1 << 21, "source_id", "part", parts="clips", marker="sources"
)
ANALYZED = (CLIPS, PRINTS, STRIP_PARTS, SOURCES)  # in the order of a fold: the table of done-markers last


def place_of(folder: str) -> str:
    """The stage that makes the files of a folder of rows or filmstrips."""
    return folder if "/" in folder else ANALYZE


def tables_of(place: str) -> tuple[RowTable, ...]:
    """The tables of the stage at a place, in the order of a fold; none for one that makes no rows in
    parts."""
    if place == ANALYZE:
        return ANALYZED
    kind, _, name = place.partition("/")
    if not name or kind not in ("captions", "embeddings", "text"):
        return ()
    if kind == "text":
        return (_table(place, tables.TEXTS, 1 << 19, "clip_id", "kind"),)
    if kind == "captions":
        return (_table(place, tables.CAPTIONS, 1 << 19, "clip_id"),)
    return (_table(place, tables.EMBEDDINGS, 1 << 16, "clip_id"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedFile:
    """A compacted file: its place among the ranges, and what it holds."""

    place: int
    name: str
    rows: int
    min_id: str
    max_id: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What of a table is compacted. `fingerprint` is the prefix that names bear, `folded` the keys of parts
    that may lie there still although their rows are in the files."""

    table: str
    fingerprint: str
    ranges: int = 1
    files: tuple[FoldedFile, ...] = ()
    folded: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def path(self) -> str:
        return f"{self.table}/_{self.fingerprint}.json"  # readers of a folder of Parquet leave out `_`

    def file_path(self, file: FoldedFile) -> str:
        return f"{self.table}/{file.name}"

    def without(self, keys: Sequence[str]) -> "Manifest":
        """The same, of which these are the folded parts that may lie there still."""
        return replace(self, folded=tuple(sorted(keys)))


def to_json(manifest: Manifest) -> bytes:
    values = {"format_version": FORMAT_VERSION, **asdict(manifest)}
    return (json.dumps(values, indent=1, sort_keys=True) + "\n").encode()


def from_json(data: bytes, where: str) -> Manifest:
    """The manifest that lies at `where`; FormatError where it is none."""
    try:
        values = json.loads(data)
        version = values.pop("format_version")
        if version == FORMAT_VERSION:
            files = tuple(FoldedFile(**file) for file in values.pop("files"))
            return Manifest(**values | {"files": files, "folded": tuple(values["folded"])})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{where} is no manifest of a table: {error}") from error
    raise FormatError(
        f"{where} is a manifest of format {version}",
        expected=f"format {FORMAT_VERSION}",
        fix="use the version of framemill that wrote it",
    )


def read_manifest(storage: Storage, table: RowTable, fingerprint: str) -> Manifest:
    """The manifest of a table, an empty one where nothing was folded yet."""
    empty = Manifest(table=table.folder, fingerprint=fingerprint[:PREFIX])
    data = storage.read_if_there(empty.path)
    return empty if data is None else from_json(data, f"{storage.root}/{empty.path}")


@lru_cache(maxsize=64)
def bounds(ranges: int) -> tuple[str, ...]:
    """Where each range of ids begins: ids of any letters fall in one, those of a hash evenly."""
    return ("", *(f"{n * MOST_RANGES // ranges:0{LETTERS}x}" for n in range(1, ranges)))


def places(ids: pa.Array | pa.ChunkedArray, ranges: int) -> np.ndarray:
    """int64 [N]: the range that each id falls in; not decreasing where the ids are sorted."""
    begins = bounds(ranges)
    letters = pc.utf8_slice_codeunits(ids, 0, LETTERS)
    letters = letters.combine_chunks() if isinstance(letters, pa.ChunkedArray) else letters
    coded = letters.dictionary_encode()
    of_word = np.array([bisect_right(begins, word) - 1 for word in coded.dictionary.to_pylist()], np.int64)
    return of_word[coded.indices.to_numpy(zero_copy_only=False)] if len(coded) else np.empty(0, np.int64)
