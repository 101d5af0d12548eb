"""What is read from a VAE and seen of it before work begins; one that cannot be used stops a run by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from real_vaes import CONFIGS, saved, tiny_model
from safetensors.torch import load_file, save_file

from pipeline.config import EncodeConfig
from pipeline.corpus.shards import ChannelSums, LatentsInfo, added
from pipeline.engine.stage import Resources
from pipeline.errors import FormatError, ModelError
from tokenizer_stage.vae.description import describe_vae, device_of, info_of, usable
from tokenizer_stage.vae.diffusers import DiffusersVAE
from tokenizer_stage.vae.measure import measure_vae
from tokenizer_stage.vae.statistics import Statistics, measured, published

pytest.importorskip("diffusers", reason="diffusers is not installed")

CAUSAL = {  # name → latents blind to later frames, image = first latent
    "wan21": (True, True),
    "wan22": (True, True),
    "qwen": (True, True),
    "magvit": (True, True),
    "hunyuan": (False, False),
    "hunyuan15": (True, True),
    "cogvideox": (False, False),
    "cosmos8": (True, True),
    "cosmos4": (True, True),
    "ltx": (True, True),
    "ltx2": (True, True),
    "mochi": (True, True),
    "allegro": (False, False),
    "kl": (True, True),
    "dc": (True, True),
    "tiny": (True, True),
}


def changed(name: str, folder: Path, **config: Any) -> str:
    """A saved VAE whose config.json says something else than its weights."""
    vae = saved(name, folder)
    path = folder / name / "vae" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return vae


@pytest.mark.parametrize("name", CONFIGS)
def test_what_depends_on_later_frames_is_seen(name: str) -> None:
    measured = measure_vae(DiffusersVAE(tiny_model(name), name)).known()
    assert (measured["causal"], measured["image_is_first_latent"]) == CAUSAL[name]
    assert measured.get("pieces_error", 0.0) < 1e-6


def test_statistics_are_the_models_own_or_unknown() -> None:
    def of(name: str) -> Statistics | None:
        return DiffusersVAE(tiny_model(name), name).statistics

    assert of("wan21") == Statistics(mean=(0.5,) * 4, std=(2.0,) * 4)
    kl, cog = of("kl"), of("cogvideox")
    assert kl == Statistics(mean=(0.1,) * 4, std=(2.0,) * 4)  # a scale of 0.5 and a shift of 0.1
    assert cog is not None
    assert cog.std == pytest.approx((1 / 1.15258426,) * 4)
    for name in ("ltx", "ltx2", "cosmos4", "tiny"):  # placeholders, None, or a scale of 1
        assert of(name) is None
    model = tiny_model("ltx")
    model.latents_mean.fill_(0.25)
    model.latents_std.fill_(4.0)
    assert DiffusersVAE(model, "ltx").statistics == Statistics(mean=(0.25,) * 8, std=(4.0,) * 8)


def test_cosmos_has_statistics_of_every_step_as_its_pipeline_uses_them() -> None:
    model = tiny_model("cosmos8")
    vae = DiffusersVAE(model, "cosmos")
    assert vae.statistics is not None
    assert vae.statistics.steps(16) == 16
    description = describe(vae)
    info = info_of(description, EncodeConfig(), "cpu", vae.statistics)
    latent = torch.randn(16, 3, 2, 2)
    mean, std = (
        torch.tensor(values).view(16, -1, 1, 1)[:, :3]
        for values in (model.config.latents_mean, model.config.latents_std)
    )
    normal = info.normalised(latent.numpy())
    np.testing.assert_allclose(normal, ((latent - mean) / std).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(info.denormalised(normal), latent.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(FormatError, match="17 steps"):
        info.normalised(np.zeros((16, 17, 1, 1)))
    with pytest.raises(ModelError, match=r"max_frames=121"):
        usable(description, EncodeConfig(max_frames=129))
    usable(description, EncodeConfig(max_frames=121))


def describe(vae: DiffusersVAE) -> Any:
    from tokenizer_stage.vae.description import VaeDescription

    return VaeDescription(
        kind=vae.kind,
        licence="",
        weights_sha256=vae.weights_sha256,
        shape=vae.shape,
        statistics=vae.statistics,
        resources=vae.resources,
    )


def test_statistics_of_a_wrong_length_are_an_error() -> None:
    with pytest.raises(ModelError, match="5 means"):
        published(4, [0.0] * 5, [1.0] * 5, None, None)
    assert published(4, None, None, 1.0, None) is None
    assert published(4, [0.0] * 4, [1.0] * 4, 2.0, None) == Statistics(mean=(0.0,) * 4, std=(0.5,) * 4)


def test_measured_statistics_make_the_latents_normal() -> None:
    rng = np.random.default_rng(0)
    latents = [rng.normal([[[[3.0]]], [[[-50.0]]]], [[[[0.1]]], [[[20.0]]]], (2, t, 4, 6)) for t in (1, 3, 5)]
    latents = [np.concatenate([latent, np.full((1, *latent.shape[1:]), 7.0)]) for latent in latents]
    whole = ChannelSums.of(latents)
    parts = [ChannelSums.of(latents[:1]), ChannelSums.of(latents[1:])]
    assert ChannelSums.of([]) is None
    assert whole is not None
    assert parts[0] is not None
    assert parts[1] is not None
    statistics = measured(whole)
    np.testing.assert_allclose(measured(added(parts)).std, statistics.std)
    values = np.concatenate([latent.reshape(3, -1) for latent in latents], axis=1)
    normal = (values - np.array(statistics.mean)[:, None]) / np.array(statistics.std)[:, None]
    np.testing.assert_allclose(normal.mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(normal.std(axis=1), [1.0, 1.0, 0.0], atol=1e-6)


def test_the_same_weights_are_the_same_vae_wherever_they_lie(tmp_path: Path) -> None:
    here, there = saved("wan21", tmp_path / "a"), saved("wan21", tmp_path / "b")
    assert describe_vae(here).weights_sha256 == describe_vae(there).weights_sha256
    weights = tmp_path / "b" / "wan21" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["quant_conv.bias"][0] += 1
    save_file(tensors, weights, {"format": "pt"})
    assert describe_vae(here).weights_sha256 != describe_vae(there).weights_sha256


def test_a_licence_is_what_the_repo_states(tmp_path: Path) -> None:
    vae = saved("tiny", tmp_path)
    assert describe_vae(vae).licence == ""
    (tmp_path / "tiny" / "README.md").write_text("---\ntags: [x]\nlicense: openrail++\n---\nlicense: no\n")
    assert describe_vae(vae).licence == "openrail++"


def test_a_config_that_its_weights_do_not_keep_stops_by_name(tmp_path: Path) -> None:
    vae = changed("wan21", tmp_path, scale_factor_spatial=16)
    with pytest.raises(ModelError, match=r"AutoencoderKLWan.*latents of \(4, 3, 8, 12\).*config\.json"):
        describe_vae(vae)
    vae = changed("ltx2", tmp_path, temporal_compression_ratio=4)
    with pytest.raises(ModelError, match="AutoencoderKLLTX2Video"):
        describe_vae(vae)


def test_weights_that_are_not_numbers_stop_by_name(tmp_path: Path) -> None:
    vae = saved("kl", tmp_path)
    weights = tmp_path / "kl" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["encoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, weights, {"format": "pt"})
    with pytest.raises(ModelError, match=r"AutoencoderKL.*not finite"):
        describe_vae(vae)


def test_a_class_that_is_not_known_and_a_folder_without_a_model_are_refused(tmp_path: Path) -> None:
    import diffusers

    diffusers.VQModel(block_out_channels=(32,)).save_pretrained(tmp_path / "vq" / "vae")
    with pytest.raises(ModelError, match=r"vq is a VQModel; expected one of AutoencoderDC"):
        describe_vae(f"diffusers:{tmp_path / 'vq'}")
    with pytest.raises(ModelError, match="no VAE at diffusers:"):
        describe_vae(f"diffusers:{tmp_path / 'nothing'}")


def test_narrow_numbers_and_tiles_are_measured(tmp_path: Path) -> None:
    vae = saved("wan21", tmp_path)
    whole = describe_vae(vae).measured
    narrow = describe_vae(vae, dtype="bfloat16").measured
    assert "dtype_error" not in whole
    assert 1e-4 < narrow["dtype_error"] < 0.2
    tiled = describe_vae(saved("kl", tmp_path), tiles=True).measured
    assert 1e-3 < tiled["tiles_error"] < 3.0
    with pytest.raises(ModelError, match="AutoencoderKLCosmos has no tiles"):
        describe_vae(saved("cosmos8", tmp_path), tiles=True)


def test_limits_that_leave_a_vae_nothing_stop_by_name(tmp_path: Path) -> None:
    allegro = describe(DiffusersVAE(tiny_model("allegro"), "allegro"))
    with pytest.raises(ModelError, match=r"max_frames=17.*AutoencoderKLAllegro.*max_frames=24"):
        usable(allegro, EncodeConfig(area_px=10**6))
    with pytest.raises(ModelError, match=r"area_px"):
        usable(allegro, EncodeConfig(max_frames=24))
    usable(allegro, EncodeConfig(max_frames=24, area_px=10**6))


def test_the_device_is_what_was_asked_for_or_given() -> None:
    gpu, cpu = Resources(gpus=0.5), Resources()
    assert device_of(EncodeConfig(), gpu) == "cuda"
    assert device_of(EncodeConfig(), cpu) == "cpu"
    assert device_of(EncodeConfig(device="cpu"), gpu) == "cpu"
    with pytest.raises(ModelError, match=r"resources\.encode\.gpus"):
        device_of(EncodeConfig(device="cuda"), cpu)
    wan = describe(DiffusersVAE(tiny_model("wan21"), "wan"))
    assert usable(wan, EncodeConfig()).resources.gpus == 1
    assert usable(wan, EncodeConfig(device="cpu")).resources.gpus == 0


def test_an_old_set_is_one_value_a_channel() -> None:
    info = LatentsInfo(
        vae="builtin:",
        vae_sha256="",
        channels=2,
        stride_t=4,
        stride_s=8,
        mean=(1.0, 2.0),
        std=(2.0, 4.0),
        fps=8.0,
        max_frames=17,
        area_px=6144,
    )
    latent = np.stack([np.full((5, 2, 2), 3.0), np.full((5, 2, 2), -2.0)])
    np.testing.assert_array_equal(info.normalised(latent)[:, 0, 0, 0], [1.0, -1.0])
    assert info.model.patch == 1
