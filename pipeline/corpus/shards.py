"""The shard format, both ways: a WebDataset tar of latents with their metadata, and its index.

A sample is `<key>.latent.npy` (float16 `[C, T, H, W]`, raw posterior mean) and `<key>.json` under one
key; the index knows the byte offset of both, so one sample is one ranged read, and any WebDataset
reader can stream the tar. In: samples. Out: bytes, the same for the same samples, and index rows.
Never normalises a latent
of its own accord: `LatentsInfo` knows how.
"""

import io
import json
import tarfile
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tars
from pipeline.corpus import tables
from pipeline.errors import FormatError
from pipeline.settings import build, to_toml
from pipeline.storage import Storage, sha256_hex

FORMAT_VERSION = 1
LATENTS_FOLDER = "latents"
INDEX_NAME = "index.parquet"
INFO_NAME = "latents.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip's latent `[C, T, H, W]` float16 and everything known of it; `record["clip_id"]` names it."""

    latent: np.ndarray
    record: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsInfo:
    """latents.toml: what a set of shards was made with. `mean` and `std` normalise a latent channel."""

    vae: str
    vae_sha256: str
    channels: int
    stride_t: int
    stride_s: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fps: float
    max_frames: int
    area_px: int
    dtype: str = "float16"
    format_version: int = FORMAT_VERSION

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Raw latent `[C, T, H, W]` → float32 of mean 0 and deviation 1 in each channel."""
        if raw.shape[0] != self.channels:
            raise FormatError(
                f"a latent of {raw.shape[0]} channels", expected=f"{self.channels}, as in {INFO_NAME}"
            )
        return (raw.astype(np.float32) - _by_channel(self.mean)) / _by_channel(self.std)

    def denormalised(self, latent: np.ndarray) -> np.ndarray:
        """The inverse of `normalised`: float32 `[C, T, H, W]`, as the VAE decodes it."""
        return latent.astype(np.float32) * _by_channel(self.std) + _by_channel(self.mean)


def _by_channel(values: Sequence[float]) -> np.ndarray:
    return np.array(values, np.float32)[:, None, None, None]  # [C, 1, 1, 1]


def sample_key(clip_id: str) -> str:
    """The clip id with dots replaced: WebDataset splits a member's name at its first dot."""
    return clip_id.replace(".", "_")


def write_shard(samples: Sequence[Sample], shard: str) -> tuple[bytes, list[dict[str, Any]]]:
    """The tar's bytes, samples in clip id order, and an index row for each."""
    sink = io.BytesIO()
    rows = []
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples, key=lambda s: s.record["clip_id"]):
            rows.append(_add_sample(tar, sample, shard))
    return sink.getvalue(), rows


def _add_sample(tar: tarfile.TarFile, sample: Sample, shard: str) -> dict[str, Any]:
    latent, record = sample.latent, dict(sample.record)
    if latent.dtype != np.float16 or latent.ndim != 4:
        raise FormatError(f"a latent of {latent.dtype} {latent.shape}", expected="float16 [C, T, H, W]")
    key = sample_key(record["clip_id"])
    npy = io.BytesIO()
    np.save(npy, np.ascontiguousarray(latent), allow_pickle=False)
    digest = sha256_hex(npy.getvalue())
    record |= {"key": key, "latent_shape": list(latent.shape), "latent_sha256": digest}
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    offset = add_member(tar, f"{key}.latent.npy", npy.getvalue())
    json_offset = add_member(tar, f"{key}.json", text)
    return {
        "clip_id": record["clip_id"],
        "source_id": record["source_id"],
        "kind": record["kind"],
        "key": key,
        "shard": shard,
        "offset": offset,
        "nbytes": len(npy.getvalue()),
        "json_offset": json_offset,
        "json_nbytes": len(text),
        "shape": list(latent.shape),
        "tokens": int(np.prod(latent.shape[1:])),
        "fps": record["fps"],
        "frames": record["frames"],
        "width_px": record["width_px"],
        "height_px": record["height_px"],
        "sha256": digest,
        "status": "ok",
        "reason": "",
    }


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a member that carries no time, owner or machine; the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def parse_latent(data: bytes, row: Mapping[str, Any]) -> np.ndarray:
    """The latent in the bytes of its .npy member, checked against its index row's hash and shape."""
    if sha256_hex(data) != row["sha256"]:
        raise FormatError(
            f"the latent of {row['clip_id']} in {row['shard']} is damaged",
            expected=f"sha256 {row['sha256'][:12]}…",
            fix="delete the shard's part and run framemill encode again",
        )
    latent: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    if list(latent.shape) != list(row["shape"]):
        raise FormatError(f"the latent of {row['clip_id']} is {latent.shape}", expected=str(row["shape"]))
    return latent


class ShardReader:
    """Reads one latent set: `root` is the folder latents/<name>, local or s3://. Picklable."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        if not self.storage.exists(INDEX_NAME):
            raise FormatError(f"no latent set at {root}", expected=INDEX_NAME, fix="run framemill encode")
        self.info = read_info(self.storage)
        self.everything: pa.Table = tables.from_parquet(self.storage.read_bytes(INDEX_NAME), tables.INDEX)
        self.index: pa.Table = self.everything.filter(pc.equal(self.everything["status"], "ok"))
        """A row a sample that can be read, sorted by clip id (failed clips are left out)."""

    def rows(self) -> list[dict[str, Any]]:
        return self.index.to_pylist()

    def read_latent(self, row: Mapping[str, Any]) -> np.ndarray:
        """float16 `[C, T, H, W]`, checked."""
        data = self.storage.read_bytes(row["shard"], offset=row["offset"], nbytes=row["nbytes"])
        return parse_latent(data, row)

    def read_json(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The sample's record: span, sizes, captions, signals, lineage."""
        data = self.storage.read_bytes(row["shard"], offset=row["json_offset"], nbytes=row["json_nbytes"])
        return json.loads(data)


@dataclass(frozen=True, slots=True)
class LatentSet:
    """Where everything of `latents/<name>` lies in a corpus: tars, a part a tar, latents.toml and, once every
    part is there, the index of them all. `storage` is the corpus's."""

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

    def part_path(self, key: str) -> str:
        """Of the rows of one tar: a part there means that its tar is whole and its own."""
        return f"{self.folder}/parts/{key}.parquet"

    def shards(self) -> list[str]:
        """Names of the tars, sorted."""
        return self.storage.list(self.folder, ".tar")

    def part_keys(self) -> list[str]:
        """Keys of the parts that are there, sorted."""
        return [n.removesuffix(".parquet") for n in self.storage.list(f"{self.folder}/parts", ".parquet")]

    def part(self, key: str) -> pa.Table:
        """Schema INDEX: the rows of one tar."""
        return tables.from_parquet(self.storage.read_bytes(self.part_path(key)), tables.INDEX)

    def is_open(self) -> bool:
        """There is no index, so nobody reads the set."""
        return not self.storage.exists(self.index_path)

    def index(self) -> pa.Table:
        """Schema INDEX, sorted by clip_id; empty while the set is open."""
        if self.is_open():
            return tables.INDEX.empty_table()
        return tables.from_parquet(self.storage.read_bytes(self.index_path), tables.INDEX)

    def open(self) -> None:
        """Deletes the index, before anything it names: no reader may follow it into a tar that changes."""
        self.storage.delete(self.index_path)

    def close(self, keys: Iterable[str], info: LatentsInfo | None = None) -> None:
        """Writes latents.toml, where it is new, and, last, the index of these parts: from now on the set can
        be read."""
        parts = [tables.INDEX.empty_table(), *map(self.part, keys)]
        index = pa.concat_tables(parts).sort_by("clip_id")
        if info is not None:
            self.storage.write_bytes(f"{self.folder}/{INFO_NAME}", info_to_toml(info))
        self.storage.write_bytes(self.index_path, tables.to_parquet(index))


def read_tar(data: bytes) -> list[Sample]:
    """The whole samples of a tar; one whose latent is not that of its record is left out."""
    members = tars.scan(io.BytesIO(data), len(data)).members
    content = {m.name: data[m.offset : m.offset + m.nbytes] for m in members}
    samples = []
    for name, text in content.items():
        if name.endswith(".json") and (npy := content.get(name.removesuffix("json") + "latent.npy")):
            record = json.loads(text)
            row = {"sha256": record["latent_sha256"], "shape": record["latent_shape"], "shard": "a tar"}
            if sha256_hex(npy) == record["latent_sha256"]:
                samples.append(Sample(latent=parse_latent(npy, record | row), record=record))
    return samples


def info_to_toml(info: LatentsInfo) -> bytes:
    return to_toml(info).encode()


def read_info(storage: Storage) -> LatentsInfo:
    """latents.toml, refused when it is of another format version."""
    values = tomllib.loads(storage.read_bytes(INFO_NAME).decode())
    if values.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{storage.root} has latent format {values.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
            fix="encode again with this version of framemill",
        )
    return build(LatentsInfo, values)
