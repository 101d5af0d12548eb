"""Small videos written: H.264 in MP4, the same bytes every time; and a video looped packet by packet.

In: uint8 RGB frames. Out: a file that appears whole.
"""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from pipeline.errors import MediaError, UsageError
from pipeline.media.colour import BT709, usual_matrix
from pipeline.media.decode import open_container, video_stream
from pipeline.storage import commit


def write_video(
    path: str | Path, frames: Iterable[np.ndarray], fps: Fraction, crf: int = 16, preset: str = "veryfast"
) -> None:
    """Encode uint8 RGB frames [H, W, 3] (even sizes) to H.264 in MP4: atomic, and the same bytes every
    time. Of high definition the matrix is BT.709, and stated; below it is BT.601, as which players take it
    without a tag."""
    is_hd = False
    with (
        commit(Path(path)) as temporary,
        av.open(str(temporary), "w", format="mp4", container_options={"fflags": "+bitexact"}) as container,
    ):
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
                    raise UsageError(f"frames of {width_px}x{height_px}", expected="even width and height")
                stream.width, stream.height = width_px, height_px
                is_hd = usual_matrix(width_px, height_px) == BT709
                if is_hd:
                    context = stream.codec_context
                    context.colorspace = context.color_primaries = context.color_trc = BT709
                    context.color_range = ColorRange.MPEG
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if is_hd:
                frame = frame.reformat(
                    format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
                )
            frame.pts = index
            frame.time_base = 1 / fps
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def loop_video(path: str | Path, out: str | Path, duration_s: float) -> None:
    """Writes the video stream of `path` over and over, packet by packet, for about `duration_s`: a source of
    hours for pipeline/bench/long.py, which stands below and may not touch a codec itself."""
    with open_container(path) as container:
        stream = video_stream(container, path)
        packets = [p for p in container.demux(stream) if p.size and p.pts is not None and p.dts is not None]
        if not packets or stream.time_base is None:
            raise MediaError("no packets with times")
        whole = [
            (bytes(p), int(p.pts or 0), int(p.dts or 0), int(p.duration or 1), p.is_keyframe) for p in packets
        ]
        span = max(pts + ticks for _, pts, _, ticks, _ in whole) - min(pts for _, pts, _, _, _ in whole)
        turns = max(1, round(duration_s / float(span * stream.time_base)))
        with av.open(str(out), "w", format="matroska") as target:
            copy = target.add_stream_from_template(stream)
            for turn in range(turns):
                for data, pts, dts, ticks, key in whole:
                    packet = av.Packet(data)
                    packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, key
                    packet.pts, packet.dts, packet.duration = pts + turn * span, dts + turn * span, ticks
                    target.mux(packet)
