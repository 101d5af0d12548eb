"""Takes sources down: nothing of them stays in the corpus, and no later run brings them back.

In: a corpus and source ids (or uris). Out: what is affected, and, unless only that was asked for, a
corpus without it. The tombstone in takedowns.parquet is written first; from then on every reader leaves
these sources out and the analysis does not decode them again. Then their rows, frames, captions and
latents are erased, part by part: killed half way, the same command finishes it. Never decodes, never
encodes, and never touches the source files themselves or trained checkpoints.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, TAKEDOWNS_PATH, TAKEN_DOWN, Corpus
from pipeline.corpus.ids import source_of, sources_of
from pipeline.corpus.shards import INDEX_NAME, LatentSet, read_tar, write_shard
from pipeline.errors import StorageError, UsageError
from pipeline.storage import read_parquet
from pipeline.uris import tar_members

LOG = logging.getLogger(__name__)
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
    left = traces(corpus, ids)
    if dry_run:
        return left
    _bury(corpus, left, reason)
    corpus.sweep_pieces()  # half-done analyses; they can be made again
    for path in left.report:
        corpus.storage.delete(path)
    sets = [LatentSet.around(corpus.storage, path) for path in left.tables if path.endswith(f"/{INDEX_NAME}")]
    for latents in sets:
        latents.open()
    for path in left.shards:
        _erase_from_tar(corpus, path, ids)
    for path in set(left.tables) - {latents.index_path for latents in sets}:
        _erase_from_table(corpus, path, ids)
    for latents in sets:
        latents.close(latents.part_keys())  # the set can be read again at once
    LOG.info("took down %s: %d clips", ", ".join(left.sources) or "nothing", len(left.clips))
    return left


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


def _bury(corpus: Corpus, left: Traces, reason: str) -> None:
    """Adds the tombstones, one a source; those that are there stay as they are."""
    old = corpus.takedowns().to_pylist()
    uris: dict[str, list[str]] = {source_id: [] for source_id in left.sources}
    for row in corpus.sources().select(["source_id", "uri"]).to_pylist():
        uris.get(row["source_id"], []).append(row["uri"])
    buried = {row["source_id"] for row in old}
    fresh = [{"source_id": i, "uris": uris[i], "reason": reason} for i in left.sources if i not in buried]
    rows = sorted(old + fresh, key=lambda row: row["source_id"])
    corpus.storage.write_bytes(TAKEDOWNS_PATH, tables.to_parquet(tables.from_rows(rows, tables.TAKEDOWNS)))


def _erase_from_table(corpus: Corpus, path: str, ids: Sequence[str]) -> None:
    """Drops the rows; of sources/ it keeps them as `taken down`, so that their part covers its inputs."""
    if not corpus.storage.exists(path):  # a part that went with its tar
        return
    rows = read_parquet(pa.BufferReader(corpus.storage.read_bytes(path)))
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
    latents, shard = LatentSet.around(corpus.storage, path), path.rpartition("/")[2]
    samples = read_tar(corpus.storage.read_bytes(path))
    data, index = write_shard([s for s in samples if s.record["source_id"] not in ids], shard)
    keys = (key for key in latents.part_keys() if shard in latents.part(key)["shard"].to_pylist())
    key = next(keys, None)
    if key is None:  # an unfinished encode: it plans this shard again
        corpus.storage.write_bytes(path, data)
        return
    part, rows = latents.part_path(key), latents.part(key).to_pylist()
    failed = [row for row in rows if row["status"] != "ok" and row["source_id"] not in ids]
    corpus.storage.delete(part)  # before its tar changes
    if not index and not failed:
        corpus.storage.delete(path)
        return
    corpus.storage.write_bytes(path, data)
    merged = tables.from_rows(sorted(index + failed, key=lambda row: row["clip_id"]), tables.INDEX)
    corpus.storage.write_bytes(part, tables.to_parquet(merged))


def _tars_with(corpus: Corpus, ids: set[str]) -> list[str]:
    """Shards whose members bear one of the ids: a sample's key begins with its source's."""
    hit = []
    for latents in (LatentSet(corpus.storage, name) for name in corpus.sets("latents")):
        for path in map(latents.shard_path, latents.shards()):
            members, problem = tar_members(f"{corpus.root}/{path}")
            if problem:
                raise StorageError(f"cannot read {corpus.root}/{path}: {problem}")
            if any(source_of(member.name) in ids for member in members):
                hit.append(path)
    return hit


def _parquet_files(corpus: Corpus) -> list[str]:
    """Every table below the root but the inputs and the tombstones; sources first."""
    paths = set(corpus.storage.find(".parquet")) - {INPUTS_PATH, TAKEDOWNS_PATH}
    return sorted(paths, key=lambda path: (not path.startswith("sources/"), path))


def _of(rows: pa.Table, ids: pa.Array) -> pa.ChunkedArray:
    """bool [N]: the rows of these sources, by source_id or by the source_id that leads a clip_id."""
    if "source_id" in rows.column_names:
        return pc.is_in(rows["source_id"], value_set=ids)
    return pc.is_in(sources_of(rows["clip_id"]), value_set=ids)


def _copies(corpus: Corpus, clips: set[str], ids: set[str]) -> list[str]:
    """Other sources that hold a clip whose duplicate is one of these, either way round."""
    others: set[str] = set()
    for row in corpus.judged().filter(pc.is_valid(corpus.judged()["duplicate_of"])).to_pylist():
        pair = {row["clip_id"], row["duplicate_of"]}
        if pair & clips:
            others |= {source_of(clip_id) for clip_id in pair} - ids
    return sorted(others)
