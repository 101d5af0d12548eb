"""The corpus folder: where things lie, which rows are current.

In: a root (local or s3://). Out: Arrow tables, sorted by id. What stages make in parts is a row table
(pipeline/corpus/manifest.py): compacted files, a manifest, and parts beyond it. corpus.toml holds the current
fingerprint of each stage: rows made with another config, code version or model are history and are never
read. A table is read once as long as it does not change.
"""

import hashlib
import secrets
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.corpus import folding, snapshot, tables
from pipeline.corpus.compaction import Edit, read_file, unique_sorted
from pipeline.corpus.ids import sources_of
from pipeline.corpus.manifest import (
    ANALYZE,
    CLIPS,
    PRINTS,
    SOURCES,
    STRIP_PARTS,
    RowTable,
    place_of,
    tables_of,
)
from pipeline.errors import FormatError, UsageError
from pipeline.lease.lease import Lease, held
from pipeline.settings import build, fingerprint, to_toml
from pipeline.storage import Storage

INPUTS_PATH = "inputs.parquet"
JUDGED_PATH = "judged.parquet"
CONFIG_PATH = "corpus.toml"
TAKEDOWNS_PATH = "takedowns.parquet"
PIECES_FOLDER = "segments"  # packed pieces of long sources, until they are joined
AHEAD_FOLDER = "ahead"  # captions of clips that are not judged yet (captioner/ahead.py), until they are
TAKEN_DOWN = "taken down"  # a source's status
FORMAT_VERSION = 2  # 1: parts only, which is read as well
READABLE = (1, FORMAT_VERSION)
HELD_BYTES = 256 * 2**20  # of a table in memory: larger ones are read again rather than held


class Corpus:
    """Reads and names the tables of one corpus."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.storage = Storage(root)
        self.run_id = secrets.token_hex(4)  # of the receipts that are written through this object
        self._lease: Lease | None = None
        self._held: dict[str, tuple[object, dict[str, pa.ChunkedArray]]] = {}  # table → state, columns

    # -- corpus.toml ------------------------------------------------------------------------------

    def require(self) -> "Corpus":
        """This corpus, or an error when there is none at the root."""
        if not self.storage.exists(CONFIG_PATH):
            raise FormatError(f"no corpus at {self.root}", fix=f"framemill analyze SRC --out {self.root}")
        return self

    def _toml(self) -> dict[str, dict[str, object]]:
        data = self.storage.read_if_there(CONFIG_PATH)
        if data is None:
            return {}
        try:
            values = tomllib.loads(data.decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FormatError(
                f"{self.root}/{CONFIG_PATH} is not TOML: {error}",
                fix=f"delete it and run framemill analyze SRC --out {self.root}: whole parts are kept",
            ) from error
        if values.get("corpus", {}).get("format_version") not in READABLE:
            raise FormatError(
                f"{self.root} has another corpus format", expected=f"format_version {FORMAT_VERSION}"
            )
        return values

    def config(self) -> Config:
        """The config of the last run."""
        sections = ("analyze", "judge", "caption", "encode", "text")
        values = {name: dict(value) for name, value in self._toml().items() if name in sections}
        values.get("encode", {}).pop("samples_per_shard", None)  # of versions that counted: bytes count now
        return build(Config, values)

    def fingerprints(self) -> dict[str, str]:
        """Stage (`analyze`, `judge`, `captions/<name>`, `latents/<name>`) → its current fingerprint."""
        return {k: str(v) for k, v in self._toml().get("fingerprints", {}).items()}

    def sets(self, kind: str) -> list[str]:
        """Names of the sets of a kind (`captions`, `embeddings`, `latents`), sorted."""
        return sorted(s.removeprefix(f"{kind}/") for s in self.fingerprints() if s.startswith(f"{kind}/"))

    def record(self, config: Config, stage: str, stage_fingerprint: str) -> None:
        """Makes this the corpus's config and the stage's fingerprint current, atomically. A writer asks first
        whether the corpus is still its own: each stage begins here."""
        if self._lease is not None and not self._lease.beat():
            raise UsageError(f"this command no longer holds {self.root}: {self._lease.lost}")
        fingerprints = dict(sorted({**self.fingerprints(), stage: stage_fingerprint}.items()))
        head = {"corpus": {"format_version": FORMAT_VERSION}, "fingerprints": fingerprints}
        data = to_toml(head, config).encode()
        if self.storage.read_if_there(CONFIG_PATH) != data:
            self.storage.write_bytes(CONFIG_PATH, data)

    @contextmanager
    def writing(self, verb: str = "command", run_id: str = "") -> Iterator[None]:
        """Holds the corpus for one writer, whose receipts bear `run_id`; sweeps what a killed one left
        unfinished."""
        self.run_id = run_id or self.run_id
        with held(self.root, verb) as lease:
            self._lease = lease
            try:
                self.storage.sweep_temporary()
                self.fold_all()
                yield
            finally:
                self._lease = None

    def sweep_pieces(self) -> None:
        """Deletes all pieces of long sources: nothing is open any more, or what is can be made again."""
        self.storage.delete_all([f"{PIECES_FOLDER}/{name}" for name in self.storage.list(PIECES_FOLDER)])

    # -- changes of row tables ----------------------------------------------------------------------

    def fold(self, place: str, edits: Mapping[str, Edit] = folding.NO_EDITS) -> None:
        """Compacts what the stage at a place made, and edits rows of its tables."""
        current, row_tables = self.fingerprints().get(place), tables_of(place)
        if current is None or not row_tables:
            return
        values = self._toml()
        if (
            values["corpus"]["format_version"] != FORMAT_VERSION
        ):  # older versions would not see compacted rows
            head = {"corpus": {"format_version": FORMAT_VERSION}}
            self.storage.write_bytes(CONFIG_PATH, to_toml(values | head).encode())
        folding.fold(self.storage, row_tables, current, edits)

    def fold_all(self) -> None:
        """Compacts what every stage made, by its current fingerprint."""
        for place in self.fingerprints():
            self.fold(place)

    def edit(self, folder: str, ids: pa.Array, change: Callable[[pa.Table], pa.Table] | None = None) -> None:
        """Makes of the current rows with these ids what `change` makes of them, or erases them. Only files
        that hold one of them are written again."""
        if len(ids):
            self.fold(place_of(folder), {folder: Edit(ids=ids, change=change)})

    # -- tables -----------------------------------------------------------------------------------

    def inputs(self) -> pa.Table:
        """What the last run was asked to take in, and what its manifests say of it."""
        return self._table(INPUTS_PATH, tables.INPUTS)

    def takedowns(self) -> pa.Table:
        """Sources that were taken down: no reader shows anything of them."""
        return self._table(TAKEDOWNS_PATH, tables.TAKEDOWNS)

    def taken_down_keys(self) -> list[str]:
        """source_key of every current input whose content was taken down."""
        rows = self._sources(["source_key", "source_id", "status"], taken_down=True)
        gone = pc.or_(
            pc.equal(rows["status"], TAKEN_DOWN), pc.is_in(rows["source_id"], value_set=self._taken_down())
        )
        return rows.filter(gone)["source_key"].to_pylist()

    def judged(self) -> pa.Table:
        """A row a judged clip, in the order of their ids."""
        return self._not_taken_down(self._table(JUDGED_PATH, tables.JUDGED))

    def kept(self) -> pa.Table:
        """The judged rows of the clips that stay."""
        return kept(self.judged())

    def sources(self, columns: Sequence[str] | None = None) -> pa.Table:
        """A row a current input that was looked at, sorted by uri, those taken down included: SOURCES and
        the PROVENANCE columns, which are those of the inputs table and in no part; or some of these columns.
        Equal content, equal source_id."""
        facts = [name for name, _ in tables.PROVENANCE]
        names = [*tables.SOURCES.names, *facts] if columns is None else list(columns)
        own = {"source_key", "uri", "source_id", "status", *names} - set(facts)
        rows = self._sources(own, taken_down=True).sort_by("uri")
        gone = pc.is_in(rows["source_id"], value_set=self._taken_down())
        status = pc.if_else(gone, TAKEN_DOWN, rows["status"])
        rows = rows.set_column(rows.schema.get_field_index("status"), "status", status)
        if wanted := [name for name in facts if name in names]:
            inputs = self.inputs()
            where = pc.index_in(rows["source_key"], value_set=inputs["source_key"].combine_chunks())
            for name in wanted:
                rows = rows.append_column(name, inputs[name].take(where))
        return rows.select(names)

    def contents(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The columns of `sources` and source_id, a row a content, sorted by source_id: of equal files that
        of the first by uri."""
        rows = self.sources(None if columns is None else [*dict.fromkeys(["source_id", *columns])])
        return unique_sorted(rows.filter(pc.is_valid(rows["source_id"])), ("source_id",))

    def clips(self, columns: Sequence[str] | None = None) -> pa.Table:
        """A row a clip, sorted by clip_id, or some columns. Files of equal content share their clips."""
        names = tables.CLIPS.names if columns is None else list(columns)
        rows = self.rows(CLIPS, ANALYZE, names)
        return _filtered(rows, pc.is_in(sources_of(rows["clip_id"]), value_set=self._current())).select(names)

    def clips_by_part(self, columns: Sequence[str] | None = None) -> list[tuple[str, pa.Table]]:
        """(key of a part of strips/, the clips whose filmstrips it holds): what is read beside them."""
        rows = self.clips(columns and [*dict.fromkeys(["clip_id", *columns])])
        rows = rows.append_column("part", self.strip_parts(rows["clip_id"]))
        rows = rows.filter(pc.is_valid(rows["part"])).sort_by("part")  # stable: clips stay in order
        of_part = pc.run_end_encode(rows["part"].combine_chunks())
        ends, rows = of_part.run_ends.to_pylist(), rows.drop_columns("part")
        starts = [0, *ends][: len(ends)]
        slices = (rows.slice(start, end - start) for start, end in zip(starts, ends, strict=True))
        return list(zip(of_part.values.to_pylist(), slices, strict=True))

    def strip_parts(self, clip_ids: pa.Array | pa.ChunkedArray) -> pa.Array:
        """string [N]: the key of the part of strips/ with each clip's filmstrip; null where there is none."""
        rows = unique_sorted(self.rows(STRIP_PARTS, ANALYZE), ("source_id",))  # the first part of each
        at = pc.index_in(sources_of(clip_ids), value_set=rows["source_id"].combine_chunks())
        parts = rows["part"].combine_chunks().take(at)
        return parts.combine_chunks() if isinstance(parts, pa.ChunkedArray) else parts

    def strips_part(self, key: str) -> pa.Table:
        """The filmstrips of one part of strips/."""
        data = self.storage.read_if_there(f"strips/{key}.parquet")  # never held: pictures of many parts
        return tables.STRIPS.empty_table() if data is None else tables.from_parquet(data, tables.STRIPS)

    def strips(self, clip_ids: Iterable[str] | None = None) -> pa.Table:
        """Filmstrips sorted by clip_id: all, or only those of these clips."""
        ids = self.clips(["clip_id"])["clip_id"].combine_chunks()
        if clip_ids is not None:
            asked = pa.array(sorted(set(clip_ids)), pa.string())
            ids = ids.filter(pc.is_in(ids, value_set=asked))
        keys = sorted(self.strip_parts(ids).unique().drop_null().to_pylist())
        parts = (
            rows.filter(pc.is_in(rows["clip_id"], value_set=ids)) for rows in map(self.strips_part, keys)
        )
        return unique_sorted(pa.concat_tables([tables.STRIPS.empty_table(), *parts]), ("clip_id",))

    def prints(self) -> Iterator[pa.Table]:
        """clip_id and print of every current clip that has one, a table a file; perhaps some clips again."""
        now = snapshot.look(self.storage, PRINTS, self.fingerprints().get(ANALYZE, ""))
        current = self._current()
        files = (read_file(self.storage, PRINTS, now.manifest.file_path(f)) for f in now.manifest.files)
        for rows in chain(files, snapshot.parts_of(self.storage, PRINTS, now.keys)):
            if rows is not None:
                yield rows.filter(pc.is_in(sources_of(rows["clip_id"]), value_set=current))

    def captions(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A row a captioned clip, by the captioner of that folder, sorted by clip_id; or some columns."""
        (table,) = tables_of(f"captions/{name}")
        names = table.schema.names if columns is None else list(columns)
        return self._not_taken_down(self.rows(table, table.folder, names)).select(names)

    def embeddings(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A row an embedded clip, by the embedder of that folder, sorted by clip_id; or some columns."""
        (table,) = tables_of(f"embeddings/{name}")
        names = table.schema.names if columns is None else list(columns)
        return self.rows(table, table.folder, names).select(names)

    def analyzed_fingerprint(self) -> str:
        """Changes whenever the rows of clips or strips may have: they are a function of the contents that
        could be analyzed, whatever their names, and of the analysis."""
        rows = self._sources(["source_id", "status"])
        good = pc.is_in(rows["status"], value_set=pa.array(["ok", "salvaged"]))
        ids = rows["source_id"].filter(good).unique()
        ids = ids.take(pc.sort_indices(ids))
        joined = pc.binary_join(pa.ListArray.from_arrays([0, len(ids)], ids), "\n")[0]
        digest = hashlib.sha256(joined.as_buffer()).hexdigest()
        return fingerprint(self.fingerprints().get(ANALYZE), digest)

    def _taken_down(self) -> pa.Array:
        return self.takedowns()["source_id"].combine_chunks()

    def _not_taken_down(self, rows: pa.Table) -> pa.Table:
        """The rows but those of clips whose source was taken down."""
        return _filtered(rows, pc.invert(pc.is_in(sources_of(rows["clip_id"]), value_set=self._taken_down())))

    def _sources(self, columns: Iterable[str], *, taken_down: bool = False) -> pa.Table:
        """The rows of current inputs; without those of sources that were taken down, unless they are asked
        for."""
        rows = self.rows(SOURCES, ANALYZE, ["source_key", "source_id", *columns])
        mask = pc.is_in(rows["source_key"], value_set=self.inputs()["source_key"].combine_chunks())
        if not taken_down:
            gone = pc.is_in(rows["source_id"], value_set=self._taken_down())
            mask = pc.and_(mask, pc.invert(gone))
        return _filtered(rows, mask)

    def _current(self) -> pa.Array:
        """source_id of every current content."""
        return self._sources([])["source_id"].unique().drop_null()

    def rows(self, table: RowTable, place: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Current rows, whatever the inputs are: these columns and those of the key."""
        names = [*dict.fromkeys([*table.key, *(columns or ())])]
        current = self.fingerprints().get(place)
        if current is None:
            return table.schema.empty_table().select(names)
        now = snapshot.look(self.storage, table, current)
        known = self._known(table.folder, now)
        if lacking := [name for name in names if name not in known]:
            then, rows = snapshot.read(self.storage, table, current, lacking)
            if then != now:  # another command wrote meanwhile
                known, (then, rows) = {}, snapshot.read(self.storage, table, current, names)
            known = known | {name: rows[name] for name in rows.column_names}
            self._hold(table.folder, then, known)
        return pa.table([known[name] for name in names], names=names)

    def _table(self, rel: str, schema: pa.Schema) -> pa.Table:
        now = self.storage.stamp(rel)
        if now[0] < 0:
            return schema.empty_table()
        known = self._known(rel, now)
        if not known:
            rows = tables.from_parquet(self.storage.read_bytes(rel), schema)
            known = {name: rows[name] for name in rows.column_names}
            self._hold(rel, now, known)
        return pa.table([known[name] for name in schema.names], schema=schema)

    def _known(self, name: str, state: object) -> dict[str, pa.ChunkedArray]:
        """The columns of a table that are held, as long as it is what it was."""
        before, columns = self._held.get(name, (None, {}))
        return columns if before == state else {}

    def _hold(self, name: str, state: object, columns: dict[str, pa.ChunkedArray]) -> None:
        self._held.pop(name, None)
        if sum(column.nbytes for column in columns.values()) <= HELD_BYTES:
            self._held[name] = (state, columns)


def kept(judged: pa.Table) -> pa.Table:
    """Of judged rows, those of the clips that stay."""
    return judged.filter(pc.equal(judged["status"], "kept"))


def _filtered(rows: pa.Table, mask: pa.ChunkedArray) -> pa.Table:
    """The rows where the mask holds; no copy where it does everywhere."""
    return rows if pc.all(mask).as_py() else rows.filter(mask)
