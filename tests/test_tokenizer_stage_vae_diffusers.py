"""VAEs of diffusers, each class from a checkpoint in its real layout: what it does itself, by its rules."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_vaes import CONFIGS, saved, tiny_model
from torch import Tensor

from pipeline.errors import ModelError
from tokenizer_stage.vae.builtin import VideoVAE
from tokenizer_stage.vae.measure import noisy_video
from tokenizer_stage.vae.names import load_vae

pytest.importorskip("diffusers", reason="diffusers is not installed")

NAMES = tuple(CONFIGS)
OF_IMAGES = ("kl", "dc", "tiny")
STREAMS = ("wan21", "wan22", "qwen", "cogvideox", "magvit")
COUNTS = {  # the frame counts that each takes, of the first 50
    "wan21": range(1, 51, 4),
    "wan22": range(1, 51, 4),
    "qwen": range(1, 51, 4),
    "hunyuan": range(1, 51, 4),
    "hunyuan15": range(1, 51, 4),
    "magvit": range(1, 51, 4),
    "cosmos4": range(1, 51, 4),
    "cosmos8": range(1, 51, 8),
    "ltx": range(1, 51, 8),
    "ltx2": range(1, 51, 8),
    "cogvideox": range(1, 51, 8),
    "mochi": range(1, 51, 6),
    "allegro": range(24, 51, 16),
    **dict.fromkeys(OF_IMAGES, range(1, 51)),
}


@pytest.fixture(scope="module")
def vae_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoVAE]:
    """Each VAE by its short name, saved and loaded once."""
    folder, loaded = tmp_path_factory.mktemp("vaes"), {}

    def vae(name: str) -> VideoVAE:
        if name not in loaded:
            loaded[name] = load_vae(saved(name, folder))
        return loaded[name]

    return vae


def aspects(vae: VideoVAE) -> list[tuple[int, int]]:
    """Three sizes, height × width: wide, tall, square; of two and three cells a side."""
    (low, high), (thin, wide) = (
        (counts.first + counts.step * (counts.first == counts.step), counts.first + 2 * counts.step)
        for counts in (vae.shape.sides.height, vae.shape.sides.width)
    )
    return [(low, wide), (high, thin), (low, thin)]


@torch.inference_mode()
def own_encoding(model: Any, video: Tensor) -> Tensor:
    """What the class itself makes of a video: its posterior's mode, or its latents, images one by one."""
    kind = type(model).__name__
    if kind == "AutoencoderKLAllegro":
        model.enable_tiling()
    if kind not in ("AutoencoderKL", "AutoencoderDC", "AutoencoderTiny"):
        return model.encode(video).latent_dist.mode()
    frames = [model.encode(video[:, :, index]) for index in range(video.shape[2])]
    latents = [
        f.latent_dist.mode()
        if kind == "AutoencoderKL"
        else f[0]
        if isinstance(f, tuple)
        else next(iter(f.values()))
        for f in frames
    ]
    return torch.stack(latents, dim=2)


def check_against_own(vae: VideoVAE, name: str, counts: list[int], sizes: list[tuple[int, int]]) -> None:
    model = tiny_model(name)
    for height, width in sizes:
        for frames in counts:
            video = noisy_video(frames, height, width)
            latents = vae.encode(video)
            assert latents.shape[1:] == vae.shape.latent(frames, height, width)
            torch.testing.assert_close(latents, own_encoding(model, video), rtol=0, atol=1e-5)
            assert vae.decode(latents).shape == video.shape


@pytest.mark.parametrize("name", NAMES)
def test_latents_are_the_classs_own_and_as_many_frames_come_back(
    name: str, vae_of: Callable[[str], VideoVAE]
) -> None:
    vae = vae_of(name)
    counts = [n for n in (1, 5, 9, 24) if n in vae.shape.frames]
    if name == "allegro":
        check_against_own(vae, name, [24], [(128, 128)])
        return
    check_against_own(vae, name, counts[:2], aspects(vae))
    check_against_own(vae, name, [17] if 17 in vae.shape.frames else [13], aspects(vae)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.endurance
def test_long_latents_are_the_classs_own(name: str, vae_of: Callable[[str], VideoVAE]) -> None:
    vae = vae_of(name)
    counts = [n for n in (1, 5, 17, 33, 81, 40) if n in vae.shape.frames]
    sizes = aspects(vae) if name != "allegro" else [(128, 128)]
    check_against_own(vae, name, counts, sizes)


@pytest.mark.parametrize("name", NAMES)
def test_other_counts_and_sizes_are_refused_by_name(name: str, vae_of: Callable[[str], VideoVAE]) -> None:
    vae = vae_of(name)
    height, width = aspects(vae)[0]
    assert [n for n in range(1, 51) if n in vae.shape.frames] == list(COUNTS[name])
    for frames in set(range(1, 30)) - set(COUNTS[name]):
        with pytest.raises(ModelError, match=f"{vae.kind}: {frames} frames"):
            vae.encode(torch.zeros(1, 3, frames, height, width))
    count = vae.shape.frames.first
    for h, w in ((height + 2, width), (height, width - vae.shape.stride_s // 2)):
        with pytest.raises(ModelError, match=f"{vae.kind}: frames of {w}×{h}"):
            vae.encode(torch.zeros(1, 3, count, h, w))
    with pytest.raises(ModelError, match=r"latents of shape"):
        vae.decode(torch.zeros(1, vae.shape.channels + 1, 1, 4, 4))


def test_cogvideox_takes_no_even_number_of_latents(vae_of: Callable[[str], VideoVAE]) -> None:
    """It decodes two latents to eight frames, and five went in."""
    vae, model = vae_of("cogvideox"), tiny_model("cogvideox")
    latents = own_encoding(model, noisy_video(5, 16, 24))
    assert model.decode(latents).sample.shape[2] == 8
    for steps in (2, 4, 6):
        with pytest.raises(ModelError, match=f"{steps} latent steps; expected those of 1 \\+ 8k frames"):
            vae.decode(torch.zeros(1, 4, steps, 2, 3))
    assert vae.decode(torch.zeros(1, 4, 3, 2, 3)).shape[2] == 9


def test_the_strides_of_cosmos_are_its_configs(vae_of: Callable[[str], VideoVAE]) -> None:
    for name, stride_t, steps in (("cosmos8", 8, 3), ("cosmos4", 4, 5)):
        vae = vae_of(name)
        assert (vae.shape.stride_t, vae.shape.stride_s) == (stride_t, 8)
        assert vae.encode(noisy_video(17, 16, 24)).shape[2] == steps


@pytest.mark.parametrize("name", STREAMS)
def test_pieces_of_any_lengths_equal_one_call(name: str, vae_of: Callable[[str], VideoVAE]) -> None:
    vae = vae_of(name)
    height, width = aspects(vae)[0]
    for lengths in ([1], [17], [9, 8], [2, 3, 1, 11], [1] * 9):
        video = noisy_video(sum(lengths), height, width)
        parts = list(vae.encode_pieces(torch.split(video, lengths, dim=2)))
        torch.testing.assert_close(torch.cat(parts, dim=2), vae.encode(video), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", STREAMS)
def test_a_video_that_breaks_off_leaves_nothing_to_the_next(
    name: str, vae_of: Callable[[str], VideoVAE]
) -> None:
    vae = vae_of(name)
    height, width = aspects(vae)[0]
    video = noisy_video(9, height, width)
    before = list(vae.encode_pieces([video]))
    with pytest.raises(ModelError, match="11 frames"):
        list(vae.encode_pieces(torch.split(noisy_video(11, height, width), 4, dim=2)))
    assert all(map(torch.equal, vae.encode_pieces([video]), before))
    torch.testing.assert_close(vae.encode(video), torch.cat(before, dim=2), rtol=0, atol=1e-5)


def test_a_vae_without_carried_state_takes_no_pieces(vae_of: Callable[[str], VideoVAE]) -> None:
    for name in set(NAMES) - set(STREAMS):
        with pytest.raises(ModelError, match=f"{vae_of(name).kind} carries no state"):
            list(vae_of(name).encode_pieces([torch.zeros(1, 3, 1, 64, 64)]))


@pytest.mark.parametrize("name", ["kl", "tiny"])
def test_images_in_lots_equal_images_one_by_one(name: str, tmp_path: Path) -> None:
    vae = load_vae(saved(name, tmp_path))
    video = noisy_video(7, 16, 24)
    one_by_one = vae.encode(video)
    vae.run_on("cpu", batch=3)
    torch.testing.assert_close(vae.encode(video), one_by_one, rtol=0, atol=1e-5)
    assert vae.decode(one_by_one).shape == video.shape


@pytest.mark.parametrize("name", ["wan21", "hunyuan", "cogvideox", "kl"])
def test_moments_are_the_classs_own(name: str, vae_of: Callable[[str], VideoVAE]) -> None:
    video = noisy_video(1, 16, 24)
    mean, logvar = vae_of(name).posterior(video)
    assert logvar is not None
    model = tiny_model(name)
    with torch.inference_mode():
        dist = model.encode(video[:, :, 0] if name == "kl" else video).latent_dist
    torch.testing.assert_close(mean.squeeze(2), dist.mean.squeeze(2), rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar.squeeze(2), dist.logvar.squeeze(2), rtol=0, atol=1e-5)


def test_classes_of_points_have_no_variance(vae_of: Callable[[str], VideoVAE]) -> None:
    for name in ("cosmos8", "dc", "tiny"):
        assert vae_of(name).posterior(torch.zeros(1, 3, 1, 32, 32))[1] is None
