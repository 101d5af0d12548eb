"""The corpus folder: where things lie, which parts exist, which rows are current.

In: a root (local or s3://). Out: Arrow tables, sorted by id. A part is named
`<stage fingerprint>-<hash of its inputs>.parquet`, and corpus.toml holds the current fingerprint of
each stage: parts made with another config, code version or model are history and are never read.
"""

import secrets
import tomllib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.ids import sources_of
from pipeline.corpus.lease import Lease, held
from pipeline.errors import FormatError, UsageError
from pipeline.settings import build, fingerprint, to_toml
from pipeline.storage import Storage

INPUTS_PATH = "inputs.parquet"
JUDGED_PATH = "judged.parquet"
CONFIG_PATH = "corpus.toml"
TAKEDOWNS_PATH = "takedowns.parquet"
PIECES_FOLDER = "segments"  # packed pieces of long sources, until they are joined
TAKEN_DOWN = "taken down"  # a source's status
FORMAT_VERSION = 1


class Corpus:
    """Reads and names the tables of one corpus."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.storage = Storage(root)
        self.run_id = secrets.token_hex(4)  # of the receipts that are written through this object
        self._lease: Lease | None = None

    # -- corpus.toml ------------------------------------------------------------------------------

    def require(self) -> "Corpus":
        """This corpus, or an error when there is none at the root."""
        if not self.storage.exists(CONFIG_PATH):
            raise FormatError(f"no corpus at {self.root}", fix=f"framemill analyze SRC --out {self.root}")
        return self

    def _toml(self) -> dict[str, dict[str, object]]:
        if not self.storage.exists(CONFIG_PATH):
            return {}
        try:
            values = tomllib.loads(self.storage.read_bytes(CONFIG_PATH).decode())
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise FormatError(
                f"{self.root}/{CONFIG_PATH} is not TOML: {error}",
                fix=f"delete it and run framemill analyze SRC --out {self.root}: whole parts are kept",
            ) from error
        if values.get("corpus", {}).get("format_version") != FORMAT_VERSION:
            raise FormatError(
                f"{self.root} has another corpus format", expected=f"format_version {FORMAT_VERSION}"
            )
        return values

    def config(self) -> Config:
        """The config of the last run."""
        sections = ("analyze", "judge", "caption", "encode")
        return build(Config, {name: value for name, value in self._toml().items() if name in sections})

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
        text = to_toml(head, config)
        data = text.encode()
        if not (self.storage.exists(CONFIG_PATH) and self.storage.read_bytes(CONFIG_PATH) == data):
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
                yield
            finally:
                self._lease = None

    def sweep_pieces(self) -> None:
        """Deletes all pieces of long sources: nothing is open any more, or what is can be made again."""
        for name in self.storage.list(PIECES_FOLDER):
            self.storage.delete(f"{PIECES_FOLDER}/{name}")

    # -- tables -----------------------------------------------------------------------------------

    def inputs(self) -> pa.Table:
        """What the last run was asked to take in, and what its manifests say of it."""
        return self._table(INPUTS_PATH, tables.INPUTS)

    def takedowns(self) -> pa.Table:
        """Sources that were taken down: no reader shows anything of them."""
        return self._table(TAKEDOWNS_PATH, tables.TAKEDOWNS)

    def taken_down_keys(self) -> list[str]:
        """source_key of every current input whose content was taken down."""
        rows = self.sources()
        return rows.filter(pc.equal(rows["status"], TAKEN_DOWN))["source_key"].to_pylist()

    def judged(self) -> pa.Table:
        """A row a judged clip, in the order of their ids."""
        return self._not_taken_down(self._table(JUDGED_PATH, tables.JUDGED))

    def kept(self) -> pa.Table:
        """The judged rows of the clips that stay."""
        return kept(self.judged())

    def sources(self) -> pa.Table:
        """A row a current input that was looked at, sorted by uri, those taken down included: SOURCES and
        the PROVENANCE columns, which are those of the inputs table and in no part. Equal content, equal
        source_id."""
        parts = [rows for _, rows in self._analyzed(taken_down=True)]
        rows = pa.concat_tables([tables.SOURCES.empty_table(), *parts]).sort_by("uri")
        gone = pc.is_in(rows["source_id"], value_set=self._taken_down())
        status = pc.if_else(gone, TAKEN_DOWN, rows["status"])
        rows = rows.set_column(rows.schema.get_field_index("status"), "status", status)
        inputs = self.inputs()
        where = pc.index_in(rows["source_key"], value_set=inputs["source_key"].combine_chunks())
        for field in tables.PROVENANCE:
            rows = rows.append_column(field[0], inputs[field[0]].take(where))
        return rows

    def provenance(self, *also: str) -> dict[str, dict[str, Any]]:
        """source_id → its uri, PROVENANCE columns and those named; of equal files, those of the first by
        uri."""
        names = [*(name for name, _ in tables.PROVENANCE), *also]
        rows = self.sources().select(["source_id", "uri", *names]).to_pylist()
        return {row.pop("source_id"): row for row in reversed(rows) if row["source_id"]}

    def clips(self) -> pa.Table:
        """A row a clip, sorted by clip_id. Files of equal content share their clips."""
        return self._of_sources("clips", tables.CLIPS)

    def clips_by_part(self) -> list[tuple[str, pa.Table]]:
        """(analyze part key, the clips that it holds first): what a task reads beside its filmstrips."""
        taken: set[str] = set()
        parts = []
        for key, sources in self._analyzed():
            fresh = pa.array(sorted(set(sources["source_id"].drop_null().to_pylist()) - taken), pa.string())
            taken |= set(fresh.to_pylist())
            rows = self._table(f"clips/{key}.parquet", tables.CLIPS)
            parts.append((key, rows.filter(pc.is_in(rows["source_id"], value_set=fresh)).sort_by("clip_id")))
        return parts

    def strips_part(self, key: str) -> pa.Table:
        """The filmstrips of one analyze part."""
        return self._table(f"strips/{key}.parquet", tables.STRIPS)

    def strips(self, clip_ids: Iterable[str] | None = None) -> pa.Table:
        """Filmstrips sorted by clip_id: all, or only those of these clips."""
        return self._of_sources("strips", tables.STRIPS, clip_ids)

    def prints(self) -> Iterator[pa.Table]:
        """clip_id and print of every current clip, a table a part; files of equal content come again."""
        for key, sources in self._analyzed():
            rows = self.storage.read_columns(f"strips/{key}.parquet", ["clip_id", "print"])
            current = pc.is_in(sources_of(rows["clip_id"]), value_set=sources["source_id"])
            yield rows.filter(pc.and_(current, pc.is_valid(rows["print"])))

    def captions(self, name: str) -> pa.Table:
        """A row a captioned clip, by the captioner whose folder is `name`, sorted by clip_id."""
        keys = self.part_keys(f"captions/{name}", f"captions/{name}")
        parts = [self._table(f"captions/{name}/{key}.parquet", tables.CAPTIONS) for key in keys]
        rows = _unique(pa.concat_tables([tables.CAPTIONS.empty_table(), *parts]), "clip_id")
        return self._not_taken_down(rows)

    def embeddings(self, name: str) -> pa.Table:
        """A row an embedded clip, by the embedder whose folder is `name`, sorted by clip_id."""
        keys = self.part_keys(f"embeddings/{name}", f"embeddings/{name}")
        parts = [self._table(f"embeddings/{name}/{key}.parquet", tables.EMBEDDINGS) for key in keys]
        return _unique(pa.concat_tables([tables.EMBEDDINGS.empty_table(), *parts]), "clip_id")

    def part_keys(self, folder: str, stage: str) -> list[str]:
        """Keys of the parts in `folder` that the stage's current fingerprint made."""
        current = self.fingerprints().get(stage)
        if current is None:
            return []
        names = self.storage.list(folder, ".parquet")
        return [n.removesuffix(".parquet") for n in names if n.startswith(f"{current[:8]}-")]

    def analyzed_fingerprint(self) -> str:
        """Changes whenever the rows of sources, clips or strips may have."""
        keys = [[key, *rows["source_key"].to_pylist()] for key, rows in self._analyzed()]
        return fingerprint(keys)

    def _taken_down(self) -> pa.Array:
        return self.takedowns()["source_id"].combine_chunks()

    def _not_taken_down(self, rows: pa.Table) -> pa.Table:
        """The rows but those of clips whose source was taken down."""
        gone = self._taken_down()
        return rows.filter(pc.invert(pc.is_in(sources_of(rows["clip_id"]), value_set=gone)))

    def _analyzed(self, *, taken_down: bool = False) -> list[tuple[str, pa.Table]]:
        """(part key, its rows that belong to current inputs) for every current analyze part; without the
        rows of sources that were taken down, unless they are asked for."""
        wanted = set(self.inputs()["source_key"].to_pylist())  # once, not a table of all keys per part
        gone = pa.array([], pa.string()) if taken_down else self._taken_down()
        parts = []
        for key in self.part_keys("sources", "analyze"):
            rows = self._table(f"sources/{key}.parquet", tables.SOURCES)
            rows = rows.filter(pa.array([k in wanted for k in rows["source_key"].to_pylist()], pa.bool_()))
            rows = rows.filter(pc.invert(pc.is_in(rows["source_id"], value_set=gone)))
            if rows.num_rows:
                parts.append((key, rows))
        return parts

    def _of_sources(self, folder: str, schema: pa.Schema, clip_ids: Iterable[str] | None = None) -> pa.Table:
        """Rows of the parts with current sources; with ids, only of parts with sources of theirs."""
        asked = None if clip_ids is None else pa.array(sorted(set(clip_ids)), pa.string())
        parts = [schema.empty_table()]
        for key, sources in self._analyzed():
            current = sources["source_id"]
            if asked is not None:
                current = current.filter(pc.is_in(current, value_set=sources_of(asked)))
            if not len(current):
                continue
            rows = self._table(f"{folder}/{key}.parquet", schema)
            mask = pc.is_in(sources_of(rows["clip_id"]), value_set=current)
            if asked is not None:
                mask = pc.and_(mask, pc.is_in(rows["clip_id"], value_set=asked))
            parts.append(rows.filter(mask))
        return _unique(pa.concat_tables(parts), "clip_id")

    def _table(self, rel: str, schema: pa.Schema) -> pa.Table:
        if not self.storage.exists(rel):
            return schema.empty_table()
        return tables.from_parquet(self.storage.read_bytes(rel), schema)


def kept(judged: pa.Table) -> pa.Table:
    """Of judged rows, those of the clips that stay."""
    return judged.filter(pc.equal(judged["status"], "kept"))


def _unique(rows: pa.Table, id_column: str) -> pa.Table:
    """The rows sorted by id, the first of each id only."""
    rows = rows.sort_by(id_column)
    ids = rows[id_column].combine_chunks()
    if rows.num_rows < 2:
        return rows
    fresh = pc.not_equal(ids[1:], ids[:-1])
    return rows.filter(pa.concat_arrays([pa.array([True]), fresh]))
