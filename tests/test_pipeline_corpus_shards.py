"""The shard format: any WebDataset reader streams it, the index reads one sample by offset."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset

from pipeline.corpus import tables
from pipeline.corpus.latent_set import INDEX_NAME, ShardReader
from pipeline.corpus.shards import INFO_NAME, LatentsInfo, Sample, info_to_toml, write_shard
from pipeline.errors import FormatError
from pipeline.storage import Storage

INFO = LatentsInfo(
    vae="builtin:",
    vae_sha256="0" * 64,
    channels=4,
    stride_t=4,
    stride_s=8,
    mean=(0.0,) * 4,
    std=(1.0, 0.5, 2.0, 0.1),
    fps=8.0,
    max_frames=17,
    area_px=6144,
)


def make_sample(number: int) -> Sample:
    rng = np.random.default_rng(number)
    latent = rng.normal(size=(4, 1 + number % 3, 3, 5)).astype(np.float16)
    record = {
        "clip_id": f"{number:016x}-0-{number}.5",
        "source_id": f"{number:016x}",
        "kind": "video",
        "fps": 8.0,
        "frames": 5,
        "width_px": 40,
        "height_px": 24,
        "captions": {"short": "ein Gerät – 视频"},
    }
    return Sample(latent=latent, record=record)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    storage = Storage(str(tmp_path))
    data, rows = write_shard([make_sample(n) for n in range(7)], "shard-000000.tar")
    storage.write_bytes("shard-000000.tar", data)
    storage.write_bytes(INFO_NAME, info_to_toml(INFO))
    storage.write_bytes(INDEX_NAME, tables.to_parquet(tables.from_rows(rows, tables.INDEX)))
    return tmp_path


def test_the_order_of_samples_does_not_change_a_byte() -> None:
    samples = [make_sample(n) for n in range(9)]
    shuffled = random.Random(0).sample(samples, len(samples))
    assert write_shard(samples, "s.tar") == write_shard(shuffled, "s.tar")


def test_offsets_point_at_the_members(folder: Path) -> None:
    reader = ShardReader(str(folder))
    assert reader.info == INFO
    assert len(reader.rows()) == 7
    for number, row in enumerate(reader.rows()):
        latent, record = reader.read_latent(row), reader.read_json(row)
        assert latent.dtype == np.float16
        assert (latent == make_sample(number).latent).all()
        assert row["tokens"] == latent[0].size
        assert record["latent_sha256"] == row["sha256"]
        assert record["captions"]["short"] == "ein Gerät – 视频"


def test_webdataset_reads_it(folder: Path) -> None:
    dataset = webdataset.WebDataset(str(folder / "shard-000000.tar"), shardshuffle=False).decode()
    samples = list(dataset)
    assert len(samples) == 7
    for number, sample in enumerate(samples):
        assert sample["__key__"] == sample["json"]["key"]
        assert (sample["latent.npy"] == make_sample(number).latent).all()


def test_members_carry_no_time_owner_or_machine() -> None:
    data, _ = write_shard([make_sample(0)], "s.tar")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
    assert len(members) == 2
    for member in members:
        assert (member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "")


def test_a_damaged_latent_is_refused(folder: Path) -> None:
    row = ShardReader(str(folder)).rows()[3]
    path = folder / "shard-000000.tar"
    data = bytearray(path.read_bytes())
    data[row["offset"] + row["nbytes"] - 1] ^= 1
    path.write_bytes(data)
    reader = ShardReader(str(folder))
    with pytest.raises(FormatError, match="damaged"):
        reader.read_latent(row)
    reader.read_latent(reader.rows()[4])


def test_a_set_without_index_or_of_another_format_is_refused(folder: Path) -> None:
    info = (folder / INFO_NAME).read_text()
    (folder / INFO_NAME).write_text(info.replace("format_version = 1", "format_version = 2"))
    with pytest.raises(FormatError, match="format 2"):
        ShardReader(str(folder))
    (folder / INDEX_NAME).unlink()
    with pytest.raises(FormatError, match="framemill encode"):
        ShardReader(str(folder))


def test_only_float16_of_four_dimensions_is_stored() -> None:
    sample = make_sample(0)
    with pytest.raises(FormatError, match="float16"):
        write_shard([Sample(latent=sample.latent.astype(np.float32), record=sample.record)], "s.tar")
