"""Filmstrips with true captions: the toy grammar, endless, and the shots of a rendered toy world.

In: a seed, or a toy-world folder. Out: `Example` values, the same every time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from captioner.filmstrip import STRIP_FRAMES, Filmstrip
from pipeline.config import AnalyzeConfig
from pipeline.corpus.ids import clip_id
from pipeline.media.stills import encode_jpeg
from pipeline.sandbox.sandbox import Sandbox
from pipeline.toyworld.render import render_frames
from pipeline.toyworld.scene import Fact, sample_shot
from pipeline.toyworld.wording import ToyCaption, caption_shot
from pipeline.toyworld.world import read_truth


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A filmstrip with captions and facts that are true of it."""

    strip: Filmstrip
    caption: ToyCaption
    facts: frozenset[Fact]


def toy_example(seed: int, index: int, count: int = STRIP_FRAMES) -> Example:
    """Example `index` of the endless toy set `seed`, the same every time: rendered, degraded, captioned.
    `count` is the number of frames; 1 makes an image.

    Sizes, aspects, softness and JPEG quality vary around those of the rendered toy world, and the strip
    may begin and end a little inside or outside the shot, as measured clips do.
    """
    is_image = count == 1
    rng = np.random.default_rng([seed, 0xF11, count, index])
    shot = sample_shot(
        rng,
        is_image=is_image,
        static=bool(rng.random() < 0.06),
        blurred=bool(rng.random() < 0.06),
        with_text=bool(rng.random() < 0.25),
    )
    area, aspect = rng.uniform(72 * 48, 192 * 112), float(np.exp(rng.uniform(np.log(9 / 22), np.log(22 / 9))))
    width_px, height_px = max(32, round((area * aspect) ** 0.5)), max(32, round((area / aspect) ** 0.5))
    first, last = rng.uniform(-0.04, 0.08), rng.uniform(0.92, 1.04)
    moments = np.full(1, 0.5) if is_image else np.linspace(first, last, count)
    frames = render_frames(shot, width_px, height_px, moments)  # [T, H, W, 3]
    quality, softness = int(rng.integers(40, 96)), rng.uniform(1.0, 1.8) if rng.random() < 0.3 else 1.0
    small = (max(24, round(width_px / softness)), max(24, round(height_px / softness)))
    strip = Filmstrip(
        clip_id=f"toy-{seed}-{index}",
        source_id=f"toy-{seed}",
        kind="image" if is_image else "video",
        start_s=0.0,
        end_s=0.0 if is_image else 2.0,
        times_s=tuple(float(m) * 2.0 for m in moments),
        frames=tuple(
            encode_jpeg(np.asarray(Image.fromarray(f).resize(small, Image.Resampling.BILINEAR)), quality)
            for f in frames
        ),
    )
    return Example(strip=strip, caption=caption_shot(shot, rng), facts=shot.facts)


def folder_examples(toyworld: Path, limit: int | None = None) -> Iterator[Example]:
    """One example a shot of a rendered toy world: frames decoded from the files, captions from the truth."""
    examples = 0
    with Sandbox() as box:
        for row in read_truth(toyworld):
            for shot in row["shots"]:
                if examples == limit:
                    return
                yield _file_example(box, toyworld, row, shot)
                examples += 1


def _file_example(box: Sandbox, toyworld: Path, row: dict[str, Any], shot: dict[str, Any]) -> Example:
    times = strip_times(row, shot)
    frames = box.read_strip(
        toyworld / row["file"], kind=row["kind"], times_s=times, crop=row["active"], config=AnalyzeConfig()
    )
    return Example(
        strip=Filmstrip(
            clip_id=clip_id(row["source_id"], shot["start_s"], shot["end_s"]),
            source_id=row["source_id"],
            kind=row["kind"],
            start_s=shot["start_s"],
            end_s=shot["end_s"],
            times_s=tuple(times),
            frames=tuple(frames),
        ),
        caption=ToyCaption(short=shot["short"], detailed=shot["detailed"]),
        facts=frozenset(Fact(**fact) for fact in shot["facts"]),
    )


def strip_times(row: dict[str, Any], shot: dict[str, Any]) -> list[float]:
    """Times of STRIP_FRAMES frames, evenly spread from the shot's first clean frame to its last."""
    if row["kind"] == "image":
        return [0.0]
    frames = np.linspace(shot["start_frame"], shot["end_frame"] - 1, STRIP_FRAMES).round()
    return [float(frame / row["fps"]) for frame in frames]
