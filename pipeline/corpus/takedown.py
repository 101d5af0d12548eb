"""Takes sources down: nothing of them stays in the corpus, and no later run brings them back.

In: a corpus and source ids (or uris). Out: what is affected, and, unless only that was asked for, a
corpus without it. The tombstone in takedowns.parquet is written first; from then on every reader leaves
these sources out and the analysis does not decode them again. Then their rows, frames, captions and
latents are erased, part by part: killed half way, the same command finishes it. Never decodes, never
encodes, and never touches the source files themselves or trained checkpoints.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, TAKEDOWNS_PATH, TAKEN_DOWN, Corpus
from pipeline.corpus.shards import INDEX_NAME, read_tar, write_shard
from pipeline.errors import StorageError, UsageError
from pipeline.uris import tar_members

ID_COLUMNS = {"source_id", "clip_id", "status"}
ANALYZED = ("clips", "strips")  # their parts share keys with those of sources/
REPORT_PATH = "report/index.html"  # shows frames


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
    found = traces(corpus, ids)
    if dry_run:
        return found
    _bury(corpus, found, reason)
    corpus.sweep_pieces()  # half-done analyses; they can be made again
    indexes = [path for path in found.tables if path.endswith(INDEX_NAME)]
    for path in (*found.report, *indexes):
        corpus.storage.delete(path)  # no reader may follow an index into a tar that changes
    for path in found.shards:
        _erase_from_tar(corpus, path, ids)
    for path in set(found.tables) - set(indexes):
        _erase_from_table(corpus, path, ids)
    for path in indexes:
        _write_index(corpus, path)
    return found


def traces(corpus: Corpus, ids: Sequence[str]) -> Traces:
    """Everything in the corpus folder that is of these sources, history included."""
    wanted = pa.array(sorted(ids), pa.string())
    clips: set[str] = set()
    hit: list[str] = []
    skip: set[str] = set()  # parts that hold no such source
    for path in _parquet_files(corpus):
        folder, _, name = path.rpartition("/")
        if folder in ANALYZED and name in skip:
            continue
        known = set(corpus.storage.column_names(path))
        if not known & {"source_id", "clip_id"}:
            continue
        rows = corpus.storage.read_columns(path, sorted(known & ID_COLUMNS))
        mask = _of(rows, wanted)
        if "clip_id" in rows.column_names:
            clips |= set(rows.filter(mask)["clip_id"].to_pylist())
        if folder == "sources":
            skip |= set() if pc.any(mask).as_py() else {name}
            mask = pc.and_(mask, pc.not_equal(rows["status"], TAKEN_DOWN))
        if pc.any(mask).as_py():
            hit.append(path)
    sources = corpus.sources()
    uris = sources.filter(pc.is_in(sources["source_id"], value_set=wanted))["uri"].to_pylist()
    return Traces(
        sources=tuple(sorted(ids)),
        uris=tuple(uris),
        clips=tuple(sorted(clips)),
        tables=tuple(hit),
        shards=tuple(_tars_with(corpus, set(ids))),
        report=(REPORT_PATH,) if hit and corpus.storage.exists(REPORT_PATH) else (),
        copies=tuple(_copies(corpus, clips, set(ids))),
    )


def as_dict(found: Traces) -> dict[str, list[str]]:
    return {name: list(values) for name, values in dataclasses.asdict(found).items()}


def as_lines(found: Traces, *, dry_run: bool) -> list[str]:
    """What was found, for people."""
    listed = [
        f"{name} {len(values)}: {', '.join(values) or 'none'}"
        for name, values in as_dict(found).items()
        if name not in ("copies", "report")
    ]
    if found.copies:
        listed.append(f"left alone, though they hold copies of these clips: {', '.join(found.copies)}")
    done = "nothing was changed" if dry_run else "taken down; framemill run does the rest (judgement, report)"
    return [*listed, done]


def _source_ids(corpus: Corpus, names: Sequence[str]) -> list[str]:
    rows = corpus.sources().select(["source_id", "uri"]).to_pylist()
    known = {row["source_id"] for row in rows} | set(corpus.takedowns()["source_id"].to_pylist())
    by_uri = {row["uri"]: row["source_id"] for row in rows}
    ids = set()
    for name in names:
        source_id = name if name in known else by_uri.get(name)
        if source_id is None:
            raise UsageError(
                f"no source {name} in {corpus.root}",
                expected="a source_id or a uri of its sources table",
                fix="look it up in sources/*.parquet or in a sample's json",
            )
        ids.add(source_id)
    return sorted(ids)


def _bury(corpus: Corpus, found: Traces, reason: str) -> None:
    """Adds the tombstones, one a source; those that are there stay as they are."""
    old = corpus.takedowns().to_pylist()
    uris: dict[str, list[str]] = {source_id: [] for source_id in found.sources}
    for row in corpus.sources().select(["source_id", "uri"]).to_pylist():
        uris.get(row["source_id"], []).append(row["uri"])
    buried = {row["source_id"] for row in old}
    fresh = [{"source_id": i, "uris": uris[i], "reason": reason} for i in found.sources if i not in buried]
    rows = sorted(old + fresh, key=lambda row: row["source_id"])
    corpus.storage.write_bytes(TAKEDOWNS_PATH, tables.to_parquet(tables.from_rows(rows, tables.TAKEDOWNS)))


def _erase_from_table(corpus: Corpus, path: str, ids: Sequence[str]) -> None:
    """Drops the rows; of sources/ it keeps them as `taken down`, so that their part covers its inputs."""
    if not corpus.storage.exists(path):  # a part that went with its tar
        return
    rows = pq.read_table(pa.BufferReader(corpus.storage.read_bytes(path)))
    mask = _of(rows, pa.array(sorted(ids), pa.string()))
    if path.startswith("sources/"):
        bare = ("source_key", "source_id", "uri", "size_bytes")
        gone = [{n: row[n] for n in bare} | {"status": TAKEN_DOWN} for row in rows.filter(mask).to_pylist()]
        kept = rows.filter(pc.invert(mask)).to_pylist()
        order = {key: place for place, key in enumerate(rows["source_key"].to_pylist())}
        merged = sorted(kept + gone, key=lambda row: order[row["source_key"]])
        rows = pa.Table.from_pylist(merged, schema=rows.schema)
    else:
        rows = rows.filter(pc.invert(mask))
    corpus.storage.write_bytes(path, tables.to_parquet(rows))


def _erase_from_tar(corpus: Corpus, path: str, ids: Sequence[str]) -> None:
    """Writes the tar and its part again without the samples; the other samples keep their bytes."""
    folder, _, shard = path.rpartition("/")
    samples = read_tar(corpus.storage.read_bytes(path))
    data, index = write_shard([s for s in samples if s.record["source_id"] not in ids], shard)
    part = next((p for p, rows in _parts(corpus, folder) if shard in rows["shard"].to_pylist()), None)
    if part is None:  # an unfinished encode: it plans this shard again
        corpus.storage.write_bytes(path, data)
        return
    rows = tables.from_parquet(corpus.storage.read_bytes(part), tables.INDEX).to_pylist()
    failed = [row for row in rows if row["status"] != "ok" and row["source_id"] not in ids]
    corpus.storage.delete(part)  # a part means that its tar is whole and its own
    if not index and not failed:
        corpus.storage.delete(path)
        return
    corpus.storage.write_bytes(path, data)
    merged = tables.from_rows(sorted(index + failed, key=lambda row: row["clip_id"]), tables.INDEX)
    corpus.storage.write_bytes(part, tables.to_parquet(merged))


def _write_index(corpus: Corpus, path: str) -> None:
    """The index of the parts as they are now: the set can be read again at once."""
    parts = [rows for _, rows in _parts(corpus, path.removesuffix(f"/{INDEX_NAME}"))]
    index = pa.concat_tables([tables.INDEX.empty_table(), *parts]).sort_by("clip_id")
    corpus.storage.write_bytes(path, tables.to_parquet(index))


def _parts(corpus: Corpus, folder: str) -> list[tuple[str, pa.Table]]:
    paths = [f"{folder}/parts/{name}" for name in corpus.storage.list(f"{folder}/parts", ".parquet")]
    return [(p, tables.from_parquet(corpus.storage.read_bytes(p), tables.INDEX)) for p in paths]


def _tars_with(corpus: Corpus, ids: set[str]) -> list[str]:
    """Shards whose members bear one of the ids: a sample's key begins with its source's."""
    found = []
    for folder in _latent_sets(corpus):
        for name in corpus.storage.list(folder, ".tar"):
            path = f"{corpus.root}/{folder}/{name}"
            members, problem = tar_members(path)
            if problem:
                raise StorageError(f"cannot read {path}: {problem}")
            keys = (member.name for member in members)
            if any(key.partition("-")[0] in ids for key in keys):
                found.append(f"{folder}/{name}")
    return found


def _latent_sets(corpus: Corpus) -> list[str]:
    return sorted(s for s in corpus.fingerprints() if s.startswith("latents/"))


def _parquet_files(corpus: Corpus) -> list[str]:
    """Every table below the root but the inputs and the tombstones; sources first."""
    found = set(corpus.storage.find(".parquet")) - {INPUTS_PATH, TAKEDOWNS_PATH}
    return sorted(found, key=lambda path: (not path.startswith("sources/"), path))


def _of(rows: pa.Table, ids: pa.Array) -> pa.ChunkedArray:
    """bool [N]: the rows of these sources, by source_id or by the source_id that leads a clip_id."""
    if "source_id" in rows.column_names:
        return pc.is_in(rows["source_id"], value_set=ids)
    return pc.is_in(pc.utf8_slice_codeunits(rows["clip_id"], 0, 16), value_set=ids)


def _copies(corpus: Corpus, clips: set[str], ids: set[str]) -> list[str]:
    """Other sources that hold a clip whose duplicate is one of these, either way round."""
    found: set[str] = set()
    for row in corpus.judged().filter(pc.is_valid(corpus.judged()["duplicate_of"])).to_pylist():
        pair = {row["clip_id"], row["duplicate_of"]}
        if pair & clips:
            found |= {clip_id.partition("-")[0] for clip_id in pair} - ids
    return sorted(found)
