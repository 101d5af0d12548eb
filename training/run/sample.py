"""A prompt in, a video or an image out.

In: a trained model (`builtin:` or a run folder), a prompt, a size. Out: uint8 frames [T, H, W, 3], written as
.mp4 or .png with a contact sheet and a JSON of how they were made. The same request gives the same pixels.
Videos are encoded in the media sandbox: this process never imports a codec.
"""

from __future__ import annotations

import dataclasses
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import FormatError, UsageError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.storage import commit_bytes
from tokenizer_stage.vae.builtin import VideoVAE
from tokenizer_stage.vae.names import load_vae
from tokenizer_stage.vae.pixels import to_frames
from training.diffusion import Velocity, draw_noise, euler, heun, time_grid
from training.layout import Layout, Shape, layout_of, tokens_of, unpatchify
from training.model import NoiseLevels
from training.run.trained import Trained, load_trained
from training.text import TextEncoder, load_text_encoder

SAMPLERS = {"euler": euler, "heun": heun}
SHEET_FRAMES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleConfig:
    """What to make. Sizes are multiples of the VAE's stride (8), `frames` is 1 + 4k."""

    prompt: str
    width_px: int = 96
    height_px: int = 64
    frames: int = 17
    fps: float = 8.0
    steps: int = 30
    cfg: float = 4.0  # guidance: 1 = the prompt alone, more = further away from "no prompt"
    seed: int = 0
    sampler: str = "euler"


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoGenerator:
    """A model with the text encoder and the VAE that it was trained with."""

    trained: Trained
    text: TextEncoder
    vae: VideoVAE

    def frames(self, prompts: Sequence[str], config: SampleConfig) -> list[np.ndarray]:
        """uint8 [T, H, W, 3] for each prompt, all in one packed sequence; `config.prompt` is not read."""
        info = self.trained.lineage.latents
        shape = latent_shape(config, info)
        device = next(self.trained.model.parameters()).device
        layout = layout_of([shape] * len(prompts), [info.stride_t / config.fps] * len(prompts)).to(device)
        names = [str(i) for i in range(len(prompts))]
        noise = draw_noise(names, layout.shapes, "sample", config.seed).to(device)
        velocity = guided_velocity(self.trained, layout, self.text.encode(prompts), config.cfg)
        times = time_grid(config.steps, tokens_of(shape), self.trained.flow)
        with torch.inference_mode():
            tokens = SAMPLERS[config.sampler](velocity, noise, times).cpu()  # [N, P]
        return [self._decode(part, shape) for part in torch.split(tokens, tokens_of(shape))]

    def _decode(self, tokens: Tensor, shape: Shape) -> np.ndarray:
        latent = unpatchify(tokens, shape).numpy()  # [C, T, h, w]
        raw = torch.from_numpy(self.trained.lineage.latents.denormalised(latent))
        return to_frames(self.vae.decode(raw[None])[0])


def load_generator(name: str) -> VideoGenerator:
    """`builtin:` or a run folder, with the VAE and the text encoder that it was trained with: checked."""
    trained = load_trained(name)
    trained.model.to("cuda" if torch.cuda.is_available() else "cpu")
    lineage = trained.lineage
    text = load_text_encoder(lineage.text_encoder)
    lineage.check_text(text, trained.where)
    vae = load_vae(lineage.latents.vae)
    if vae.weights_sha256 != lineage.latents.vae_sha256:
        raise FormatError(
            f"the VAE {lineage.latents.vae} has weights {vae.weights_sha256[:12]}",
            expected=f"{lineage.latents.vae_sha256[:12]}, as {trained.where} was trained on",
            fix="restore those weights, or train again",
        )
    return VideoGenerator(trained=trained, text=text, vae=vae)


def guided_velocity(
    trained: Trained,
    layout: Layout,
    texts: Sequence[Tensor],
    cfg: float,
    given: Tensor | None = None,
) -> Velocity:
    """Classifier-free guidance (Ho & Salimans 2022, Eq. 6): with and without text in one packed call.

    Tokens marked in `given` (bool [N]) are known: they count as clean and stand still.
    """
    count = len(texts)
    steps_s = _seconds_per_step(layout)
    guided = cfg != 1
    both = layout_of(layout.shapes * 2, steps_s * 2).to(layout.sample.device) if guided else layout
    prompts: list[Tensor | None] = [*texts, *([None] * count if guided else [])]
    known = None if given is None else torch.cat([given, given]) if guided else given

    def velocity(x: Tensor, t: float) -> Tensor:
        times = torch.full((len(prompts),), t, device=x.device)
        levels = NoiseLevels.of(times, both, known)
        out: Tensor = trained.model(torch.cat([x, x]) if guided else x, levels, both, prompts)
        if guided:
            with_text, without = out.chunk(2)
            out = without + cfg * (with_text - without)
        return out if given is None else out.masked_fill(given[:, None], 0.0)

    return velocity


def _seconds_per_step(layout: Layout) -> list[float]:
    """Each sample's latent step, read back from its second step (an image has none: any will do)."""
    out = []
    for shape, part in zip(
        layout.shapes, torch.split(layout.seconds, list(layout.segments.lengths)), strict=True
    ):
        out.append(float(part[-1]) / (shape[1] - 1) if shape[1] > 1 else 1.0)
    return out


def latent_shape(config: SampleConfig, info: LatentsInfo) -> Shape:
    """The latent of that many pixels and frames; sizes the VAE cannot make are refused."""
    if config.frames < 1 or (config.frames - 1) % info.stride_t:
        raise UsageError(f"--frames {config.frames}", expected=f"1 + {info.stride_t}k, such as 1, 5, 9, 17")
    if min(config.width_px, config.height_px) < 2 * info.stride_s or (
        config.width_px % info.stride_s or config.height_px % info.stride_s
    ):
        raise UsageError(
            f"--size {config.width_px}x{config.height_px}", expected=f"multiples of {info.stride_s}, from 16"
        )
    if config.sampler not in SAMPLERS:
        raise UsageError(f"sampler {config.sampler!r}", expected=" or ".join(SAMPLERS))
    if config.steps < 1:
        raise UsageError(f"--steps {config.steps}", expected="at least 1")
    rows, columns = config.height_px // info.stride_s, config.width_px // info.stride_s
    return (info.channels, 1 + (config.frames - 1) // info.stride_t, rows, columns)


def default_size(info: LatentsInfo) -> tuple[int, int]:
    """A 3:2 picture within the latents' area budget, in whole patches."""
    unit = 2 * info.stride_s
    height_px = max(unit, int((info.area_px / 1.5) ** 0.5) // unit * unit)
    return max(unit, int(height_px * 1.5) // unit * unit), height_px


def sample_to_file(
    checkpoint: str,
    config: SampleConfig,
    out: str,
    load: Callable[[str], VideoGenerator] = load_generator,
) -> dict[str, Any]:
    """Loads a model and writes one sample, as `write_sample` does."""
    began_s = time.monotonic()
    path = _checked_path(config, out)
    story = write_sample(load(checkpoint), checkpoint, config, path)
    return story | {"seconds": round(time.monotonic() - began_s, 2)}


def write_sample(
    generator: VideoGenerator, checkpoint: str, config: SampleConfig, path: Path
) -> dict[str, Any]:
    """Writes `path` (.mp4; .png for one frame), its contact sheet and, last, its JSON; returns what the JSON
    says. Each file appears whole."""
    frames = generator.frames([config.prompt], config)[0]
    story: dict[str, Any] = {
        "out": str(path),
        "checkpoint": checkpoint,
        "step": generator.trained.step,
    }
    if config.frames == 1:
        commit_bytes(path, png_bytes(Image.fromarray(frames[0])))
    else:
        sheet = path.with_suffix(".png")
        commit_bytes(sheet, png_bytes(contact_sheet(frames)))
        with Sandbox() as box:
            box.write_video(path, frames, config.fps)
        story["sheet"] = str(sheet)
    story |= dataclasses.asdict(config)
    text = json.dumps(story, indent=1, ensure_ascii=False) + "\n"
    commit_bytes(path.with_suffix(".json"), text.encode())
    return story


def _checked_path(config: SampleConfig, out: str) -> Path:
    suffix = ".png" if config.frames == 1 else ".mp4"
    if Path(out).suffix != suffix:
        raise UsageError(
            f"--out {out} for {config.frames} frames",
            expected=f"a name ending in {suffix}",
            fix="--frames, --out",
        )
    return Path(out)


def contact_sheet(frames: np.ndarray) -> Image.Image:
    """Up to nine frames, evenly spread from first to last, side by side."""
    at = np.linspace(0, len(frames) - 1, min(SHEET_FRAMES, len(frames))).round().astype(int)
    strip = np.concatenate(
        list(np.pad(frames[at], ((0, 0), (0, 0), (0, 2), (0, 0)))), axis=1
    )  # [H, n·(W+2), 3]
    return Image.fromarray(strip)


def png_bytes(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()
