"""The encode stage on a real little corpus: resume, failures, takedown, and a verify that sees damage."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config, EncodeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import JUDGED_PATH, Corpus
from pipeline.corpus.latent_set import ShardReader
from pipeline.engine.runner import LocalExecutor, Receipt, RunSummary
from pipeline.engine.stage import Stage, Task
from pipeline.errors import FormatError, ModelError
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge_corpus
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.encode import EncodeStage, encode_corpus
from tokenizer_stage.inventory import verify_quick
from tokenizer_stage.sharding import KeptClips, plan_pieces
from tokenizer_stage.verify import verify

CONFIG = Config(encode=EncodeConfig(clips_per_task=4, shard_mb=0.06))
LATENTS = "latents/default"


def encode(root: Path, config: Config = CONFIG) -> RunSummary:
    return encode_corpus(Corpus(str(root)), config, LocalExecutor(), silent)


def tars(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((root / LATENTS).glob("*.tar"))}


def files(root: Path) -> dict[str, bytes]:
    paths = (p for p in sorted((root / LATENTS).rglob("*")) if p.is_file())
    return {str(p.relative_to(root)): p.read_bytes() for p in paths}


@pytest.fixture(scope="module")
def judged_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of a few toy videos and images, analysed and judged."""
    media, root = tmp_path_factory.mktemp("media"), tmp_path_factory.mktemp("corpus")
    render_corpus(media, ToyWorldConfig(videos=3, images=2, seed=5, area_px=96 * 64))
    corpus = Corpus(str(root))
    analyze_corpus(corpus, discover([str(media)]).inputs, CONFIG, LocalExecutor(), silent)
    judge_corpus(corpus, CONFIG)
    return root


@pytest.fixture(scope="module")
def encoded_root(judged_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("encoded") / "corpus"
    shutil.copytree(judged_root, root)
    summary = encode(root)
    assert not summary.lost
    assert summary.counts["failed"] == 0
    return root


@pytest.fixture
def root(encoded_root: Path, tmp_path: Path) -> Path:
    """A copy to break."""
    return Path(shutil.copytree(encoded_root, tmp_path / "corpus"))


def test_every_kept_clip_is_one_sample_and_verify_agrees(encoded_root: Path) -> None:
    corpus = Corpus(str(encoded_root))
    report = verify(corpus, "default", decode_back=3)
    kept = [row["clip_id"] for row in corpus.judged().to_pylist() if row["status"] == "kept"]
    assert report["errors"] == []
    assert report["samples"] == len(kept) > 4
    assert report["shards"] > 1
    assert report["decode_back"]["samples"] == 3
    assert report["decode_back"]["min_db"] > 18


def test_samples_hold_what_the_design_promises(encoded_root: Path) -> None:
    reader = ShardReader(str(encoded_root / LATENTS))
    kinds = set()
    for row in reader.rows():
        latent, record = reader.read_latent(row), reader.read_json(row)
        kinds.add(row["kind"])
        assert latent.shape == (16, 1 + (row["frames"] - 1) // 4, row["height_px"] // 8, row["width_px"] // 8)
        assert row["width_px"] * row["height_px"] <= CONFIG.encode.area_px
        assert row["frames"] == 1 if row["kind"] == "image" else row["frames"] <= CONFIG.encode.max_frames
        assert record["vae_sha256"] == reader.info.vae_sha256
        assert record["signals"] is not None
        assert "captions" not in record
    assert kinds == {"video", "image"}
    mean, std = np.array(reader.info.mean)[:, None], np.array(reader.info.std)[:, None]
    stacked = np.concatenate([reader.read_latent(row).reshape(16, -1) for row in reader.rows()], axis=1)
    normal = (stacked.astype(np.float32) - mean) / std
    assert 0.3 < normal.std() < 2.0


def test_a_second_run_does_nothing_and_a_lost_tar_is_encoded_again_into_a_new_one(root: Path) -> None:
    before = tars(root)
    assert encode(root).tasks == 0
    assert tars(root) == before
    lost = next(iter(before))
    (root / LATENTS / lost).unlink()
    assert 1 <= encode(root).tasks < len(before) * 4
    after = tars(root)
    assert before.items() - after.items() == {(lost, before[lost])}
    assert verify(Corpus(str(root)), "default", 0)["errors"] == []


class Killed(LocalExecutor):
    """Dies after its first task."""

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Iterator[Receipt]:
        yield from super().execute(stage, tasks[:1], root)
        raise KeyboardInterrupt


def test_a_killed_run_leaves_no_readable_set_and_resumes_to_the_same_bytes(
    judged_root: Path, encoded_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    with pytest.raises(KeyboardInterrupt):
        encode_corpus(Corpus(str(root)), CONFIG, Killed(), silent)
    with pytest.raises(FormatError, match="framemill encode"):
        ShardReader(str(root / LATENTS))
    assert encode(root).tasks > 0
    assert files(root) == files(encoded_root)


def test_a_clip_that_is_no_longer_kept_leaves_the_shards(root: Path) -> None:
    corpus = Corpus(str(root))
    rows = corpus.judged().to_pylist()
    dropped = next(row for row in rows if row["status"] == "kept")
    dropped |= {"status": "rejected", "reasons": ["short"]}
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(tables.from_rows(rows, tables.JUDGED)))
    assert any("not kept" in error for error in verify(corpus, "default", 0)["errors"])
    before = tars(root)
    assert encode(root).tasks == 0
    assert verify(corpus, "default", 0)["errors"] == []
    assert tars(root) == before  # its bytes stay where they are, and no reader sees them
    assert dropped["clip_id"] not in {row["clip_id"] for row in ShardReader(str(root / LATENTS)).rows()}
    rows[rows.index(dropped)] |= {"status": "kept", "reasons": []}
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(tables.from_rows(rows, tables.JUDGED)))
    assert encode(root).tasks == 0  # and it comes back without being encoded
    assert verify(corpus, "default", 0)["errors"] == []


def test_a_source_that_vanished_is_a_failed_row_with_a_reason(judged_root: Path) -> None:
    corpus = Corpus(str(judged_root))
    plan = KeptClips.of(corpus)
    gone = plan.rows()["clip_id"][0].as_py()
    stage = EncodeStage(config=CONFIG.encode, vae_sha256=load_sha())
    stage.setup()
    tasks = plan_pieces(plan, plan.keys("f" * 16), np.arange(len(plan)), per_task=4, latent_bytes=1)
    task = next(t for t in tasks if gone in t.inputs["clip_id"].to_pylist())
    uris = pa.array(["/nowhere/gone.mp4", *task.inputs["uri"].to_pylist()[1:]])
    moved = task.inputs.set_column(task.inputs.schema.get_field_index("uri"), "uri", uris)
    result = stage.process(replace(task, inputs=moved))
    part = tables.from_parquet(result.outputs[-1].data, tables.INDEX).to_pylist()
    lost = [row for row in part if row["status"] == "failed"]
    assert [row["clip_id"] for row in lost] == [gone]
    assert lost[0]["reason"] == "no such file"
    assert len(part) == task.inputs.num_rows
    assert result.counts == {"ok": len(part) - 1, "failed": 1}


def test_the_analysis_limits_hold_for_encode_and_verify(root: Path) -> None:
    tight = replace(CONFIG, analyze=replace(CONFIG.analyze, max_pixels=1000))
    fresh = root.with_name("fresh")
    shutil.copytree(root, fresh, ignore=shutil.ignore_patterns("latents"))
    assert encode(fresh, tight).counts["ok"] == 0
    rows = ShardReader(str(fresh / LATENTS)).everything.to_pylist()
    reasons = {row["reason"].split(":")[0] for row in rows}
    assert reasons == {"too many pixels"}
    assert encode(root, tight).counts.get("failed", 0) == 0  # limits are no part of a key: nothing is open
    report = verify(Corpus(str(root)), "default", decode_back=1)
    assert [reason.split(":")[0] for reason in report["not_compared"]] == ["too many pixels"]
    assert report["errors"] == []  # nothing stored is wrong


def test_verify_sees_one_flipped_byte_and_a_stray_tar(root: Path) -> None:
    row = ShardReader(str(root / LATENTS)).rows()[0]
    path = root / LATENTS / row["shard"]
    data = bytearray(path.read_bytes())
    data[row["offset"] + 200] ^= 1
    path.write_bytes(data)
    (root / LATENTS / "shard-999999.tar").write_bytes(b"")
    errors = verify(Corpus(str(root)), "default", decode_back=2)["errors"]
    assert any(row["clip_id"] in error and "damaged" in error for error in errors)
    assert any("shard-999999" in error for error in errors)
    assert len(errors) == 2


def test_other_settings_make_other_tars(root: Path) -> None:
    smaller = replace(CONFIG, encode=replace(CONFIG.encode, area_px=64 * 48))
    before = tars(root)
    assert encode(root, smaller).tasks > 1
    assert verify(Corpus(str(root)), "default", 0)["errors"] == []
    assert not before.keys() & tars(root).keys()  # no name is used again: a reader of the old set must see it


def test_a_worker_with_other_weights_refuses() -> None:
    with pytest.raises(ModelError, match="same weights"):
        EncodeStage(config=CONFIG.encode, vae_sha256="0" * 64).setup()


def load_sha() -> str:
    from tokenizer_stage.vae.names import load_vae

    return load_vae("builtin:").weights_sha256


def test_a_quick_verify_sees_what_tables_and_a_listing_tell(root: Path) -> None:
    corpus = Corpus(str(root))
    whole = verify(corpus, "default", decode_back=0)
    quick = verify_quick(corpus, "default")
    assert quick["errors"] == []
    assert quick.items() <= whole.items()
    row = ShardReader(str(root / LATENTS)).rows()[0]
    (root / LATENTS / "shard-999999.tar").write_bytes(b"")
    (root / LATENTS / row["shard"]).unlink()
    index = corpus.storage.read_bytes(f"{LATENTS}/index.parquet")
    rows = tables.from_parquet(index, tables.INDEX)
    twice = pa.concat_tables([rows.slice(1), rows.slice(2, 1)])
    corpus.storage.write_bytes(f"{LATENTS}/index.parquet", tables.to_parquet(twice))
    gone, double = rows["clip_id"][0].as_py(), rows["clip_id"][2].as_py()
    errors = verify_quick(corpus, "default")["errors"]
    assert errors == [
        f"{gone}: kept, but not in the index; run framemill encode",
        f"{double}: 2 times in the index",
        "shard-999999.tar: not in the index",
        f"{row['shard']}: missing",
    ]
