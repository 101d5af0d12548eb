"""Streams: fields of two moments, a second picture or sound beside the first.

In: the corners. Out: cases that show one picture at a time, that of the first stream of moving pictures.
"""

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from pipeline.zoo.case import LOSSY, Case, Corners, Expected, Scene, one_file, one_scene
from pipeline.zoo.pictures import BLACK, FPS, FRAMES, SIZE, WHITE, moving, other_scene, quadrants
from pipeline.zoo.writer import Coding, add_stream, packets, write

SOUND_HZ = 8000
WOVEN: dict[str, tuple[str, str, Mapping[str, str]]] = {  # container, encoder, its options
    "h264-ts": ("mpegts", "libx264", {"x264-params": "tff=1:mbtree=0", "crf": "8"}),
    "h264-mp4": ("mp4", "libx264", {"x264-params": "tff=1:mbtree=0", "crf": "8"}),
    "mpeg2-ts": ("mpegts", "mpeg2video", {"flags": "+ildct+ilme"}),
    "mpeg2-mkv": ("matroska", "mpeg2video", {"flags": "+ildct+ilme"}),
}


def cases(corners: Corners) -> list[Case]:
    """Interlaced pictures, two streams, sound."""
    listed = [_woven(corners, name, *row) for name, row in WOVEN.items()]
    listed += [_two(corners, container) for container in ("matroska", "mpegts", "mp4")]
    return [*listed, _sound(corners)]


def fields(corners: Corners) -> list[np.ndarray]:
    """uint8 RGB [H, W, 3]: the band in the middle is white in even rows and black in odd ones, or the other
    way round in every other picture, as of a thing that is there in one field and gone in the next."""
    pictures = []
    for index in range(FRAMES):
        pixels = quadrants(corners)
        band = slice(SIZE[1] * 3 // 8 // 2 * 2, SIZE[1] * 5 // 8 // 2 * 2)
        even, odd = (WHITE, BLACK) if index % 2 else (BLACK, WHITE)
        pixels[band][::2, SIZE[0] // 3 : SIZE[0] * 2 // 3] = even
        pixels[band][1::2, SIZE[0] // 3 : SIZE[0] * 2 // 3] = odd
        pictures.append(pixels)
    return pictures


def _woven(corners: Corners, name: str, container: str, codec: str, options: Mapping[str, str]) -> Case:
    coding = Coding(codec=codec, container=container, options={**options, "bf": "0"})
    right = Expected(
        statuses=("ok", "salvaged"),
        size=SIZE,
        frames=(FRAMES - 1, FRAMES),
        scenes=(Scene(start_s=0.0, end_s=1.0, corners=corners),),
        tolerance=LOSSY,
    )
    return one_file(
        f"streams/fields-{name}", "video", lambda path: write(path, fields(corners), coding), right
    )


def _two(corners: Corners, container: str) -> Case:
    """The first stream counts, not the larger."""

    def make(path: Path) -> None:
        with av.open(str(path), "w", format=container) as target:
            shows = moving(corners), moving(other_scene(corners), (SIZE[0] * 2, SIZE[1] * 2))
            coding = Coding(container=container)
            streams = [add_stream(target, pictures[0], coding) for pictures in shows]
            coded = [
                packet
                for stream, pictures in zip(streams, shows, strict=True)
                for packet in packets(stream, pictures, coding, range(FRAMES), FPS)
            ]
            for packet in sorted(coded, key=lambda p: (p.dts is None, p.dts or 0)):
                target.mux(packet)

    return one_file(f"streams/two-{container}", "video", make, one_scene(corners, size=SIZE))


def _sound(corners: Corners) -> Case:
    """Longer than the pictures: it is no time on screen."""

    def make(path: Path) -> None:
        with av.open(str(path), "w", format="matroska") as target:
            pictures, coding = moving(corners), Coding(container="matroska")
            stream = add_stream(target, pictures[0], coding)
            sound = target.add_stream("pcm_s16le", rate=SOUND_HZ, layout="mono")
            for packet in packets(stream, pictures, coding, range(FRAMES), FPS):
                target.mux(packet)
            samples = np.zeros((1, 3 * SOUND_HZ), np.int16)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, 0, Fraction(1, SOUND_HZ)
            target.mux(sound.encode(frame))
            target.mux(sound.encode(None))

    return one_file("streams/longer-sound", "video", make, one_scene(corners, size=SIZE))
