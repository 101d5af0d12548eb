"""Writes the zoo's videos, packet by packet: any codec that this FFmpeg encodes in any container it writes.

In: pictures. Out: files; the same bytes every time (one thread, bit-exact muxers). Runs in a process that has
not imported torch (pipeline/zoo/make.py). Never: pictures chosen by what framemill can read.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.zoo.pictures import FPS

Picture = np.ndarray | av.VideoFrame  # uint8 RGB [H, W, 3], or a frame of any layout
FAST = {  # options that make encoders quick, quiet and reproducible
    "libx264": {"preset": "veryfast", "crf": "12", "x264-params": "mbtree=0"},
    "libx265": {
        "preset": "ultrafast",
        "crf": "12",
        "x265-params": "log-level=none:pools=none:frame-threads=1",
    },
    "libsvtav1": {"preset": "12", "crf": "20", "svtav1-params": "lp=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "6", "b": "2000000"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "12", "b": "0"},
}
GOOD_BITS = 4_000_000  # a second, of encoders that have no constant quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """How pictures are coded."""

    codec: str = "libx264"  # an encoder of FFmpeg
    layout: str = "yuv420p"  # its pixel format
    container: str = "mp4"  # a muxer of FFmpeg
    options: Mapping[str, str] = field(default_factory=dict)
    muxing: Mapping[str, str] = field(default_factory=dict)
    aspect: Fraction | None = None  # of a sample
    tags: Mapping[str, int] = field(
        default_factory=dict
    )  # colorspace, color_primaries, color_trc, color_range
    gop: int = 12


def write(
    path: Path,
    pictures: Sequence[Picture],
    coding: Coding,
    *,
    pts: Sequence[int] | None = None,
    clock: int = FPS,
) -> None:
    """Encodes the pictures, shown at `pts` / `clock` seconds (default: one after another, 25 a second)."""
    options = {"fflags": "+bitexact", **coding.muxing}
    with av.open(str(path), "w", format=coding.container, container_options=options) as container:
        stream = add_stream(container, pictures[0], coding, clock if pts is None or clock < 1000 else FPS)
        for packet in packets(stream, pictures, coding, pts or range(len(pictures)), clock):
            container.mux(packet)


def add_stream(container: Any, first: Picture, coding: Coding, rate: int = FPS) -> Any:
    """A video stream of `container` for pictures like the first."""
    stream = container.add_stream(coding.codec, rate=rate)
    if isinstance(first, np.ndarray):
        stream.height, stream.width = first.shape[:2]
    else:
        stream.width, stream.height = first.width, first.height
    stream.pix_fmt = coding.layout
    context = stream.codec_context
    context.thread_count = 1
    context.gop_size = coding.gop
    context.options = {**FAST.get(coding.codec, {}), **coding.options}
    if coding.codec not in FAST:
        context.bit_rate = GOOD_BITS
    if coding.aspect is not None:
        stream.sample_aspect_ratio = coding.aspect
    for name, value in coding.tags.items():
        setattr(context, name, value)
    return stream


def packets(
    stream: Any, pictures: Sequence[Picture], coding: Coding, pts: Sequence[int], clock: int
) -> list[Any]:
    """What the encoder makes of the pictures."""
    coded = []
    for picture, at in zip(pictures, pts, strict=True):
        coded += stream.encode(_frame(picture, coding, at, clock))
    return coded + stream.encode(None)


def _frame(picture: Picture, coding: Coding, at: int, clock: int) -> av.VideoFrame:
    if isinstance(picture, np.ndarray):
        layout = "rgb24" if picture.shape[2] == 3 else "rgba"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
        if layout != coding.layout:
            frame = frame.reformat(format=coding.layout)
    else:
        frame = picture
    for name in ("colorspace", "color_range", "color_primaries", "color_trc"):
        if name in coding.tags:
            setattr(frame, name, coding.tags[name])
    frame.pts, frame.time_base = at, Fraction(1, clock)
    return frame


def can_encode(codec: str) -> bool:
    """Whether this FFmpeg has the encoder."""
    with suppress(av.codec.codec.UnknownCodecError):
        return bool(av.Codec(codec, "w"))
    return False
