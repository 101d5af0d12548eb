"""The shard format: any WebDataset reader streams it, the index reads one sample by offset."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import webdataset

from pipeline.corpus import tables
from pipeline.corpus.shards import (
    INDEX_NAME,
    INFO_NAME,
    LatentSet,
    LatentsInfo,
    Sample,
    ShardReader,
    info_to_toml,
    write_shard,
)
from pipeline.errors import FormatError
from pipeline.storage import Storage
from tokenizer_stage.sharding import (
    CAPTION_COLUMNS,
    CLIP_COLUMNS,
    SOURCE_COLUMNS,
    KeptClips,
    ShardPlan,
    plan_shards,
    shard_count,
)

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


def test_a_latent_set_is_readable_once_it_is_closed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    latents = LatentSet(storage, "small")
    for number, shard in enumerate(("shard-000001.tar", "shard-000000.tar")):
        data, rows = write_shard([make_sample(number)], shard)
        storage.write_bytes(latents.shard_path(shard), data)
        storage.write_bytes(
            latents.part_path(f"p{number}"), tables.to_parquet(tables.from_rows(rows, tables.INDEX))
        )
    assert latents.is_open()
    assert latents.index().num_rows == 0
    assert (latents.shards(), latents.part_keys()) == (["shard-000000.tar", "shard-000001.tar"], ["p0", "p1"])

    latents.close(["p1", "p0"], INFO)
    assert latents.index().equals(ShardReader(str(tmp_path / latents.folder)).everything)
    assert latents.index()["clip_id"].to_pylist() == sorted(make_sample(n).record["clip_id"] for n in (0, 1))
    assert LatentSet.around(storage, latents.index_path) == latents

    latents.open()
    with pytest.raises(FormatError, match="no latent set"):
        ShardReader(str(tmp_path / latents.folder))


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


def plan_row(number: int, **changes: object) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(CLIP_COLUMNS)
    row |= {"clip_id": f"{number:016x}-0-1000", "source_id": f"{number:016x}", "crop": [0, 0, 96, 64]}
    return row | {"uri": f"/v/{number}.mp4", "short": "a", "detailed": "b", "original": None} | changes


def plan(
    rows: list[dict[str, object]], samples_per_shard: int, fingerprint: str, first: int = 1
) -> ShardPlan:
    """The plan of such rows, whose captions and sources come in their order, or (-1) in the other."""
    clips = pa.Table.from_pylist(
        [{n: row[n] for n in CLIP_COLUMNS} for row in rows],
        pa.schema([tables.CLIPS.field(n) for n in CLIP_COLUMNS]),
    )
    known = {f.name: f for schema in (tables.SOURCES, tables.CAPTIONS, tables.INPUTS) for f in schema}

    def columns(*names: str) -> pa.Table:
        schema = pa.schema([known[name] for name in names])
        return pa.Table.from_pylist([{n: row.get(n) for n in names} for row in rows[::first]], schema)

    captions = columns("clip_id", *CAPTION_COLUMNS)
    return plan_shards(KeptClips(clips, captions, columns(*SOURCE_COLUMNS)), samples_per_shard, fingerprint)


def test_every_clip_is_planned_once_whatever_the_order() -> None:
    rows = [plan_row(n) for n in range(300)]
    tasks = plan(rows, 16, "f" * 16).tasks
    planned = [c for task in tasks for c in task.inputs["clip_id"].to_pylist()]
    assert sorted(planned) == sorted(str(row["clip_id"]) for row in rows)
    assert all(len(set(task.inputs["shard"].to_pylist())) == 1 for task in tasks)
    assert list(plan(rows, 16, "f" * 16, first=-1).tasks.keys()) == [t.key for t in tasks]


def test_one_clip_more_changes_one_shard() -> None:
    rows = [plan_row(n) for n in range(300)]
    before = set(plan(rows[:-1], 16, "f" * 16).tasks.keys())
    after = set(plan(rows, 16, "f" * 16).tasks.keys())
    assert len(after - before) == 1


def test_keys_follow_what_is_encoded_and_nothing_else() -> None:
    def key(fingerprint: str = "f" * 16, **changes: object) -> str:
        return plan([plan_row(1, **changes)], 16, fingerprint).tasks[0].key

    assert key(short="another caption", uri="/moved.mp4") == key()
    assert key(crop=[0, 2, 96, 60]) != key()
    assert key(fingerprint="e" * 16) != key()


@pytest.mark.parametrize(("clips", "shards"), [(1, 1), (64, 1), (65, 2), (129, 4), (1000, 16)])
def test_shard_count_is_the_power_of_two_that_holds_the_clips(clips: int, shards: int) -> None:
    assert shard_count(clips, 64) == shards
