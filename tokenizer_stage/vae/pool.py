"""Spans of real pixels to train and to measure a VAE on.

In: a folder of media. Out: uint8 spans `[T, H, W, 3]` of single shots, without letterbox, at the scales
a VAE meets. Which files are held out is a hash of the file's name, so training and evaluation agree
without a list. Reads media only through the sandbox; keeps everything in memory.
"""

import hashlib
import logging
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from pipeline.config import AnalyzeConfig, EncodeConfig
from pipeline.errors import MediaError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from tokenizer_stage.vae.description import builtin_shape
from tokenizer_stage.vae.geometry import Sides, VaeShape, frame_rate, frame_times, target_geometry

Pool = list[np.ndarray]
BUILTIN_SHAPE = builtin_shape(16)
LOG = logging.getLogger(__name__)
FINE_AREA_PX = 256 * 160
FINE_FRAMES = 25
NATIVE_SIDE_PX = 128


def is_held_out(path: str) -> bool:
    """True for a third of all files, by a hash of the name (not of the folder)."""
    digest = hashlib.sha256(PurePosixPath(path).name.encode()).hexdigest()
    return int(digest[:8], 16) % 3 == 0


def media_files(folder: str) -> list[str]:
    """The media files below a folder, sorted."""
    return [str(uri) for uri in discover([folder]).inputs["uri"].to_pylist()]


def usable_clips(box: Sandbox, path: str) -> list[dict[str, Any]]:
    """The shots of one file, longest first; a file that cannot be decoded raises MediaError."""
    clips = [c for c in box.analyze(path, AnalyzeConfig()).clips if c["status"] == "ok"]
    if not clips:
        raise MediaError(f"no shot in {path}")
    return sorted(clips, key=lambda c: (c["start_s"] - c["end_s"], c["start_s"]))


def encode_span(
    box: Sandbox, path: str, clip: dict[str, Any], shape: VaeShape, *, start_s: float | None = None
) -> np.ndarray:
    """The clip as `framemill encode` reads it by default, but on the VAE's own grid (no patches), from its
    start or from `start_s`; a VAE that takes no pictures that small sees larger ones, and more frames."""
    config, sides = EncodeConfig(), shape.sides
    area_px = max(config.area_px, 4 * sides.width.first * sides.height.first)
    max_frames = max(config.max_frames, shape.frames.first)
    start_s = clip["start_s"] if start_s is None else start_s
    fps = frame_rate(config.fps, clip["fps"])
    times = frame_times(start_s, clip["end_s"], fps, max_frames, shape.frames)
    return _read(box, path, clip, times, area_px, sides)


def read_pool(folder: str, spans_per_clip: int, seed: int) -> Pool:
    """Spans of every file that is not held out, at three scales: as encoded, larger, and native."""
    rng = np.random.default_rng(seed)
    pool: Pool = []
    with Sandbox() as box:
        for path in media_files(folder):
            if is_held_out(path):
                continue
            try:
                for clip in usable_clips(box, path):
                    pool += [_random_span(box, path, clip, n, rng) for n in range(spans_per_clip)]
            except MediaError as error:
                LOG.warning("left out %s: %s", Path(path).name, error)
    if not pool:
        raise MediaError(f"nothing to train on in {folder}", fix="name a folder with more videos")
    return pool


def _random_span(
    box: Sandbox, path: str, clip: dict[str, Any], number: int, rng: np.random.Generator
) -> np.ndarray:
    """Span `number` of a clip, from a random start that leaves room for all of its frames: half of the
    spans as encoded, a quarter each at the two finer scales."""
    as_encoded = number % 4 < 2
    config = EncodeConfig()
    fps = frame_rate(config.fps, clip["fps"]) if as_encoded else clip["fps"] or 25.0
    count = config.max_frames if as_encoded else FINE_FRAMES
    slack_s = max(0.0, clip["end_s"] - clip["start_s"] - count / fps)
    start_s = clip["start_s"] + rng.random() * slack_s
    if as_encoded:
        return encode_span(box, path, clip, BUILTIN_SHAPE, start_s=start_s)
    times = frame_times(start_s, clip["end_s"], fps, count, BUILTIN_SHAPE.frames)
    if number % 4 == 2:
        return _read(box, path, clip, times, FINE_AREA_PX, BUILTIN_SHAPE.sides)
    x, y, width, height = clip["crop"]
    side_x, side_y = min(width, NATIVE_SIDE_PX) // 8 * 8, min(height, NATIVE_SIDE_PX) // 8 * 8
    left, top = x + int(rng.integers(width - side_x + 1)), y + int(rng.integers(height - side_y + 1))
    return box.read_span(
        path,
        kind=clip["kind"],
        times_s=times,
        crop=(left, top, side_x, side_y),
        width_px=side_x,
        height_px=side_y,
    )


def _read(
    box: Sandbox, path: str, clip: dict[str, Any], times: list[float], area_px: int, sides: Sides
) -> np.ndarray:
    x, y, width, height = clip["crop"]
    target = target_geometry(width, height, area_px, sides)
    left, top, crop_width, crop_height = target.crop
    return box.read_span(
        path,
        kind=clip["kind"],
        times_s=times,
        crop=(x + left, y + top, crop_width, crop_height),
        width_px=target.width_px,
        height_px=target.height_px,
    )
