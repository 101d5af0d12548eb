"""What a case of the zoo is: files, and what must come of them.

In: nothing. Out: frozen descriptions. What must come out is written from the formats' standards and from what
was put in, never from what framemill gives. Never: a codec.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.errors import UsageError

RGB = tuple[int, int, int]
Corners = tuple[RGB, RGB, RGB, RGB]  # top left, top right, bottom left, bottom right, as displayed
Make = Callable[[Path], object]  # writes a case's files into its folder

LOSSY, LOSSLESS = 40, 12  # of 255: how far a corner may be off; filmstrips are JPEG, so never 0
FRAME_S = 0.04  # of a video of 25 frames a second
SLACK_S = 0.06  # by which a time may be off: containers count in milliseconds, a frame lasts 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One shot: half-open span in seconds after the first frame, and the colours of its corners."""

    start_s: float
    end_s: float
    corners: Corners


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What must come of one source."""

    kind: str = "video"  # video | image
    statuses: tuple[str, ...] = ("ok",)  # ok | salvaged | failed: any of these is right
    size: tuple[int, int] | None = None  # (width, height) in display pixels; None: not looked at
    frames: tuple[int, int] | None = None  # (least, most)
    scenes: tuple[Scene, ...] = ()  # a clip each, in order; none: clips are not looked at
    slack_s: float = SLACK_S
    tolerance: int = LOSSY
    whole: bool = True  # each row of pixels agrees with its neighbours: no field of another moment in it
    caption: str | None = None  # the fact `original`
    reason: str = ""  # a pattern that the reason must hold (of a failed or salvaged source)
    or_refused: str = ""  # or the source is a failed row whose reason holds this pattern

    def __post_init__(self) -> None:
        if not set(self.statuses) <= {"ok", "salvaged", "failed"} or self.kind not in ("video", "image"):
            raise UsageError(f"{self.kind} {self.statuses}", expected="video or image; ok, salvaged, failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Files that are given to one run."""

    name: str  # axis/what it is: also its folder
    make: Make
    given: tuple[str, ...]  # what the run is asked for, below the folder; "" is the folder itself
    sources: Mapping[str, Expected]  # path below the folder (`x.tar#member` inside a tar) → what must come
    notes: tuple[str, ...] = ()  # patterns: each must be found in a note, or in the reason of a source
    refused: str = ""  # or must: the command line is refused with words that hold this pattern
    needs: tuple[str, ...] = field(default=())  # encoders without which the case is left out

    @property
    def axis(self) -> str:
        return self.name.partition("/")[0]


def failed(reason: str) -> Expected:
    """A source that must fail with a reason that holds this pattern."""
    return Expected(statuses=("failed",), reason=reason)


def one_scene(
    corners: Corners,
    *,
    frames: int = 25,
    fps: float = 25.0,
    size: tuple[int, int] | None = None,
    tolerance: int = LOSSY,
    or_refused: str = "",
) -> Expected:
    """A video of one shot, at a steady rate."""
    duration_s = frames / fps
    return Expected(
        size=size,
        frames=(frames, frames),
        scenes=(Scene(start_s=0.0, end_s=duration_s, corners=corners),),
        tolerance=tolerance,
        or_refused=or_refused,
    )


def still(
    corners: Corners,
    size: tuple[int, int],
    *,
    tolerance: int = LOSSLESS,
    caption: str | None = None,
    or_refused: str = "",
) -> Expected:
    """A picture: one frame, no duration."""
    return Expected(
        kind="image",
        size=size,
        frames=(1, 1),
        scenes=(Scene(start_s=0.0, end_s=0.0, corners=corners),),
        tolerance=tolerance,
        caption=caption,
        or_refused=or_refused,
    )


def one_file(name: str, file: str, make: Make, expected: Expected, *, needs: tuple[str, ...] = ()) -> Case:
    """A case of one file, which the run names: its suffix does not matter. `make` gets the file's path."""
    return Case(
        name=name,
        make=lambda folder: make(folder / file),
        given=(file,),
        sources={file: expected},
        needs=needs,
    )
