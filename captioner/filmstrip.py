"""Filmstrips: what a captioner looks at, and where training gets them.

In: JPEG frames of a corpus, a toy-world folder, or the toy grammar. Out: `Filmstrip` values and tensors
uint8 [T, 3, S, S], letterboxed: aspect kept, padded with mid-grey. Never decodes video in this process.
"""

import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.errors import MediaError

STRIP_FRAMES = AnalyzeConfig().strip_frames  # what a captioner is trained on is what the analysis makes
PAD_GREY = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Filmstrip:
    """A few JPEG frames of one clip, with their times in the source. An image is one frame."""

    clip_id: str
    source_id: str
    kind: str  # video | image
    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    frames: tuple[bytes, ...]


def strip_pixels(strip: Filmstrip, image_px: int, max_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    """uint8 [T, 3, S, S] and times float32 [T] of at most `max_frames` frames, evenly chosen."""
    if not strip.frames:
        raise MediaError(f"clip {strip.clip_id} has no filmstrip frames")
    count = min(len(strip.frames), max_frames)
    chosen = np.linspace(0, len(strip.frames) - 1, count).round().astype(int)
    frames = np.stack([letterbox(decode_jpeg(strip.frames[i], strip.clip_id), image_px) for i in chosen])
    times = torch.tensor([strip.times_s[i] for i in chosen], dtype=torch.float32)  # [T]
    return torch.from_numpy(frames).permute(0, 3, 1, 2), times  # [T, 3, S, S]


def decode_jpeg(data: bytes, clip_id: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise MediaError(f"clip {clip_id}: a filmstrip frame is not an image: {error}") from error


def letterbox(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """The whole image, centred in a square of mid-grey: uint8 [S, S, 3]."""
    scale = side_px / max(image.size)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    canvas = np.full((side_px, side_px, 3), PAD_GREY, np.uint8)
    top, left = (side_px - height) // 2, (side_px - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(
        image.resize((width, height), Image.Resampling.BILINEAR)
    )
    return canvas


SPAN_COLUMNS = ["clip_id", "source_id", "kind", "start_s", "end_s"]


def read_strips(corpus: Corpus, clips: pa.Table) -> dict[str, Filmstrip]:
    """clip_id → filmstrip of a task's clips (SPAN_COLUMNS and their part), as far as there are any."""
    strips = corpus.strips_part(clips["part"][0].as_py())
    shown = {
        row["clip_id"]: row
        for row in strips.filter(pc.is_in(strips["clip_id"], clips["clip_id"])).to_pylist()
    }
    return {
        clip["clip_id"]: Filmstrip(
            **{name: clip[name] for name in SPAN_COLUMNS},
            times_s=tuple(shown[clip["clip_id"]]["times_s"]),
            frames=tuple(shown[clip["clip_id"]]["frames"]),
        )
        for clip in clips.to_pylist()
        if clip["clip_id"] in shown
    }
