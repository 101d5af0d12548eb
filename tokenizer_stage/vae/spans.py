"""What of a clip a VAE sees: frame times, crop and size; and those frames, read in the sandbox.

In: a clip row, the encode config and what the VAE takes. Out: a `Span`; uint8 [T, H, W, 3].
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pipeline.config import EncodeConfig
from pipeline.media.phash import perceptual_hash
from pipeline.sandbox.sandbox import Sandbox
from tokenizer_stage.vae.geometry import VaeShape, frame_rate, frame_times, target_geometry

PIECE_FRAMES = 96  # of a longer span, where the VAE takes it in pieces: 1 GB of 1280×720 as the VAE sees it


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """What of a clip is encoded: frame times and the crop and size of each frame, in source pixels."""

    times_s: tuple[float, ...]
    fps: float
    crop: tuple[int, int, int, int]
    width_px: int
    height_px: int


def span_of(row: dict[str, Any], config: EncodeConfig, shape: VaeShape) -> Span:
    """The span of a clip row under a config: the geometry of its active picture, times from its start. The
    grid is the VAE's spatial stride times the config's patch.

    Raises:
        MediaError: the VAE takes no picture of its aspect, or not as few frames.
    """
    x, y, width, height = row["crop"]
    sides = shape.sides.on_grid(shape.stride_s * config.patch)
    geometry = target_geometry(width, height, config.area_px, sides)
    fps = frame_rate(config.fps, row["fps"])
    left, top, crop_width, crop_height = geometry.crop
    return Span(
        times_s=tuple(frame_times(row["start_s"], row["end_s"], fps, config.max_frames, shape.frames)),
        fps=fps,
        crop=(x + left, y + top, crop_width, crop_height),
        width_px=geometry.width_px,
        height_px=geometry.height_px,
    )


def read_frames(box: Sandbox, path: str, row: dict[str, Any], span: Span) -> np.ndarray:
    """The frames of a span, uint8 `[T, H, W, 3]`. Where the source's clock jumps, nothing is sought: by the
    file's own clock a time may be another place, which may look alike."""
    return _read(box, path, row, span, span.times_s, row["phash"][0] if row["phash"] else None)


def read_pieces(
    box: Sandbox, path: str, row: dict[str, Any], span: Span, at_once: int = PIECE_FRAMES
) -> Iterator[np.ndarray]:
    """The same frames, at most `at_once` in memory at a time: uint8 `[t, H, W, 3]`. A later piece is sought
    by the last picture of the one before, which is read again to know the place."""
    frames = np.empty((0,), np.uint8)
    for start in range(0, len(span.times_s), at_once):
        if not start:
            first = replace(span, times_s=span.times_s[:at_once])
            frames = read_frames(box, path, row, first)
        else:
            times_s = span.times_s[start - 1 : start + at_once]
            frames = _read(box, path, row, span, times_s, perceptual_hash(frames[-1]))[1:]
        yield frames


def _read(
    box: Sandbox,
    path: str,
    row: dict[str, Any],
    span: Span,
    times_s: Sequence[float],
    phash: int | None,
) -> np.ndarray:
    return box.read_span(
        path,
        kind=row["kind"],
        times_s=times_s,
        crop=span.crop,
        width_px=span.width_px,
        height_px=span.height_px,
        expected_phash=None if row["clock_jumps"] else phash,
    )
