"""The encode stage with VAEs of diffusers: other strides, unknown statistics, clips that a VAE refuses."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from real_vaes import saved

from pipeline.config import Config, EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import ShardReader
from pipeline.corpus.shards import Sample, write_shard
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import FormatError, ModelError
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge_corpus
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.encode import encode_corpus
from tokenizer_stage.verify import verify

pytest.importorskip("diffusers", reason="diffusers is not installed")


@pytest.fixture(scope="module")
def judged_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    media, root = tmp_path_factory.mktemp("media"), tmp_path_factory.mktemp("corpus")
    render_corpus(media, ToyWorldConfig(videos=3, images=2, seed=5, area_px=256 * 128))
    corpus = Corpus(str(root))
    analyze_corpus(corpus, discover([str(media)]).inputs, Config(), LocalExecutor(), silent)
    judge_corpus(corpus, Config())
    return root


def encoded(root: Path, config: EncodeConfig) -> tuple[ShardReader, dict[str, int]]:
    summary = encode_corpus(Corpus(str(root)), Config(encode=config), LocalExecutor(), silent)
    assert not summary.lost
    return ShardReader(f"{root}/latents/{config.name}"), summary.counts


@pytest.mark.parametrize("name", ["ltx", pytest.param("cosmos4", marks=pytest.mark.slow), "kl"])
def test_every_clip_is_encoded_by_its_vaes_own_rules(name: str, judged_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    vae = saved(name, tmp_path)
    patch = 1 if name == "ltx" else 2
    reader, counts = encoded(root, EncodeConfig(vae=vae, area_px=256 * 128, patch=patch))
    assert counts == {"ok": 7, "failed": 0} or counts["ok"] > 4
    assert counts["failed"] == 0
    info, model = reader.info, reader.info.model
    strides = {"ltx": (8, 32), "cosmos4": (4, 8), "kl": (1, 8)}[name]
    assert (info.stride_t, info.stride_s, model.patch) == (*strides, patch)
    assert (model.frames_first, model.frames_step, model.device, model.dtype) == (
        1,
        strides[0],
        "cpu",
        "float32",
    )
    assert model.measured["causal"]
    assert len({row["frames"] for row in reader.rows()}) > 1
    for row in reader.rows():
        assert (row["frames"] - 1) % info.stride_t == 0
        assert row["shape"][1] == 1 + (row["frames"] - 1) // info.stride_t
        assert row["width_px"] % (info.stride_s * patch) == 0
        assert row["height_px"] % (info.stride_s * patch) == 0
    report = verify(Corpus(str(root)), "default", decode_back=2)
    # Random weights decode to no likeness; all else is as it should be.
    assert all("other content than its filmstrip" in error for error in report["errors"])
    normal = [info.normalised(reader.read_latent(row)) for row in reader.rows()]
    values = np.concatenate([latent.reshape(info.channels, -1) for latent in normal], axis=1)
    if name != "kl":  # nobody said what is normal for these
        assert model.statistics == "measured"
        np.testing.assert_allclose(values.mean(axis=1), 0.0, atol=1e-3)
        np.testing.assert_allclose(values.std(axis=1), 1.0, atol=1e-3)
    else:
        assert (model.statistics, info.mean, info.std) == ("published", (0.1,) * 4, (2.0,) * 4)


def test_a_clip_too_small_for_the_grid_costs_only_itself(judged_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    reader, counts = encoded(root, EncodeConfig(vae=saved("kl", tmp_path), area_px=256 * 128, patch=15))
    failed = [row for row in reader.everything.to_pylist() if row["status"] == "failed"]
    assert counts == {"ok": len(reader.rows()), "failed": len(failed)}
    assert min(counts.values()) > 0
    assert all("multiples of 120" in row["reason"] for row in failed)


@pytest.mark.slow
def test_a_clip_that_the_vae_cannot_take_costs_only_itself(judged_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    vae = saved("allegro", tmp_path)
    config = EncodeConfig(vae=vae, area_px=136 * 128, patch=1, max_frames=24, fps=0.0)
    reader, counts = encoded(root, config)
    failed = {
        row["clip_id"]: row["reason"] for row in reader.everything.to_pylist() if row["status"] == "failed"
    }
    assert counts["failed"] == len(failed) > 1
    assert counts["ok"] == len(reader.rows()) >= 1
    assert all("24 + 16k" in reason or "128 + " in reason for reason in failed.values())
    assert all(row["kind"] == "video" for row in reader.rows())  # it takes no image
    assert {row["frames"] for row in reader.rows()} == {24}
    assert all(row["shape"][1] == 6 for row in reader.rows())
    assert all(row["fps"] > 8 for row in reader.rows())  # the clips' own


def test_a_set_with_moments_has_the_variance_beside_each_latent(judged_root: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    config = EncodeConfig(vae=saved("kl", tmp_path))
    plain, _ = encoded(root, config)
    latents = {row["clip_id"]: plain.read_latent(row) for row in plain.rows()}
    with pytest.raises(FormatError, match="no variances"):
        plain.read_logvar(plain.rows()[0])
    reader, _ = encoded(root, replace(config, moments=True))
    assert reader.info.model.moments
    for row in reader.rows():
        logvar = reader.read_logvar(row)
        assert logvar.shape == tuple(row["shape"])
        assert np.array_equal(reader.read_latent(row), latents[row["clip_id"]])
        assert not np.array_equal(logvar, latents[row["clip_id"]])
    shard = reader.rows()[0]["shard"]
    rows = [row for row in reader.rows() if row["shard"] == shard]
    samples = [
        Sample(latent=reader.read_latent(r), logvar=reader.read_logvar(r), record=reader.read_json(r))
        for r in rows
    ]
    tar = (root / "latents/default" / shard).read_bytes()
    assert bytes(write_shard(samples, shard)[0]).rstrip(b"\0") == tar.rstrip(b"\0")


def test_a_vae_that_cannot_be_used_stops_before_anything_is_deleted_or_written(
    judged_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    good = EncodeConfig(vae=saved("kl", tmp_path))
    encoded(root, good)
    before = sorted((p, p.read_bytes()) for p in (root / "latents").rglob("*") if p.is_file())
    for wrong in (
        replace(good, vae=saved("allegro", tmp_path)),
        replace(good, device="cuda"),
        replace(good, vae=saved("dc", tmp_path), moments=True),
        replace(good, vae="builtin:", moments=True),
        replace(good, vae=f"diffusers:{tmp_path}/nothing"),
        replace(good, vae="builtin:", dtype="bfloat16"),
    ):
        with pytest.raises(ModelError):
            encoded(root, wrong)
    assert sorted((p, p.read_bytes()) for p in (root / "latents").rglob("*") if p.is_file()) == before


def test_the_number_type_and_the_grid_are_part_of_the_key_and_the_place_is_not(
    judged_root: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(judged_root, tmp_path / "corpus"))
    config = EncodeConfig(vae=saved("kl", tmp_path / "a"))
    encoded(root, config)

    def redone(config: EncodeConfig) -> bool:
        run = encode_corpus(Corpus(str(root)), Config(encode=config), LocalExecutor(), silent)
        return run.tasks > 0

    assert not redone(config)
    assert not redone(replace(config, device="cpu"))
    assert not redone(replace(config, vae=saved("kl", tmp_path / "b")))  # the same weights
    narrow = replace(config, dtype="bfloat16")
    assert redone(narrow)
    info = ShardReader(f"{root}/latents/default").info
    assert info.model.dtype == "bfloat16"
    assert info.model.measured["dtype_error"] > 0
    assert not [e for e in verify(Corpus(str(root)), "default", 3)["errors"] if "fresh encoding" in e]
    assert redone(replace(narrow, patch=1))
