"""Training and measuring the built-in VAE: a tiny run on a tiny toy world, deterministic and useful."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import runlog
from pipeline.bundle import RECORD_NAME
from pipeline.errors import FramemillError, MediaError, UsageError
from pipeline.progress import silent
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.vae.builtin import BuiltinSpec, load_builtin
from tokenizer_stage.vae.evaluate import evaluate, psnr_db, reconstruct_closed_form
from tokenizer_stage.vae.pixels import to_video
from tokenizer_stage.vae.pool import Pool, is_held_out, media_files, read_pool
from tokenizer_stage.vae.train import TrainVaeConfig, fit, next_batch, random_crop, train_vae

TINY = TrainVaeConfig(
    model=BuiltinSpec(width=32, encoder_depth=1, decoder_depth=1, fine_width=8, fine_depth=1),
    steps=60,
    batch=2,
    frames=9,
    warmup_steps=5,
    learning_rate=3e-3,
    latent_noise=0.0,
    spans_per_clip=2,
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    render_corpus(folder, ToyWorldConfig(videos=8, images=1, seed=3))
    return folder


@pytest.fixture(scope="module")
def pool(toy: Path) -> Pool:
    return read_pool(str(toy), 2, 0)


def test_the_pool_holds_no_held_out_file(toy: Path, pool: Pool) -> None:
    held_out = [path for path in media_files(str(toy)) if is_held_out(path)]
    assert 0 < len(held_out) < len(media_files(str(toy)))
    assert is_held_out("/one/folder/a.mp4") == is_held_out("s3://other/a.mp4")
    assert all(span.dtype == np.uint8 and span.shape[3] == 3 for span in pool)
    assert all(len(span) % 4 == 1 and span.shape[1] % 8 == 0 and span.shape[2] % 8 == 0 for span in pool)


def test_a_batch_has_one_shape_and_the_range_of_a_vae(pool: Pool) -> None:
    batch = next_batch([pool], TINY, np.random.default_rng(0))
    assert batch.shape[:2] == (2, 3)
    assert batch.min() >= -1
    assert batch.max() <= 1


def test_spans_too_short_for_a_batch_are_an_error_not_a_hang() -> None:
    rng = np.random.default_rng(0)
    short = np.zeros((5, 32, 40, 3), np.uint8)
    with pytest.raises(UsageError, match="9-frame"):
        next_batch([[short]], TINY, rng)
    assert random_crop(short, 5, 24, 32, rng).shape == (5, 24, 32, 3)


def test_training_saves_the_same_weights_twice_and_learns(pool: Pool, tmp_path: Path) -> None:
    span = max(pool, key=len)[: TINY.frames]
    fit([[span]], tmp_path / "a", TINY, silent, {})
    fit([[span]], tmp_path / "b", TINY, silent, {})
    one, other = load_builtin(tmp_path / "a"), load_builtin(tmp_path / "b")
    assert one.weights_sha256 == other.weights_sha256
    video = to_video(span)[None]
    assert psnr_db(one.decode(one.encode(video)), video) > psnr_db(reconstruct_closed_form(one, video), video)
    assert (one.std > 0).all()


def test_train_and_evaluate_on_folders(toy: Path, tmp_path: Path) -> None:
    record = train_vae([str(toy)], str(tmp_path), TINY, silent)
    assert record["trained"]["steps"] == TINY.steps
    report = evaluate(f"builtin:{tmp_path}", str(toy), silent)
    assert report["count"] == len(media_files(str(toy))) == len(report["files"])
    assert 0 < report["held_out"]["count"] < report["count"]
    assert report["psnr_pca_db"] > 20
    assert report["failed"] == {}


def test_a_folder_of_broken_media_says_why(tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(MediaError, match="nothing to measure"):
        evaluate("builtin:", str(tmp_path), silent)


@pytest.mark.slow
def test_the_bundled_vae_beats_block_pca_on_real_clips(media_dir: Path) -> None:
    report = evaluate("builtin:", str(media_dir / "clips"), silent)
    assert report["held_out"]["psnr_db"] > report["held_out"]["psnr_pca_db"]


# -- what must not be lost ------------------------------------------------------------------------


def test_a_folder_that_holds_weights_is_not_trained_into_but_can_be_gone_on_from(
    pool: Pool, tmp_path: Path
) -> None:
    span = max(pool, key=len)[: TINY.frames]
    short = replace(TINY, steps=4)
    fit([[span]], tmp_path / "a", short, silent, {})
    before = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    with pytest.raises(UsageError, match="init="):
        fit([[span]], tmp_path / "a", short, silent, {})
    with pytest.raises(UsageError, match="init="):
        train_vae(["/nowhere"], str(tmp_path / "a"), short, silent)
    assert {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()} == before
    on = replace(short, init=str(tmp_path / "a"))
    fit([[span]], tmp_path / "b", on, silent, {})
    first, second = load_builtin(tmp_path / "a"), load_builtin(tmp_path / "b")
    assert torch.equal(first.linear.video_basis, second.linear.video_basis)
    assert first.weights_sha256 != second.weights_sha256
    with pytest.raises(UsageError, match="the model is"):
        fit([[span]], tmp_path / "c", replace(on, model=BuiltinSpec()), silent, {})


def test_every_step_is_in_the_metrics(pool: Pool, tmp_path: Path) -> None:
    fit([[max(pool, key=len)[: TINY.frames]]], tmp_path, replace(TINY, steps=3), silent, {})
    rows = runlog.read(tmp_path / runlog.METRICS_NAME)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert all(row["grad_norm"] > 0 for row in rows)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(pool: Pool, tmp_path: Path) -> None:
    wild = replace(TINY, steps=40, learning_rate=1e30, warmup_steps=1, clip_norm=1e9)
    with pytest.raises(FramemillError, match="stopped at step"):
        fit([[max(pool, key=len)[: TINY.frames]]], tmp_path, wild, silent, {})
    assert not (tmp_path / RECORD_NAME).exists()
    assert all(row["loss"] is not None for row in runlog.read(tmp_path / runlog.METRICS_NAME))
