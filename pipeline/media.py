"""The only code that touches a codec: media files in, frames with times out, and small videos written.

In: a local path. Out: `MediaInfo`, decoded frames in display orientation, or an encoded file.
Never: a network protocol, a playlist, a seek whose result is not checked, or a process that has imported
torch (PyAV's frame threads and torch can hang at exit), which is why callers go through `pipeline.sandbox`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.errors import UsageError


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], fps: Fraction, crf: int = 16, preset: str = "veryfast"
) -> None:
    """Encode uint8 RGB frames [H, W, 3] (even sizes) to H.264 in MP4: atomic, and the same bytes every time."""
    final = Path(path)
    temporary = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        with av.open(
            str(temporary), "w", format="mp4", container_options={"fflags": "+bitexact"}
        ) as container:
            stream = container.add_stream("libx264", rate=fps)
            stream.pix_fmt = "yuv420p"
            # One thread and no macroblock tree: x264's bytes depend on its thread count, and with mbtree they
            # differed from run to run on small frames (96x64, x264 core 165, AVX-512 assembly).
            stream.codec_context.thread_count = 1
            stream.options = {"crf": str(crf), "preset": preset, "x264-params": "mbtree=0"}
            for index, pixels in enumerate(frames):
                height_px, width_px, _ = pixels.shape
                if index == 0:
                    if height_px % 2 or width_px % 2:
                        raise UsageError(
                            f"frames of {width_px}x{height_px}", expected="even width and height"
                        )
                    stream.width, stream.height = width_px, height_px
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
                frame.pts = index
                frame.time_base = 1 / fps
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)
