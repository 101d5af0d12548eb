"""The built-in VAE: exactly causal, exact under chunking, an image is a first latent."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.bundle import RECORD_NAME, WEIGHTS_NAME
from pipeline.errors import ModelError
from pipeline.toyworld.render import render_frames
from pipeline.toyworld.scene import sample_shot
from tokenizer_stage.vae.builtin import BuiltinSpec, BuiltinVAE, load_builtin, save_builtin
from tokenizer_stage.vae.evaluate import psnr_db, reconstruct_closed_form
from tokenizer_stage.vae.names import load_vae
from tokenizer_stage.vae.pca import fit_linear, from_blocks, to_blocks
from tokenizer_stage.vae.pixels import check_video, to_frames, to_video

TINY = BuiltinSpec(width=16, encoder_depth=2, decoder_depth=2, fine_width=8, fine_depth=1)


def smooth_video(seed: int, frames: int = 17, height: int = 32, width: int = 48) -> Tensor:
    """A drifting random pattern `[1, 3, T, H, W]` in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, 3, 4, height // 8, width // 8, generator=generator)
    return torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear").tanh()


@pytest.fixture(scope="module")
def vae() -> BuiltinVAE:
    """A tiny VAE with random weights: its residuals are far from zero, so nothing holds by accident."""
    torch.manual_seed(0)
    model = BuiltinVAE(TINY)
    model.linear = fit_linear([(smooth_video(seed)[0], 1.0) for seed in range(8)], TINY.channels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.1)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def builtin() -> BuiltinVAE:
    return load_vae("builtin:")  # type: ignore[return-value]


def test_blocks_hold_every_pixel() -> None:
    video = torch.rand(2, 3, 9, 16, 24)
    assert torch.equal(from_blocks(to_blocks(video, starts=True), starts=True), video)


def test_latents_of_a_prefix_are_the_prefix_of_the_latents(vae: BuiltinVAE) -> None:
    video = smooth_video(1)
    whole = vae.encode(video)  # [1, 16, 5, 4, 6]
    assert whole.shape == (1, 16, 5, 4, 6)
    for k in range(5):
        torch.testing.assert_close(
            vae.encode(video[:, :, : 1 + 4 * k]), whole[:, :, : 1 + k], rtol=0, atol=1e-5
        )


def test_later_frames_change_no_earlier_latent_but_their_own(vae: BuiltinVAE) -> None:
    video = smooth_video(2)
    changed = video.clone()
    changed[:, :, 9:] = -changed[:, :, 9:]
    before, after = vae.encode(video), vae.encode(changed)
    torch.testing.assert_close(after[:, :, :3], before[:, :, :3], rtol=0, atol=1e-5)
    assert (after[:, :, 3:] - before[:, :, 3:]).abs().mean() > 0.1


def test_decoding_is_causal(vae: BuiltinVAE) -> None:
    latents = vae.encode(smooth_video(3))
    whole = vae.decode(latents)
    torch.testing.assert_close(vae.decode(latents[:, :, :3]), whole[:, :, :9], rtol=0, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_chunks_equal_the_whole(vae: BuiltinVAE, chunk: int) -> None:
    video = smooth_video(4, frames=25)
    latents = vae.encode(video, chunk=100)
    torch.testing.assert_close(vae.encode(video, chunk=chunk), latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        vae.decode(latents, chunk=chunk), vae.decode(latents, chunk=100), rtol=0, atol=1e-5
    )


def test_before_training_the_vae_is_its_closed_form() -> None:
    model = BuiltinVAE(TINY)
    model.linear = fit_linear([(smooth_video(seed)[0], 1.0) for seed in range(4)], TINY.channels)
    video = smooth_video(9)
    linear = model.linear.encode(to_blocks(video, starts=True), starts=True).transpose(1, 2)
    torch.testing.assert_close(model.encode(video), linear)


def test_an_image_and_the_same_image_held_have_nearly_equal_latents(builtin: BuiltinVAE) -> None:
    image = smooth_video(5, frames=1)
    latents = builtin.encode(image.expand(-1, -1, 5, -1, -1)) / builtin.std[:, None, None, None]
    gap = (latents[:, :, 0] - latents[:, :, 1]).square().mean()
    assert gap < 0.25 * latents[:, :, 1].square().mean()


def test_the_bundled_vae_is_better_than_its_closed_form(builtin: BuiltinVAE) -> None:
    rng = np.random.default_rng(0)
    gains = []
    for _ in range(8):
        frames = render_frames(sample_shot(rng), 96, 64, np.linspace(0, 1, 17))  # [17, 64, 96, 3]
        video = to_video(frames)[None]
        refined = psnr_db(builtin.decode(builtin.encode(video)), video)
        gains.append(refined - psnr_db(reconstruct_closed_form(builtin, video), video))
    assert np.mean(gains) > 0.5
    assert len(builtin.weights_sha256) == 64
    assert (builtin.std > 0.05).all()


def test_saved_weights_load_to_the_same_latents(vae: BuiltinVAE, tmp_path: Path) -> None:
    save_builtin(vae, tmp_path, {})
    once, twice = load_builtin(tmp_path), load_vae(f"builtin:{tmp_path}")
    assert once.weights_sha256 == twice.weights_sha256
    video = smooth_video(7)
    assert torch.equal(once.encode(video), twice.encode(video))
    torch.testing.assert_close(once.encode(video), vae.encode(video), rtol=0, atol=0.02)  # float16 weights


@pytest.mark.parametrize("lengths", [[1], [1, 4], [3, 1, 9, 8], [60, 5], [65], [2, 30, 33]])
def test_pieces_of_any_lengths_equal_the_whole(vae: BuiltinVAE, lengths: list[int]) -> None:
    video = smooth_video(11, frames=sum(lengths))
    parts = list(vae.encode_pieces(video.split(lengths, dim=2)))
    assert len(parts) > len(lengths) // 2
    torch.testing.assert_close(torch.cat(parts, dim=2), vae.encode(video), rtol=0, atol=1e-5)


def test_pieces_of_a_wrong_number_of_frames_are_refused(vae: BuiltinVAE) -> None:
    with pytest.raises(ModelError, match=r"6 frames; expected 1 \+ 4k"):
        list(vae.encode_pieces(smooth_video(12, frames=6).split(2, dim=2)))


@pytest.mark.parametrize("frames", [2, 4, 16])
def test_frames_other_than_1_plus_4k_are_refused(vae: BuiltinVAE, frames: int) -> None:
    with pytest.raises(ModelError, match=r"1 \+ 4k"):
        vae.encode(torch.zeros(1, 3, frames, 16, 16))


def test_sizes_off_the_grid_are_refused(vae: BuiltinVAE) -> None:
    with pytest.raises(ModelError, match="multiples of 8"):
        vae.encode(torch.zeros(1, 3, 1, 16, 20))
    with pytest.raises(ModelError, match="shape"):
        check_video(torch.zeros(3, 1, 16, 16), vae.shape, vae.kind)


def test_unknown_and_missing_vaes_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="builtin:"):
        load_vae("nothing")
    with pytest.raises(ModelError, match="vae train"):
        load_vae(f"builtin:{tmp_path}")


def test_pixels_survive_the_way_to_floats_and_back() -> None:
    frames = torch.randint(0, 256, (5, 8, 8, 3), dtype=torch.uint8).numpy()
    assert (to_frames(to_video(frames)) == frames).all()


# -- the folder of weights ------------------------------------------------------------------------


def test_damaged_swapped_and_foreign_weights_are_refused(vae: BuiltinVAE, tmp_path: Path) -> None:
    save_builtin(vae, tmp_path, {})
    weights, record = tmp_path / WEIGHTS_NAME, tmp_path / RECORD_NAME
    sound, text = weights.read_bytes(), record.read_text()
    swapped = bytearray(sound)
    swapped[-1] ^= 1  # one bit of one weight: as well-formed as before
    for damaged in (b"", sound[: len(sound) // 2], bytes(swapped)):
        weights.write_bytes(damaged)
        with pytest.raises(ModelError, match=f"{WEIGHTS_NAME}.*framemill vae train"):
            load_vae(f"builtin:{tmp_path}")
    weights.write_bytes(sound)
    description = json.loads(text)
    wider = {**description, "spec": {**description["spec"], "width": 24}}
    without = {name: value for name, value in description.items() if name != "spec"}
    other = {**description, "spec": {**description["spec"], "colour": 1}}
    for wrong in (wider, without, other):
        record.write_text(json.dumps(wrong))
        with pytest.raises(ModelError, match=r"do not fit.*framemill vae train"):
            load_vae(f"builtin:{tmp_path}")
    record.write_text(text)
    assert load_vae(f"builtin:{tmp_path}").weights_sha256 == hashlib.sha256(sound).hexdigest()


def test_weights_that_are_not_finite_are_not_written(tmp_path: Path) -> None:
    model = BuiltinVAE(TINY)
    model.std[0] = float("nan")
    with pytest.raises(ModelError, match="std"):
        save_builtin(model, tmp_path, {})
    assert not (tmp_path / RECORD_NAME).exists()


def test_the_bundled_vae_is_the_one_that_latents_name(builtin: BuiltinVAE) -> None:
    assert builtin.weights_sha256.startswith("bcf8128fafc29419")  # in every latents.toml made with it
