"""A set of latents on disk: its tars, the index that makes them a set, and what an unfinished encode left.

In: a corpus's storage and the name of a set, or the folder of one, local or s3://. Out: Arrow tables, latents
by index row. A tar that the index names never changes: a set grows by more tars, and whoever reads it by the
index that he has opened goes on doing so. What is known of the set as a whole (the number of the next tar,
latents.toml) stands in the index file too, so that one write makes all of it current; latents.toml lies
beside it for people. A set without an index cannot be read.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus import tables
from pipeline.corpus.shards import (
    BLOCK,
    END,
    INFO_NAME,
    ChannelSums,
    LatentsInfo,
    added,
    check_of,
    extent_of,
    info_to_toml,
    joined,
    padded,
    parse_latent,
    read_info,
)
from pipeline.errors import FormatError
from pipeline.storage import Storage

LATENTS_FOLDER = "latents"
INDEX_NAME = "index.parquet"
STATISTICS_NAME = "statistics.json"
ABOUT = b"framemill"  # the key of what a file says of the whole, in its Parquet metadata
OK, FAILED, DEAD = "ok", "failed", "dead"


def shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class SetState:
    """What the index file says: `rows` (schema INDEX; live, failed and dead), the number of the next tar, and
    latents.toml ("" in sets of older versions)."""

    rows: pa.Table
    next_shard: int = 0
    info: str = ""


def parse_index(data: bytes) -> SetState:
    """The state in the bytes of an index file."""
    rows = tables.from_parquet(data, tables.INDEX)
    about = about_of(pq.read_metadata(pa.BufferReader(data)))
    last = max(
        (int(name[6:12]) for name in rows["shard"].unique().drop_null().to_pylist() if name), default=-1
    )
    return SetState(rows=rows, next_shard=about.get("next_shard", last + 1), info=about.get("info", ""))


def about_of(metadata: pq.FileMetaData) -> dict[str, Any]:
    """What a Parquet file says of the whole."""
    values: dict[str, Any] = json.loads((metadata.metadata or {}).get(ABOUT, b"{}"))
    return values


def with_about(rows: pa.Table, about: Mapping[str, Any]) -> pa.Table:
    """The rows, whose file will say this."""
    return rows.replace_schema_metadata({ABOUT: json.dumps(about, sort_keys=True)})


@dataclass(frozen=True, slots=True)
class LatentSet:
    """Where everything of `latents/<name>` lies in a corpus. `storage` is the corpus's."""

    storage: Storage
    name: str

    @classmethod
    def around(cls, storage: Storage, path: str) -> "LatentSet":
        """The set that a path of the corpus lies in."""
        return cls(storage, path.split("/")[1])

    @property
    def folder(self) -> str:
        """Its folder in the corpus, which is the name of its stage too."""
        return f"{LATENTS_FOLDER}/{self.name}"

    @property
    def index_path(self) -> str:
        return f"{self.folder}/{INDEX_NAME}"

    def shard_path(self, shard: str) -> str:
        return f"{self.folder}/{shard}"

    def piece_path(self, key: str, suffix: str = ".parquet") -> str:
        """Of what one task has encoded, until the set holds it: a tar, and its rows, its done-marker."""
        return f"{self.folder}/pieces/{key}{suffix}"

    def part_path(self, key: str) -> str:
        """A part there means that a new tar is whole, until the index says so."""
        return f"{self.folder}/parts/{key}.parquet"

    def shards(self) -> list[str]:
        """Names of the tars, sorted."""
        return self.storage.list(self.folder, ".tar")

    def piece_keys(self) -> list[str]:
        """Keys of the pieces that are whole, sorted."""
        return [n.removesuffix(".parquet") for n in self.storage.list(f"{self.folder}/pieces", ".parquet")]

    def part_keys(self) -> list[str]:
        """Keys of the parts, sorted."""
        return [n.removesuffix(".parquet") for n in self.storage.list(f"{self.folder}/parts", ".parquet")]

    def piece(self, key: str) -> tuple[pa.Table, ChannelSums | None]:
        """Schema INDEX: the rows of a piece; and the sums of its latents' channels."""
        data = self.storage.read_bytes(self.piece_path(key))
        sums = about_of(pq.read_metadata(pa.BufferReader(data))).get("sums")
        return tables.from_parquet(data, tables.INDEX), sums and ChannelSums.from_dict(sums)

    def read_latent(self, row: Mapping[str, Any]) -> np.ndarray:
        """float16 `[C, T, H, W]` of an index row, checked."""
        return read_latent(self.storage, self.shard_path(row["shard"]), row)

    def is_open(self) -> bool:
        """There is no index, so nobody reads the set."""
        return not self.storage.exists(self.index_path)

    def state(self) -> SetState:
        """What the set holds; no rows where there is no index."""
        data = self.storage.read_if_there(self.index_path)
        return SetState(rows=tables.INDEX.empty_table()) if data is None else parse_index(data)

    def index(self) -> pa.Table:
        """Schema INDEX, sorted by clip_id, a row a clip: those of dead samples are left out."""
        return not_dead(self.state().rows)

    def commit(self, state: SetState, sums: Mapping[str, ChannelSums]) -> None:
        """Makes this the set, at once, when all its tars are there; `sums` are of new tars."""
        keys = [(name, "ascending") for name in ("clip_id", "shard", "offset")]
        rows = state.rows.sort_by(keys)
        self._write_statistics(set(pc.unique(rows["shard"]).to_pylist()), sums)
        about = {"next_shard": state.next_shard, "info": state.info}
        self.storage.write_bytes(self.index_path, tables.to_parquet(with_about(rows, about)))
        self.publish_info(state.info)

    def publish_info(self, info: str) -> None:
        """Writes latents.toml where it is not that of the index."""
        path = f"{self.folder}/{INFO_NAME}"
        if info and self.storage.read_if_there(path) != info.encode():
            self.storage.write_bytes(path, info.encode())

    def sums(self) -> dict[str, ChannelSums]:
        """Tar → the sums over its latents, the dead ones among them too, as far as they are known."""
        data = self.storage.read_if_there(f"{self.folder}/{STATISTICS_NAME}")
        return {k: ChannelSums.from_dict(v) for k, v in (json.loads(data)["shards"] if data else {}).items()}

    def _write_statistics(self, shards: set[str], sums: Mapping[str, ChannelSums]) -> None:
        every = {shard: one for shard, one in {**self.sums(), **sums}.items() if shard in shards}
        values: dict[str, Any] = {"shards": {shard: asdict(every[shard]) for shard in sorted(every)}}
        if total := added(every[shard] for shard in sorted(every)):
            values["mean"], values["std"] = total.mean_and_std()
        data = (json.dumps(values, sort_keys=True) + "\n").encode()
        self.storage.write_bytes(f"{self.folder}/{STATISTICS_NAME}", data)


def repacked(
    latents: LatentSet, state: SetState, tars: Sequence[Sequence[str]], keep: pa.ChunkedArray
) -> tuple[SetState, dict[str, ChannelSums]]:
    """Copies the live samples of each of these groups of tars that `keep` (bool [N], of the rows) names into
    one new tar, and leaves the old ones where they are. The state without the rows that are not kept and
    without the dead ones of these tars; the sums of the new tars."""
    rows = state.rows.filter(keep)
    every = pa.array([shard for group in tars for shard in group], pa.string())
    is_moved = pc.is_in(rows["shard"], value_set=every)
    parts, sums, number = [rows.filter(pc.invert(is_moved))], dict[str, ChannelSums](), state.next_shard
    rows = rows.filter(pc.and_(is_moved, pc.equal(rows["status"], OK)))
    for group in tars:
        samples = rows.filter(pc.is_in(rows["shard"], value_set=pa.array(group, pa.string())))
        if samples.num_rows:
            samples = samples.sort_by([("shard", "ascending"), ("offset", "ascending")])
            moved, sums[shard_name(number)] = _copied(latents, samples, shard_name(number))
            parts.append(moved)
            number += 1
    return SetState(rows=pa.concat_tables(parts), next_shard=number, info=state.info), sums


def wasteful(state: SetState, sizes_bytes: Mapping[str, int], most_bytes: float) -> list[list[str]]:
    """Groups of tars that are worth a copy: those of which a quarter or more is dead, and small ones that
    make one of at most so many bytes together."""
    rows = state.rows.filter(pc.equal(state.rows["status"], OK))
    ends = pc.add(rows["json_offset"], rows["json_nbytes"])
    spans = pa.table({"shard": rows["shard"], "nbytes": pc.subtract(ends, rows["offset"])})
    summed = spans.group_by("shard").aggregate([("nbytes", "sum")]).sort_by("shard")
    live = dict(zip(summed["shard"].to_pylist(), summed["nbytes_sum"].to_pylist(), strict=True))
    half_empty = {shard for shard in live if live[shard] < 0.75 * (sizes_bytes.get(shard, 0) - len(END))}
    groups: list[list[str]] = []
    room = 0.0
    for shard in (shard for shard in live if shard in half_empty or live[shard] < most_bytes / 2):
        if not groups or live[shard] > room:
            groups.append([])
            room = most_bytes
        groups[-1].append(shard)
        room -= live[shard]
    return [group for group in groups if len(group) > 1 or group[0] in half_empty]


def _copied(latents: LatentSet, samples: pa.Table, shard: str) -> tuple[pa.Table, ChannelSums]:
    """Copies samples into a new tar: their rows there, and the sums over their latents, which are checked."""
    rows = samples.to_pylist()
    extents = [extent_of(row, latents.shard_path(row["shard"])) for row in rows]
    total = ChannelSums.of(latents.read_latent(row) for row in rows)
    latents.storage.write_bytes(latents.shard_path(shard), joined(latents.storage, extents))
    assert total is not None
    at = 0
    for row, extent in zip(rows, extents, strict=True):
        by = at - extent.start
        row |= {"shard": shard, "offset": row["offset"] + by, "json_offset": row["json_offset"] + by}
        at += extent.nbytes
    return tables.from_rows(rows, tables.INDEX), total


def not_dead(rows: pa.Table) -> pa.Table:
    """Index rows but those of dead samples."""
    return rows.filter(pc.not_equal(rows["status"], DEAD))


def read_latent(storage: Storage, path: str, row: Mapping[str, Any]) -> np.ndarray:
    """The latent of an index row in the tar at `path`, checked."""
    data = storage.read_bytes(path, offset=row["offset"], nbytes=row["nbytes"])
    return parse_latent(data, row["clip_id"], row["shard"], check_of(row["sha256"]), row["shape"])


def info_text(info: LatentsInfo) -> str:
    """latents.toml as the index holds it."""
    return info_to_toml(info).decode()


class ShardReader:
    """Reads one latent set: `root` is the folder latents/<name>, local or s3://. Picklable."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        data = self.storage.read_if_there(INDEX_NAME)
        if data is None:
            raise FormatError(f"no latent set at {root}", expected=INDEX_NAME, fix="run framemill encode")
        state = parse_index(data)
        self.info = read_info(self.storage, state.info)
        self.everything: pa.Table = state.rows
        """Every row of the index: live, failed and dead."""
        self.index: pa.Table = state.rows.filter(pc.equal(state.rows["status"], OK))
        """A row a live sample, sorted by clip id."""

    def rows(self) -> list[dict[str, Any]]:
        return self.index.to_pylist()

    def read_latent(self, row: Mapping[str, Any]) -> np.ndarray:
        """float16 `[C, T, H, W]`, checked."""
        return read_latent(self.storage, row["shard"], row)

    def read_logvar(self, row: Mapping[str, Any]) -> np.ndarray:
        """The logarithm of the latent's variance, float16 `[C, T, H, W]`, checked; of a set with moments."""
        if not self.info.model.moments:
            raise FormatError(f"{self.storage.root} has no variances", fix="framemill encode with moments")
        offset = row["offset"] + padded(row["nbytes"]) + BLOCK  # a header, and arrays of one size
        data = self.storage.read_bytes(row["shard"], offset=offset, nbytes=row["nbytes"])
        check = check_of(self.read_json(row)["logvar_sha256"])
        return parse_latent(data, row["clip_id"], row["shard"], check, row["shape"])

    def read_json(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The sample's record: span, sizes, signals, lineage; in sets of older versions captions too."""
        data = self.storage.read_bytes(row["shard"], offset=row["json_offset"], nbytes=row["json_nbytes"])
        return json.loads(data)
