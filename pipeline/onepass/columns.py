"""The columns that the row of every source has, and that of every clip, video or still.

In: what a pass has told. Out: plain rows, without the columns that name the file. Never: a measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.media.frames import MediaInfo
from pipeline.shots.boundaries import Shot
from pipeline.signals import bars

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """What the times of a source's frames say."""

    fps: float  # 0 of a still
    is_vfr: bool
    frames: int
    duration_s: float


def source_row(
    kind: str, info: MediaInfo, timing: Timing, losses: Sequence[str] = (), clock_jumps: int = 0
) -> Row:
    """The row of any source, video or still."""
    return {
        "kind": kind,
        "status": "salvaged" if losses else "ok",
        "reason": "; ".join(losses) or None,
        "container": info.container,
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps": timing.fps,
        "is_vfr": timing.is_vfr,
        "frames": timing.frames,
        "duration_s": timing.duration_s,
        "has_audio": info.has_audio,
        "transfer": info.transfer,
        "clock_jumps": clock_jumps,
    }


def clip_row(
    source: Row,
    shot: Shot,
    span_s: tuple[float, float],
    crop: bars.Box,
    numbers: dict[str, float | None],
    hashes: list[int],
    camera_kind: str | None = None,
) -> Row:
    """The row of any clip, shot or still."""
    return {
        "kind": source["kind"],
        "start_s": span_s[0],
        "end_s": span_s[1],
        "start_frame": shot.start,
        "end_frame": shot.end,
        "fps": source["fps"],
        "width": source["width"],
        "height": source["height"],
        "crop": list(crop),
        "boundary_in": shot.boundary_in,
        "boundary_out": shot.boundary_out,
        "boundary_confidence": shot.confidence,
        "signals": numbers,
        "camera": camera_kind,
        "phash": hashes,
        "status": "ok",
        "reason": None,
    }
