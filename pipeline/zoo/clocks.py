"""Clocks: what the times of a file say, and how long it is on screen.

In: the corners. Out: cases whose clocks start late, jump, wrap or vary; files that begin or end in the
middle of something. A jump is no time on screen; a frame without the frames it depends on is none.
"""

from collections.abc import Sequence
from pathlib import Path

import av

from pipeline.zoo.case import FRAME_S, LOSSY, Case, Corners, Expected, Scene, failed, one_file, one_scene
from pipeline.zoo.pictures import FRAMES, SIZE, moving, other_scene
from pipeline.zoo.writer import Coding, write

TS_CLOCK = 90_000  # ticks a second of MPEG-TS; its times have 33 bits
TICKS = TS_CLOCK // 25
WRAP = 1 << 33
HOUR = 3600 * TS_CLOCK
GOP = 12
NO_B = {"bf": "0"}
LATE = {"muxdelay": "0", "avoid_negative_ts": "disabled"}
COPYTS = {"mpegts_copyts": "1", "avoid_negative_ts": "disabled"}


def cases(corners: Corners) -> list[Case]:
    """Every clock."""
    return [*_late(corners), *_jumps(corners), *_uneven(corners), *_cut(corners)]


def _ts(path: Path, corners: Corners, start: int, codec: str = "libx264") -> None:
    """A second of MPEG-TS whose clock begins at `start` ticks."""
    pts = [start + index * TICKS for index in range(FRAMES)]
    coding = Coding(codec=codec, container="mpegts", muxing=COPYTS)
    write(path, moving(corners), coding, pts=pts, clock=TS_CLOCK)


def _late(corners: Corners) -> list[Case]:
    """The first frame is at 0, whatever its clock says."""
    listed = []
    for container, clock, hours in (
        ("mpegts", TS_CLOCK, 10),
        ("matroska", 1000, 10),
        ("nut", 25, 10),
        ("mp4", 25, 1),
    ):
        start, step = hours * 3600 * clock, clock // 25
        pts = [start + index * step for index in range(FRAMES)]
        coding = Coding(container=container, muxing=COPYTS if container == "mpegts" else {})
        listed.append(
            one_file(
                f"clocks/starts-late-{container}",
                "video",
                lambda path, c=coding, p=pts, k=clock: write(path, moving(corners), c, pts=p, clock=k),  # type: ignore[misc]
                one_scene(corners, size=SIZE),
            )
        )
    hidden = [index - 5 for index in range(FRAMES)]  # an edit list hides what lies before 0
    listed.append(
        one_file(
            "clocks/edit-list-hides-five",
            "video.mp4",
            lambda path: write(
                path,
                moving(corners),
                Coding(options=NO_B, gop=1, muxing={"avoid_negative_ts": "disabled"}),
                pts=hidden,
            ),
            one_scene(corners, frames=FRAMES - 5),
        )
    )
    return listed


def _jumps(corners: Corners) -> list[Case]:
    """Two seconds, two scenes, and between them a clock that goes its own way."""
    second = other_scene(corners)
    right = Expected(
        size=SIZE,
        frames=(2 * FRAMES, 2 * FRAMES),
        scenes=(
            Scene(start_s=0.0, end_s=1.0, corners=corners),
            Scene(start_s=1.0, end_s=2.0, corners=second),
        ),
        slack_s=0.13,
    )
    starts = {
        "jump-10h": (HOUR, 11 * HOUR),
        "jump-20s": (HOUR, HOUR + 21 * TS_CLOCK),
        "jump-back": (11 * HOUR, HOUR),
        "jump-back-1s": (HOUR, HOUR),
        "starts-again": (TS_CLOCK, TS_CLOCK),
    }
    listed = []
    for name, (first_at, second_at) in starts.items():
        for codec in ("libx264", "mpeg2video"):

            def make(path: Path, a: int = first_at, b: int = second_at, codec: str = codec) -> None:
                _ts(path, corners, a, codec)
                data = path.read_bytes()
                _ts(path, second, b, codec)
                path.write_bytes(data + path.read_bytes())

            listed.append(one_file(f"clocks/{name}-{codec}", "video.ts", make, right))
    for name, start in (("wraps", WRAP - TS_CLOCK // 2), ("wraps-at-once", WRAP - TICKS)):

        def wrap(path: Path, start: int = start) -> None:
            _ts(path, corners, start)

        listed.append(one_file(f"clocks/{name}", "video.ts", wrap, one_scene(corners, size=SIZE)))
    return listed


def _uneven(corners: Corners) -> list[Case]:
    """Rates that vary, and times that come twice."""
    long_s = [0.0]
    for index in range(1, FRAMES):
        long_s.append(long_s[-1] + (0.2 if index % 5 == 0 else FRAME_S))
    listed = []
    for container, clock in (("matroska", 1000), ("mp4", 1000), ("nut", 1000), ("mpegts", TS_CLOCK)):
        pts = [round(at * clock) for at in long_s]
        varied = _scene_until(corners, FRAMES, long_s[-1] + FRAME_S)
        listed.append(_timed(corners, f"varies-{container}", container, pts, clock, varied))
    slow = [index * 1000 for index in range(3)]  # a slide show: three pictures of a second
    listed.append(_timed(corners, "one-a-second", "matroska", slow, 1000, _scene_until(corners, 3, 3.0)))
    fast = list(range(FRAMES))
    listed.append(
        _timed(corners, "120-a-second", "mp4", fast, 120, _scene_until(corners, FRAMES, FRAMES / 120))
    )
    listed.append(_timed(corners, "one-frame", "mp4", [0], 25, _scene_until(corners, 1, FRAME_S)))
    return listed


def _scene_until(corners: Corners, frames: int, end_s: float) -> Expected:
    return Expected(
        size=SIZE,
        frames=(frames, frames),
        scenes=(Scene(start_s=0.0, end_s=end_s, corners=corners),),
        slack_s=0.1,
    )


def _timed(
    corners: Corners, name: str, container: str, pts: Sequence[int], clock: int, right: Expected
) -> Case:
    coding = Coding(container=container, options=NO_B)
    return one_file(
        f"clocks/{name}",
        "video",
        lambda path: write(path, moving(corners, frames=len(pts)), coding, pts=pts, clock=clock),
        right,
    )


def _cut(corners: Corners) -> list[Case]:
    """Files that begin or end where no cut should be."""
    listed = []
    for codec in ("libx264", "libx265", "mpeg2video"):
        left = FRAMES - GOP  # what lies before the second keyframe depends on the first, which is gone
        options = (
            NO_B
            if codec != "libx265"
            else {"x265-params": "log-level=none:bframes=0:keyint=12:min-keyint=12"}
        )
        coding = Coding(codec=codec, container="mpegts", options=options | KEYS.get(codec, {}), gop=GOP)
        listed.append(
            one_file(
                f"clocks/begins-inside-{codec}",
                "video.ts",
                lambda path, coding=coding: _without_first(path, corners, coding),  # type: ignore[misc]
                Expected(
                    statuses=("ok", "salvaged"),
                    size=SIZE,
                    frames=(left, left),
                    scenes=(Scene(start_s=0.0, end_s=left * FRAME_S, corners=corners),),
                ),
            )
        )
    part = Expected(
        statuses=("ok", "salvaged"),
        size=SIZE,
        frames=(2, FRAMES - 1),
        scenes=(Scene(start_s=0.0, end_s=0.6, corners=corners),),
        slack_s=0.4,
        tolerance=LOSSY,
    )
    for container, codec, muxing in (
        ("mpegts", "libx264", {}),
        ("matroska", "libx264", {}),
        ("avi", "mjpeg", {}),
        ("mp4", "mjpeg", {"movflags": "faststart"}),
        ("flv", "flv", {}),
    ):
        layout = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        coding = Coding(codec=codec, layout=layout, container=container, muxing=muxing, options=NO_B)
        listed.append(
            one_file(
                f"clocks/cut-off-{container}",
                "video",
                lambda path, coding=coding: _truncated(path, corners, coding),  # type: ignore[misc]
                part,
            )
        )
    listed.append(
        one_file(
            "clocks/cut-off-before-the-index",
            "video.mp4",
            lambda path: _truncated(path, corners, Coding()),
            failed("moov|index"),
        )
    )
    return listed


KEYS = {"libx264": {"x264-params": "mbtree=0:scenecut=0:keyint=12:min-keyint=12"}}


def _truncated(path: Path, corners: Corners, coding: Coding) -> None:
    write(path, moving(corners), coding)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])


def _without_first(path: Path, corners: Corners, coding: Coding) -> None:
    """The same stream without its first keyframe."""
    whole = path.with_suffix(".whole")
    write(whole, moving(corners), coding)
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mpegts") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number and packet.size:
                packet.stream = stream
                target.mux(packet)
    whole.unlink()
