"""The shard format, both ways: a WebDataset tar of latents with their metadata, and its index rows.

A sample is `<key>.latent.npy` (float16 `[C, T, H, W]`, raw posterior mean) and `<key>.json` under one
key; the index knows the byte offset of both, so one sample is one ranged read, and any WebDataset
reader can stream the tar. In: samples. Out: bytes, the same for the same samples, and index rows. A sample's
bytes do not depend on where they lie, so tars are joined by copying. Never normalises a latent of its own
accord: `LatentsInfo` knows how.
"""

import io
import json
import tarfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.errors import FormatError, StorageError
from pipeline.settings import build, to_toml
from pipeline.storage import Buffer, Storage, Stream, sha256_hex

FORMAT_VERSION = 1
INFO_NAME = "latents.toml"
BLOCK = tarfile.BLOCKSIZE
END = b"\0" * 2 * BLOCK  # of an archive
COPIED_BYTES = 8 << 20  # at once
CHECK_CHARS = 16  # of a latent's sha256, that make its check


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One clip's latent `[C, T, H, W]` float16 and everything known of it; `record["clip_id"]` names it. Of a
    set with moments, the logarithm of the latent's variance too, of the same shape and type."""

    latent: np.ndarray
    record: Mapping[str, Any]
    logvar: np.ndarray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeRecord:
    """What a set's VAE is, and how it was run: read from the model. `measured` is what was seen of it on a
    short video (tokenizer_stage/vae/measure.py); what is not in it is not known."""

    kind: str = ""  # its class
    licence: str = ""  # as its authors state it
    statistics: str = "published"  # where mean and std are from; or: measured, over this set; unknown
    frames_first: int = 1  # it takes first + step·k frames; step 0: stride_t
    frames_step: int = 0
    sample_range: tuple[float, ...] = (-1.0, 1.0)
    patch: int = 1  # sides are multiples of stride_s × patch
    device: str = "cpu"  # class of it; values differ between classes in their last bits
    dtype: str = "float32"  # of the computation
    tiles: bool = False
    moments: bool = False  # a sample has `<key>.logvar.npy` too
    measured: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LatentsInfo:
    """latents.toml: what a set of shards was made with. `mean` and `std` normalise a latent channel; of a VAE
    whose every latent step has its own, they are the steps of the first channel, then of the second, …"""

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
    model: VaeRecord = field(default_factory=VaeRecord)

    def normalised(self, raw: np.ndarray) -> np.ndarray:
        """Raw latent `[C, T, H, W]` → float32 of mean 0 and deviation 1 in each channel."""
        if raw.shape[0] != self.channels:
            raise FormatError(
                f"a latent of {raw.shape[0]} channels", expected=f"{self.channels}, as in {INFO_NAME}"
            )
        return (raw.astype(np.float32) - self._values(self.mean, raw)) / self._values(self.std, raw)

    def denormalised(self, latent: np.ndarray) -> np.ndarray:
        """The inverse of `normalised`: float32 `[C, T, H, W]`, as the VAE decodes it."""
        return latent.astype(np.float32) * self._values(self.std, latent) + self._values(self.mean, latent)

    def _values(self, values: Sequence[float], latent: np.ndarray) -> np.ndarray:
        """`[C, 1 or T, 1, 1]`: one value a channel, or one a step of each channel."""
        by_step = np.array(values, np.float32).reshape(self.channels, -1)
        steps = latent.shape[1] if by_step.shape[1] > 1 else 1
        if steps > by_step.shape[1]:
            raise FormatError(
                f"a latent of {steps} steps", expected=f"at most {by_step.shape[1]}, as in {INFO_NAME}"
            )
        return by_step[:, :steps, None, None]


def sample_key(clip_id: str) -> str:
    """The clip id with dots replaced: WebDataset splits a member's name at its first dot."""
    return clip_id.replace(".", "_")


def write_shard(samples: Sequence[Sample], shard: str) -> tuple[memoryview, list[dict[str, Any]]]:
    """The tar's bytes, samples in clip id order, and an index row for each."""
    sink = io.BytesIO()
    rows = []
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for sample in sorted(samples, key=lambda s: s.record["clip_id"]):
            rows.append(_add_sample(tar, sample, shard))
    return sink.getbuffer(), rows


def _add_sample(tar: tarfile.TarFile, sample: Sample, shard: str) -> dict[str, Any]:
    latent, record = sample.latent, dict(sample.record)
    if latent.dtype != np.float16 or latent.ndim != 4:
        raise FormatError(f"a latent of {latent.dtype} {latent.shape}", expected="float16 [C, T, H, W]")
    key = sample_key(record["clip_id"])
    npy = npy_bytes(latent)
    digest = sha256_hex(npy)
    record |= {"key": key, "latent_shape": list(latent.shape), "latent_sha256": digest}
    if sample.logvar is not None:
        if (sample.logvar.dtype, sample.logvar.shape) != (latent.dtype, latent.shape):
            raise FormatError(
                f"a variance of {sample.logvar.dtype} {sample.logvar.shape}", expected="as the latent"
            )
        record["logvar_sha256"] = sha256_hex(npy_bytes(sample.logvar))
    text = json.dumps(record, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
    offset = add_member(tar, f"{key}.latent.npy", npy)
    if sample.logvar is not None:
        add_member(tar, f"{key}.logvar.npy", npy_bytes(sample.logvar))
    json_offset = add_member(tar, f"{key}.json", text)
    return {
        "clip_id": record["clip_id"],
        "source_id": record["source_id"],
        "kind": record["kind"],
        "key": key,
        "shard": shard,
        "offset": offset,
        "nbytes": len(npy),
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
        "latent_key": record.get("latent_key"),
        "check": check_of(digest),
    }


def check_of(sha256: str) -> int:
    """The short form of a latent's hash, 64 bits: what a reader of a million samples holds."""
    return int(sha256[:CHECK_CHARS], 16)


def npy_bytes(values: np.ndarray) -> bytes:
    """An array as the bytes of a .npy file."""
    sink = io.BytesIO()
    np.save(sink, np.ascontiguousarray(values), allow_pickle=False)
    return sink.getvalue()


def add_member(tar: tarfile.TarFile, name: str, data: bytes) -> int:
    """Appends a member that carries no time, owner or machine; the offset of its data."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
    return tar.offset - padded(len(data))


def padded(nbytes: int) -> int:
    """So many bytes in whole blocks of a tar."""
    return -(-nbytes // BLOCK) * BLOCK


@dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """Whole samples that lie one behind the other in a tar, headers included."""

    path: str
    start: int
    nbytes: int


def extent_of(row: Mapping[str, Any], path: str) -> Extent:
    """Where the sample of an index row lies in its tar."""
    start = row["offset"] - BLOCK
    return Extent(path=path, start=start, nbytes=row["json_offset"] + padded(row["json_nbytes"]) - start)


def joined(storage: Storage, extents: Sequence[Extent]) -> Stream:
    """A tar of these samples, which are copied while it is written, a few MB in memory at a time.

    Raises:
        StorageError: while it is written: a tar ends before its samples do.
    """

    def pieces() -> Iterator[Buffer]:
        for extent in _runs(extents):
            for at in range(0, extent.nbytes, COPIED_BYTES):
                nbytes = min(COPIED_BYTES, extent.nbytes - at)
                data = storage.read_bytes(extent.path, offset=extent.start + at, nbytes=nbytes)
                if len(data) != nbytes:
                    raise StorageError(
                        f"{storage.root}/{extent.path} is cut off",
                        fix="delete it and run framemill encode again",
                    )
                yield data
        yield END

    return Stream(nbytes=sum(extent.nbytes for extent in extents) + len(END), pieces=pieces)


def _runs(extents: Sequence[Extent]) -> Iterator[Extent]:
    """The same bytes in as few extents as there are stretches."""
    run: Extent | None = None
    for extent in extents:
        if run and (run.path, run.start + run.nbytes) == (extent.path, extent.start):
            run = Extent(path=run.path, start=run.start, nbytes=run.nbytes + extent.nbytes)
            continue
        if run:
            yield run
        run = extent
    if run:
        yield run


def parse_latent(data: bytes, clip_id: str, shard: str, check: int, shape: Sequence[int]) -> np.ndarray:
    """The latent in the bytes of its .npy member, held against the check and the shape of its index row."""
    if check_of(sha256_hex(data)) != check:
        raise FormatError(
            f"the latent of {clip_id} in {shard} is damaged",
            expected=f"a sha256 that begins with {check:016x}",
            fix="delete that tar and run framemill encode: its clips are encoded again",
        )
    latent: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    if list(latent.shape) != list(shape):
        raise FormatError(f"the latent of {clip_id} is {latent.shape}", expected=str(list(shape)))
    return latent


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSums:
    """What mean and deviation of the channels of latents are made of; the same for the same latents in the
    same order."""

    count: int  # of values in each channel
    total: tuple[float, ...]
    square: tuple[float, ...]

    @classmethod
    def of(cls, latents: Iterable[np.ndarray]) -> "ChannelSums | None":
        """Of latents `[C, T, H, W]`; None of none."""
        return added(cls._of_one(latent) for latent in latents)

    @classmethod
    def _of_one(cls, latent: np.ndarray) -> "ChannelSums":
        values = latent.reshape(len(latent), -1).astype(np.float64)  # [C, N]
        square = np.square(values).sum(axis=1)
        return cls(count=values.shape[1], total=tuple(values.sum(axis=1)), square=tuple(square))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ChannelSums":
        """The inverse of dataclasses.asdict, through JSON."""
        return cls(count=values["count"], total=tuple(values["total"]), square=tuple(values["square"]))

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Of each channel."""
        mean = np.array(self.total) / self.count
        variance = np.maximum(np.array(self.square) / self.count - mean**2, 0.0)
        return mean.tolist(), np.sqrt(variance).tolist()


def added(sums: Iterable[ChannelSums]) -> ChannelSums | None:
    """Those of all latents together; None of none."""
    every = list(sums)
    if not every:
        return None
    return ChannelSums(
        count=sum(one.count for one in every),
        total=tuple(np.sum([one.total for one in every], axis=0).tolist()),
        square=tuple(np.sum([one.square for one in every], axis=0).tolist()),
    )


def info_to_toml(info: LatentsInfo) -> bytes:
    return to_toml(info).encode()


def read_info(storage: Storage, text: str = "") -> LatentsInfo:
    """latents.toml, or this text of it, refused when it is of another format version."""
    values = tomllib.loads(text or storage.read_bytes(INFO_NAME).decode())
    if values.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{storage.root} has latent format {values.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
            fix="encode again with this version of framemill",
        )
    return build(LatentsInfo, values)
