"""Takes sources down: nothing of them stays in the corpus, and no later run brings them back.

In: a corpus and source ids (or uris). Out: what is affected, and, unless only that was asked for, a
corpus without it. The tombstone in takedowns.parquet is written first; from then on every reader leaves
these sources out and the analysis does not decode them again. Then their rows, frames, captions and
latents are erased, history included, table by table: killed half way, the same command finishes it. Never
decodes, never encodes, and never touches the source files themselves or trained checkpoints.

Compacted tables say where rows lie: of each file one column is read, the table strip_parts names the
filmstrips, the index of a latent set its tars. What was put back behind their backs, from a backup say, is
found by opening everything, which `open_all` asks for.
"""

import dataclasses
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import folding, snapshot, tables
from pipeline.corpus.compaction import Edit
from pipeline.corpus.corpus import INPUTS_PATH, TAKEDOWNS_PATH, TAKEN_DOWN, Corpus
from pipeline.corpus.ids import source_of, sources_of
from pipeline.corpus.latent_set import LATENTS_FOLDER, OK, LatentSet, repacked
from pipeline.corpus.manifest import SOURCES, STRIP_PARTS, RowTable, place_of, tables_of
from pipeline.corpus.set_captions import erase_captions
from pipeline.errors import StorageError, UsageError
from pipeline.storage import Storage, read_parquet
from pipeline.uris import tar_members

LOG = logging.getLogger(__name__)
REPORT_PATH = "report/index.html"  # shows frames
ROWS_PATH = re.compile(  # a file of a row table, of this corpus or of one inside it (an evaluation set's)
    r"(?P<root>(?:.*/)?)(?P<folder>sources|clips|prints|strip_parts|(?:captions|embeddings|text)/[^/]+)/"
    r"(?P<fingerprint>[^/.-]+)[.-][^/]*\.parquet"
)
SET_PATH = re.compile(rf"{LATENTS_FOLDER}/[^/]+/(index|captions[^/]*|pieces/[^/]+|parts/[^/]+)\.parquet")
STRIPS_PATH = re.compile(r"(?P<root>(?:.*/)?)strips/(?P<key>[^/]+)\.parquet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Traces:
    """What the corpus holds of some sources. Paths are relative to its root."""

    sources: tuple[str, ...]
    uris: tuple[str, ...]
    clips: tuple[str, ...]
    tables: tuple[str, ...]  # Parquet files with rows of them
    shards: tuple[str, ...]  # tars with samples of them
    report: tuple[str, ...]  # the report, which shows frames, when there is one
    copies: tuple[str, ...]  # other sources with clips judged duplicates of these: they stay

    @property
    def gone(self) -> bool:
        return not (self.clips or self.tables or self.shards)


def take_down(corpus: Corpus, names: Sequence[str], *, reason: str = "", dry_run: bool = False) -> Traces:
    """Erases the named sources; returns what there was of them.

    Raises:
        UsageError: a name is neither a source_id nor a uri of this corpus.
    """
    ids = _source_ids(corpus, names)
    left = traces(corpus, ids, open_all=not dry_run)
    if dry_run:
        return left
    _bury(corpus, left, reason)
    corpus.fold_all()
    corpus.sweep_pieces()  # half-done analyses; they can be made again
    for path in left.report:
        corpus.storage.delete(path)
    of_sets = [path for path in (*left.tables, *left.shards) if path.startswith(f"{LATENTS_FOLDER}/")]
    for name in sorted({path.split("/")[1] for path in of_sets}):
        latents = LatentSet(corpus.storage, name)
        tars = [path for path in left.shards if path.startswith(f"{latents.folder}/")]
        _erase_from_set(corpus, latents, [path.rpartition("/")[2] for path in tars], ids)
    _erase_from_row_tables(corpus, left, ids)
    for path in left.tables:
        if not ROWS_PATH.fullmatch(path) and not SET_PATH.fullmatch(path):
            _erase_from_table(corpus, path, ids)
    LOG.info("took down %s: %d clips", ", ".join(left.sources) or "nothing", len(left.clips))
    return left


def traces(corpus: Corpus, ids: Sequence[str], *, open_all: bool = False) -> Traces:
    """Everything in the corpus folder that is of these sources, history included."""
    wanted = pa.array(sorted(ids), pa.string())
    clips: set[str] = set()
    hit: list[str] = []
    indexed: dict[str, set[str]] = {}  # root of a corpus → keys of parts of strips/ that its tables name
    bearing: set[tuple[str, str]] = set()  # (root, key) of those with strips of these sources
    for path in _parquet_files(corpus):
        if strip := STRIPS_PATH.fullmatch(path):
            root, key = strip["root"], strip["key"]
            if not open_all and key in indexed.get(root, ()) and (root, key) not in bearing:
                continue
        rows = _id_columns(corpus.storage, path)
        if rows is None:
            continue
        mask = _of(rows, wanted)
        if file := ROWS_PATH.fullmatch(path):
            parts, of_ids = _strip_parts(path, file["folder"], rows, mask)
            indexed.setdefault(file["root"], set()).update(parts)
            bearing |= {(file["root"], key) for key in of_ids}
        if "clip_id" in rows.column_names:
            clips |= set(rows.filter(mask)["clip_id"].to_pylist())
        if file and file["folder"] == SOURCES.folder:
            mask = pc.and_(mask, pc.not_equal(rows["status"], TAKEN_DOWN))
        if pc.any(mask).as_py():
            hit.append(path)
    sources = corpus.sources(["source_id", "uri"])
    uris = sources.filter(pc.is_in(sources["source_id"], value_set=wanted))["uri"].to_pylist()
    return Traces(
        sources=tuple(sorted(ids)),
        uris=tuple(uris),
        clips=tuple(sorted(clips)),
        tables=tuple(hit),
        shards=tuple(_tars_with(corpus, set(ids), open_all=open_all)),
        report=(REPORT_PATH,) if hit and corpus.storage.exists(REPORT_PATH) else (),
        copies=tuple(_copies(corpus, clips, set(ids))),
    )


def _id_columns(storage: Storage, path: str) -> pa.Table | None:
    """The columns of a table that say of which sources its rows are; None where none does."""
    if file := ROWS_PATH.fullmatch(path):
        (table,) = (t for t in tables_of(place_of(file["folder"])) if t.folder == file["folder"])
        also = {SOURCES.folder: ["source_id", "status"], STRIP_PARTS.folder: ["part"]}
        return storage.read_columns(path, [table.id, *also.get(table.folder, ())])
    known = {"clip_id"} if STRIPS_PATH.fullmatch(path) else set(storage.column_names(path))
    names = sorted(known & {"source_id", "clip_id"})
    return storage.read_columns(path, names) if names else None


def _strip_parts(path: str, folder: str, rows: pa.Table, mask: pa.ChunkedArray) -> tuple[set[str], set[str]]:
    """Which parts of strips/ a table of sources or of strip_parts tells of, and which of them are of the
    sources of the mask."""
    if folder == STRIP_PARTS.folder:
        return set(rows["part"].unique().to_pylist()), set(rows["part"].filter(mask).to_pylist())
    key = path.rpartition("/")[2].removesuffix(".parquet")
    if folder != SOURCES.folder or "." in key:
        return set(), set()
    return {key}, {key} if pc.any(mask).as_py() else set()


def as_dict(left: Traces) -> dict[str, list[str]]:
    return {name: list(values) for name, values in dataclasses.asdict(left).items()}


def as_lines(left: Traces, *, dry_run: bool) -> list[str]:
    """The traces, for people."""
    listed = [
        f"{name} {len(values)}: {', '.join(values) or 'none'}"
        for name, values in as_dict(left).items()
        if name not in ("copies", "report")
    ]
    if left.copies:
        listed.append(f"left alone, though they hold copies of these clips: {', '.join(left.copies)}")
    done = "nothing was changed" if dry_run else "taken down; framemill run does the rest (judgement, report)"
    return [*listed, done]


def _source_ids(corpus: Corpus, names: Sequence[str]) -> list[str]:
    rows, buried = corpus.sources(["source_id", "uri"]), corpus.takedowns()["source_id"]
    ids = set()
    for name in names:
        of_uri = rows["source_id"].filter(pc.equal(rows["uri"], name)).drop_null()
        if any(pc.any(pc.equal(known, name)).as_py() for known in (rows["source_id"], buried)):
            ids.add(name)
        elif len(of_uri):
            ids.add(of_uri[0].as_py())
        else:
            raise UsageError(
                f"no source {name} in {corpus.root}",
                expected="a source_id or a uri of its sources table",
                fix="look it up in sources/*.parquet or in a sample's json",
            )
    return sorted(ids)


def _bury(corpus: Corpus, left: Traces, reason: str) -> None:
    """Adds the tombstones, one a source; those that are there stay as they are."""
    old = corpus.takedowns().to_pylist()
    uris: dict[str, list[str]] = {source_id: [] for source_id in left.sources}
    rows = corpus.sources(["source_id", "uri"])
    for row in rows.filter(pc.is_in(rows["source_id"], value_set=pa.array([*uris], pa.string()))).to_pylist():
        uris[row["source_id"]].append(row["uri"])
    buried = {row["source_id"] for row in old}
    fresh = [{"source_id": i, "uris": uris[i], "reason": reason} for i in left.sources if i not in buried]
    rows = sorted(old + fresh, key=lambda row: row["source_id"])
    corpus.storage.write_bytes(TAKEDOWNS_PATH, tables.to_parquet(tables.from_rows(rows, tables.TAKEDOWNS)))


def _erase_from_row_tables(corpus: Corpus, left: Traces, ids: Sequence[str]) -> None:
    """Drops the rows of every fingerprint; of sources it keeps them as `taken down`, since their inputs are
    covered. Parts that no done-marker stands for are of killed tasks, and go."""
    wanted = pa.array(sorted(ids), pa.string())
    files = [file for file in map(ROWS_PATH.fullmatch, left.tables) if file]
    for root, place, prefix in sorted({(f["root"], place_of(f["folder"]), f["fingerprint"]) for f in files}):
        storage = Storage(f"{corpus.root}/{root}")
        edits: dict[str, Edit] = {}
        for table in tables_of(place):
            _, rows = snapshot.read(storage, table, prefix, ["source_id"] if table is SOURCES else [])
            of_ids = rows.filter(_of(rows, wanted))[table.id].combine_chunks()
            if table.folder.startswith("text/"):
                of_ids = _erase_text_tars(storage, table, prefix, of_ids)
            edits[table.folder] = Edit(ids=of_ids, change=_bare if table is SOURCES else None)
        folding.fold(storage, tables_of(place), prefix, edits)
    corpus.storage.delete_all(file[0] for file in files if re.fullmatch(r"[^.]*\.parquet", file[0]))


def _erase_text_tars(storage: Storage, table: RowTable, prefix: str, ids: pa.Array) -> pa.Array:
    """Deletes the tars with features of these clips, and those that no row names; all clips with rows in the
    former, whose features are made again by the next `framemill text`."""
    gone = [ids]
    for path, clip_ids in snapshot.tars_of_text(storage, table, prefix).items():
        if not len(clip_ids) or pc.any(pc.is_in(clip_ids, value_set=ids)).as_py():
            storage.delete(path)
            gone.append(clip_ids)
    return pc.unique(pa.chunked_array(gone, pa.string()))


def _bare(sources: pa.Table) -> pa.Table:
    """The rows of sources that were taken down: what they were asked for as, and nothing of what they
    show."""
    bare = ("source_key", "source_id", "uri", "size_bytes")
    rows = [{name: row[name] for name in bare} | {"status": TAKEN_DOWN} for row in sources.to_pylist()]
    return tables.from_rows(rows, tables.SOURCES)


def _erase_from_table(corpus: Corpus, path: str, ids: Sequence[str]) -> None:
    """Drops the rows from a table that is one file."""
    rows = read_parquet(pa.BufferReader(corpus.storage.read_bytes(path)))
    rows = rows.filter(pc.invert(_of(rows, pa.array(sorted(ids), pa.string()))))
    corpus.storage.write_bytes(path, tables.to_parquet(rows))


def _erase_from_set(corpus: Corpus, latents: LatentSet, shards: Sequence[str], ids: Sequence[str]) -> None:
    """Takes the sources out of a set. Each tar that holds one gives its other live samples to a new one, and
    goes when the index says so: whoever reads the set meanwhile reads it as it was or as it will be."""
    storage, gone = corpus.storage, pa.array(sorted(ids), pa.string())
    for key in latents.piece_keys():
        if pc.any(_of(latents.piece(key)[0], gone)).as_py():  # it is made again, without them
            storage.delete_all([latents.piece_path(key), latents.piece_path(key, ".tar")])
    storage.delete_all(map(latents.part_path, latents.part_keys()))
    state = latents.state()
    if state.rows.num_rows:
        named = set(pc.unique(state.rows["shard"]).to_pylist())
        touched = [[shard] for shard in shards if shard in named]
        state, sums = repacked(latents, state, touched, pc.invert(_of(state.rows, gone)))
        latents.commit(state, sums)
        live = state.rows.filter(pc.equal(state.rows["status"], OK))["clip_id"].combine_chunks()
        for name in storage.list(latents.folder, ".parquet"):
            if name.startswith("captions"):
                erase_captions(storage, f"{latents.folder}/{name}", live)
    storage.delete_all(map(latents.shard_path, shards))


def _tars_with(corpus: Corpus, ids: set[str], *, open_all: bool) -> list[str]:
    """Shards with samples of these sources: by the rows of the set, and of tars that no row names by the
    names of their members, which begin with their source's."""
    hit = []
    for latents in (LatentSet(corpus.storage, name) for name in corpus.sets("latents")):
        rows = latents.state().rows
        of_ids = pc.is_in(rows["source_id"], value_set=pa.array(sorted(ids), pa.string()))
        named = rows["shard"].filter(of_ids).unique().drop_null().to_pylist()
        there = set(latents.shards())
        hit += [latents.shard_path(shard) for shard in named if shard in there]
        known = set() if open_all else set(rows["shard"].unique().to_pylist())
        for path in (latents.shard_path(shard) for shard in sorted(there - known)):
            members, problem = tar_members(f"{corpus.root}/{path}")
            if problem:
                raise StorageError(f"cannot read {corpus.root}/{path}: {problem}")
            if any(source_of(member.name) in ids for member in members):
                hit.append(path)
    return sorted(set(hit))


def _parquet_files(corpus: Corpus) -> list[str]:
    """Every table below the root but the inputs and the tombstones; filmstrips after the tables that name
    them."""
    paths = set(corpus.storage.find(".parquet")) - {INPUTS_PATH, TAKEDOWNS_PATH}
    return sorted(paths, key=lambda path: (bool(STRIPS_PATH.fullmatch(path)), path))


def _of(rows: pa.Table, ids: pa.Array) -> pa.ChunkedArray:
    """bool [N]: the rows of these sources, by source_id or by the source_id that leads a clip_id."""
    if "source_id" in rows.column_names:
        return pc.is_in(rows["source_id"], value_set=ids)
    return pc.is_in(sources_of(rows["clip_id"]), value_set=ids)


def _copies(corpus: Corpus, clips: set[str], ids: set[str]) -> list[str]:
    """Other sources that hold a clip whose duplicate is one of these, either way round."""
    ours, others = pa.array(sorted(clips), pa.string()), set[str]()
    judged = corpus.judged().select(["clip_id", "duplicate_of"])
    for one, other in (("clip_id", "duplicate_of"), ("duplicate_of", "clip_id")):
        pairs = judged.filter(pc.and_(pc.is_in(judged[one], value_set=ours), pc.is_valid(judged[other])))
        others |= {source_of(clip_id) for clip_id in pairs[other].to_pylist()}
    return sorted(others - ids)
