"""Sampling: sizes as asked, the same request the same pixels, given tokens kept, wrong requests refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import UsageError
from training.config import FlowConfig, ModelConfig
from training.diffusion import euler, time_grid
from training.layout import layout_of
from training.model import VideoDiT
from training.rng import keyed_normal
from training.run.sample import (
    SampleConfig,
    VideoGenerator,
    default_size,
    guided_velocity,
    latent_shape,
    sample_to_file,
)
from training.run.trained import Lineage, Trained
from training.text import CachedTextEncoder

CONFIG = SampleConfig(prompt="a red circle", width_px=32, height_px=24, frames=5, steps=2, cfg=3.0)
INFO = LatentsInfo(
    vae="builtin:",
    vae_sha256="vae",
    channels=4,
    stride_t=4,
    stride_s=8,
    mean=(0.1,) * 4,
    std=(0.5,) * 4,
    fps=8.0,
    max_frames=17,
    area_px=96 * 64,
)


class BlockVae:
    """Latent [4, T, h, w] → each cell's first three channels as an 8×8 block, each later step four frames."""

    def decode(self, latents: Tensor) -> Tensor:
        frames = latents[:, :3].repeat_interleave(4, 2)[:, :, 3:]
        return frames.repeat_interleave(8, 3).repeat_interleave(8, 4).clamp(-1, 1)


def embed(texts: list[str]) -> list[Tensor]:
    return [keyed_normal((len(text.split()), 12), text) for text in texts]


@pytest.fixture
def generator() -> VideoGenerator:
    torch.manual_seed(0)
    model = VideoDiT(ModelConfig(channels=4, text_dim=12, width=32, depth=1, heads=2))
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    text = CachedTextEncoder("builtin:", 12, "text", embed)
    lineage = Lineage(latents=INFO, text_encoder="builtin:", text_sha256="text")
    trained = Trained(model=model.eval(), flow=FlowConfig(), lineage=lineage, step=7, where="test")
    return VideoGenerator(trained=trained, text=text, vae=BlockVae())  # type: ignore[arg-type]


@pytest.mark.parametrize(("width_px", "height_px", "frames"), [(32, 24, 5), (40, 24, 1), (24, 56, 9)])
def test_frames_have_the_size_that_was_asked_for(
    generator: VideoGenerator, width_px: int, height_px: int, frames: int
) -> None:
    config = dataclasses.replace(CONFIG, width_px=width_px, height_px=height_px, frames=frames)
    (made,) = generator.frames(["a red circle"], config)
    assert made.shape == (frames, height_px, width_px, 3)
    assert made.dtype == np.uint8


def test_the_same_request_gives_the_same_pixels_and_another_seed_others(generator: VideoGenerator) -> None:
    (first,), (again,) = (generator.frames(["a red circle"], CONFIG) for _ in range(2))
    (other,) = generator.frames(["a red circle"], dataclasses.replace(CONFIG, seed=1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_pack_of_prompts_gives_what_each_gives_first(generator: VideoGenerator) -> None:
    together = generator.frames(["a red circle", "a blue star that moves"], CONFIG)
    (alone,) = generator.frames(["a red circle"], CONFIG)
    assert np.abs(together[0].astype(int) - alone).max() <= 1


def test_guidance_extrapolates_from_no_text_to_text(generator: VideoGenerator) -> None:
    layout = layout_of([(4, 2, 3, 4)], [0.5])
    noise, texts = keyed_normal((layout.segments.total, 16), "x"), embed(["a red circle"])
    with torch.inference_mode():
        plain, twice, thrice = (
            guided_velocity(generator.trained, layout, texts, cfg)(noise, 0.5) for cfg in (1.0, 2.0, 3.0)
        )
    torch.testing.assert_close(thrice - twice, twice - plain, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(plain, twice, atol=1e-3)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_given_tokens_stay_as_they_are(generator: VideoGenerator, cfg: float) -> None:
    layout = layout_of([(4, 3, 4, 4)], [0.5])
    given = layout.seconds == 0
    start = keyed_normal((layout.segments.total, 16), "x")
    velocity = guided_velocity(generator.trained, layout, embed(["a red circle"]), cfg, given)
    with torch.inference_mode():
        out = euler(velocity, start, time_grid(3, 12, FlowConfig()))
    assert torch.equal(out[given], start[given])
    assert not torch.equal(out[~given], start[~given])


@pytest.mark.parametrize(
    "wrong",
    [{"frames": 4}, {"frames": 0}, {"width_px": 30}, {"height_px": 8}, {"steps": 0}, {"sampler": "ddim"}],
)
def test_what_the_vae_or_the_sampler_cannot_make_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="expected"):
        latent_shape(dataclasses.replace(CONFIG, **wrong), INFO)  # type: ignore[arg-type]


def test_the_default_size_keeps_to_the_area() -> None:
    assert default_size(INFO) == (96, 64)
    width_px, height_px = default_size(dataclasses.replace(INFO, area_px=480 * 320))
    assert width_px % 16 == height_px % 16 == 0
    assert 0.8 * 480 * 320 < width_px * height_px <= 480 * 320


def test_files_are_written_with_their_sheet_and_their_story(
    generator: VideoGenerator, tmp_path: Path
) -> None:
    def load(name: str) -> VideoGenerator:
        return generator

    story = sample_to_file("builtin:", CONFIG, str(tmp_path / "a" / "x.mp4"), load)
    assert story["step"] == 7
    assert (tmp_path / "a" / "x.mp4").read_bytes()[4:8] == b"ftyp"
    assert Image.open(tmp_path / "a" / "x.png").size == (5 * 34, 24)
    assert json.loads((tmp_path / "a" / "x.json").read_text())["prompt"] == "a red circle"
    still = dataclasses.replace(CONFIG, frames=1)
    sample_to_file("builtin:", still, str(tmp_path / "still.png"), load)
    assert Image.open(tmp_path / "still.png").size == (32, 24)
    with pytest.raises(UsageError, match="png"):
        sample_to_file("builtin:", still, str(tmp_path / "still.mp4"), load)


def test_a_sample_takes_the_place_of_an_old_one_at_once(generator: VideoGenerator, tmp_path: Path) -> None:
    still = dataclasses.replace(CONFIG, frames=1)
    sample_to_file("builtin:", still, str(tmp_path / "still.png"), lambda name: generator)
    linked = tmp_path / "linked.png"  # what is written straight to its name changes every name of the file
    linked.hardlink_to(tmp_path / "still.png")
    before = linked.read_bytes()
    other = dataclasses.replace(still, seed=1)
    sample_to_file("builtin:", other, str(tmp_path / "still.png"), lambda name: generator)
    assert linked.read_bytes() == before != (tmp_path / "still.png").read_bytes()
