"""Chosen frames of a file: those on screen at given times, of a part of the picture, at a size.

In: a local path, times, a crop. Out: uint8 [T, H, W, 3] RGB.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.errors import MediaError
from pipeline.media import stills
from pipeline.media.decode import THREADS, decode, decode_from, probe
from pipeline.media.frames import Damage, Frame
from pipeline.media.phash import hamming, perceptual_hash

SEEK_AFTER_S = 4.0  # spans that begin earlier are decoded from the start: a seek saves nothing


SEEK_BITS = 16  # a sought frame further than this from the expected hash (of 64 bits) is not trusted


def read_span(
    path: str | Path,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    *,
    max_pixels: int,
    expected_phash: int | None = None,
) -> np.ndarray:
    """The frames shown at these (ascending) times: uint8 [T, H, W, 3] RGB of `crop`, [x, y, w, h] display
    pixels.

    With `expected_phash` (hash of the clip's first filmstrip frame) it seeks, and believes what it finds
    only when
    the first frame looks like it: some streams give garbage after a seek without any error. Otherwise,
    and for
    spans near the start, it decodes from the first frame.
    """
    info = probe(path)
    part = [v / side for v, side in zip(crop, (info.width, info.height) * 2, strict=True)]  # now fractions
    size = (width_px, height_px)
    if expected_phash is not None and times_s[0] > SEEK_AFTER_S:
        try:
            found = _pick(decode_from(path, times_s[0], max_pixels=max_pixels), times_s, part, size)
        except MediaError:
            found = []
        if found and hamming(perceptual_hash(found[0]), expected_phash) <= SEEK_BITS:
            return np.stack(found)  # [T, H, W, 3]
    damage = Damage()
    found = _pick(decode(path, damage, max_pixels=max_pixels), times_s, part, size)
    if damage.dropped:
        found = _pick(decode(path, Damage(), max_pixels=max_pixels, threads=1), times_s, part, size)
    if not found:
        raise MediaError(f"no frame at {times_s[0]:.3f} s")
    return np.stack(found)  # [T, H, W, 3]


def thumbnails(path: str | Path, width_px: int, height_px: int, *, max_pixels: int) -> np.ndarray:
    """Every good frame, the same ones that the analysis sees: uint8 [N, H, W, 3] RGB."""
    for threads in (THREADS, 1):  # of a damaged file the surviving frames depend on the threads
        damage = Damage()
        frames = decode(path, damage, max_pixels=max_pixels, threads=threads)
        found = [frame.rgb(width_px, height_px) for frame in frames]
        if not damage.dropped:
            break
    if not found:
        raise MediaError("no frame can be decoded")
    return np.stack(found)  # [N, H, W, 3]


def _pick(
    frames: Iterator[Frame], times_s: Sequence[float], crop: Sequence[float], size: tuple[int, int]
) -> list[np.ndarray]:
    """The picture on screen at each time: the last frame that begins at or before it (within 1 ms)."""
    found: list[np.ndarray] = []
    shown: Frame | None = None
    for frame in frames:
        due = sum(time_s < frame.time_s - 1e-3 for time_s in times_s[len(found) :])
        if due:
            found += [(shown or frame).rgb(*size, crop)] * due
        if len(found) == len(times_s):
            return found
        shown = frame
    if shown is not None:
        found += [shown.rgb(*size, crop)] * (len(times_s) - len(found))
    return found


def read_crop(
    path: str | Path,
    kind: str,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    expected_phash: int | None,
    max_pixels: int,
) -> np.ndarray:
    """uint8 [T, H, W, 3] RGB of [x, y, w, h] (display pixels) at each time, from a video or a still."""
    if kind == "image":
        pixels, _, _ = stills.read_still(path, max_pixels)
        x, y, w, h = crop
        still = stills.resize(pixels[y : y + h, x : x + w], width_px, height_px)  # [H, W, 3]
        return np.repeat(still[None], len(times_s), axis=0)  # [T, H, W, 3]
    return read_span(
        path, times_s, crop, width_px, height_px, max_pixels=max_pixels, expected_phash=expected_phash
    )


def read_thumbnails(path: str | Path, width_px: int, height_px: int, max_pixels: int) -> np.ndarray:
    """uint8 [N, H, W, 3] RGB: every frame, scaled; one of a still."""
    if stills.is_still(path):
        pixels, _, _ = stills.read_still(path, max_pixels)
        return stills.resize(pixels, width_px, height_px)[None]  # [1, H, W, 3]
    return thumbnails(path, width_px, height_px, max_pixels=max_pixels)
