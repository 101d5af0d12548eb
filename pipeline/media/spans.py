"""Chosen frames of a file: those on screen at given times, of a part of the picture, at a size.

In: a local path, times, a crop, the limits of a decode. Out: uint8 [T, H, W, 3] RGB, or the JPEG frames of a
filmstrip.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.config import DecodeLimits
from pipeline.errors import MediaError
from pipeline.media import stills, strips
from pipeline.media.decode import CLOCK_S, THREADS, decode, decode_from, probe, within
from pipeline.media.frames import Damage, Frame
from pipeline.media.phash import hamming, perceptual_hash

SEEK_AFTER_S = 4.0  # spans that begin earlier are decoded from the start: a seek saves nothing
SEEK_BITS = 16  # a sought frame further than this from the expected hash (of 64 bits) is not trusted
Draw = Callable[[Frame], np.ndarray]  # a frame → its pixels, uint8 RGB [H, W, 3]


def read_crop(
    path: str | Path,
    kind: str,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    expected_phash: int | None,
    limits: DecodeLimits,
) -> np.ndarray:
    """uint8 [T, H, W, 3] RGB of [x, y, w, h] (display pixels) at each time, from a video or a still."""
    if kind == "image":
        pixels, _, _ = stills.read_still(path, limits.max_pixels)
        x, y, w, h = crop
        still = stills.resize(pixels[y : y + h, x : x + w], width_px, height_px)  # [H, W, 3]
        return np.repeat(still[None], len(times_s), axis=0)  # [T, H, W, 3]
    return read_span(path, times_s, crop, width_px, height_px, limits=limits, expected_phash=expected_phash)


def read_span(
    path: str | Path,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    *,
    limits: DecodeLimits,
    expected_phash: int | None = None,
) -> np.ndarray:
    """The frames on screen at these (ascending) times: uint8 [T, H, W, 3] RGB of `crop`, [x, y, w, h] in
    display pixels.

    With `expected_phash` (the hash of the clip's first filmstrip frame) it seeks, and believes what comes of
    it only when the first frame looks like that: some streams give garbage after a seek, without any error.
    Otherwise, and for spans near the start, it decodes from the first frame.
    """

    def draw(frame: Frame) -> np.ndarray:
        size = frame.info.width, frame.info.height
        return frame.rgb(width_px, height_px, [v / side for v, side in zip(crop, size * 2, strict=True)])

    if expected_phash is not None and times_s[0] > SEEK_AFTER_S:
        try:
            sought = decode_from(path, times_s[0], max_pixels=limits.max_pixels)
            pictures = _pick(within(sought, limits.max_frames), times_s, draw)
        except MediaError:
            pictures = []
        if pictures and hamming(perceptual_hash(pictures[0]), expected_phash) <= SEEK_BITS:
            return np.stack(pictures)  # [T, H, W, 3]
    return np.stack(_from_start(path, times_s, draw, limits))  # [T, H, W, 3]


def read_strip(
    path: str | Path,
    kind: str,
    times_s: Sequence[float],
    crop: Sequence[int],
    long_px: int,
    quality: int,
    limits: DecodeLimits,
) -> list[stills.JpegBytes]:
    """The filmstrip that the analysis makes of the frames at these times: whole pictures at most `long_px`
    long, as JPEG, cut to `crop` ([x, y, w, h] in display pixels)."""
    if kind == "image":
        pixels, _, _ = stills.read_still(path, limits.max_pixels)
        high, wide, _ = pixels.shape
        return strips.strip_frames([strips.strip_picture(pixels, long_px)], crop, (wide, high), quality)
    info = probe(path)
    size = strips.fit(info.width, info.height, long_px, least=2)
    pictures = _from_start(path, times_s, lambda frame: frame.small_rgb(*size), limits)
    return strips.strip_frames(pictures, crop, (info.width, info.height), quality)


def read_thumbnails(path: str | Path, width_px: int, height_px: int, limits: DecodeLimits) -> np.ndarray:
    """Every good frame, scaled, the same ones that the analysis looks at: uint8 [N, H, W, 3] RGB; one of a
    still."""
    if stills.is_still(path):
        pixels, _, _ = stills.read_still(path, limits.max_pixels)
        return stills.resize(pixels, width_px, height_px)[None]  # [1, H, W, 3]
    for threads in (THREADS, 1):  # of a damaged file the surviving frames depend on the threads
        damage = Damage()
        frames = within(
            decode(path, damage, max_pixels=limits.max_pixels, threads=threads), limits.max_frames
        )
        pictures = [frame.rgb(width_px, height_px) for frame in frames]
        if not damage.dropped:
            break
    if not pictures:
        raise MediaError("no frame can be decoded")
    return np.stack(pictures)  # [N, H, W, 3]


def _from_start(
    path: str | Path, times_s: Sequence[float], draw: Draw, limits: DecodeLimits
) -> list[np.ndarray]:
    """The pictures at these times, decoded from the first frame on; of a damaged file with one thread."""
    for threads in (THREADS, 1):
        damage = Damage()
        frames = decode(path, damage, max_pixels=limits.max_pixels, threads=threads)
        pictures = _pick(within(frames, limits.max_frames), times_s, draw)
        if not damage.dropped:
            break
    if not pictures:
        raise MediaError(f"no frame at {times_s[0]:.3f} s")
    return pictures


def _pick(frames: Iterator[Frame], times_s: Sequence[float], draw: Draw) -> list[np.ndarray]:
    """The picture on screen at each time: the last frame that begins at or before it (within CLOCK_S)."""
    pictures: list[np.ndarray] = []
    on_screen: Frame | None = None
    for frame in frames:
        due = sum(time_s < frame.time_s - CLOCK_S for time_s in times_s[len(pictures) :])
        if due:
            pictures += [draw(on_screen or frame)] * due
        if len(pictures) == len(times_s):
            return pictures
        on_screen = frame
    if on_screen is not None:
        pictures += [draw(on_screen)] * (len(times_s) - len(pictures))
    return pictures
