"""Which way up, and how wide: display matrices, orientation messages, sample aspect.

In: the corners. Out: cases whose picture is coded as it is and must be shown turned, mirrored or stretched.

A display matrix (ISO/IEC 14496-12, tkhd) maps a coded point (p, q), q downwards, to x = a p + c q and
y = b p + d q: what follows here is that sum, not what a decoder makes of it.
"""

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from pipeline.zoo.case import LOSSY, Case, Corners, Expected, one_file, one_scene
from pipeline.zoo.pictures import SIZE, moving, place
from pipeline.zoo.writer import Coding, add_stream, packets, write

Turn = tuple[int, int, int, int]  # a, b, c, d of a display matrix
TURNS: dict[str, Turn] = {
    "as_coded": (1, 0, 0, 1),
    "clockwise_90": (0, 1, -1, 0),
    "half_turn": (-1, 0, 0, -1),
    "clockwise_270": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "flipped": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}
USELESS: dict[str, Turn] = {"zero": (0, 0, 0, 0), "singular_row": (1, 0, 0, 0), "singular_sum": (1, 1, 1, 1)}
MATRIX_AT = 44  # from the four letters `tkhd`: version, times, id, duration, layer, volume (version 0)
ONE = 1 << 16  # 16.16
ASPECTS = {"4x3": (4, 3), "1x2": (1, 2), "16x11": (16, 11), "8x9": (8, 9), "2x1": (2, 1)}
CENTRES = ((-1, -1), (1, -1), (-1, 1), (1, 1))  # of the four corners, x to the right, y down


def shown(corners: Corners, turn: Turn) -> Corners:
    """The corners on screen of a picture that a matrix turns."""
    a, b, c, d = turn
    lands = [(a * x + c * y, b * x + d * y) for x, y in CENTRES]
    return place(corners, [lands.index(centre) for centre in CENTRES])


def shown_size(size: tuple[int, int], turn: Turn) -> tuple[int, int]:
    """(width, height) on screen."""
    return size if turn[0] else size[::-1]


def cases(corners: Corners) -> list[Case]:
    """Every matrix, every orientation message, every aspect."""
    listed = []
    for name, turn in TURNS.items():
        right = one_scene(shown(corners, turn), size=shown_size(SIZE, turn))
        for container in ("mp4", "mov"):
            listed.append(_matrix(corners, f"matrix-{name}-{container}", container, turn, right))
    for name, turn in USELESS.items():
        right = one_scene(corners, size=SIZE, or_refused="matrix" if turn[0] else "")
        listed.append(_matrix(corners, f"matrix-{name}", "mp4", turn, right))
    turn = TURNS["mirrored"]
    half = one_scene(shown(corners, turn), size=SIZE)
    listed.append(_matrix(corners, "matrix-mirrored-half-size", "mp4", turn, half, scale=ONE // 2))
    listed += [_message(corners, *how) for how in MESSAGES]
    for name, (over, under) in ASPECTS.items():
        for container in ("mp4", "matroska", "mpegts"):
            listed.append(_stretched(corners, f"aspect-{name}-{container}", container, Fraction(over, under)))
    turn = TURNS["clockwise_90"]  # the stretch is of coded samples: it is the height once turned
    right = one_scene(shown(corners, turn), size=(96, 256))
    listed.append(_matrix(corners, "aspect-2x1-turned", "mp4", turn, right, aspect=Fraction(2)))
    for size in ((127, 95), (33, 17), (16, 16), (640, 16)):
        coding = Coding(layout="yuv444p")
        listed.append(
            one_file(
                f"geometry/size-{size[0]}x{size[1]}",
                "video.mp4",
                lambda path, size=size, coding=coding: write(path, moving(corners, size), coding),  # type: ignore[misc]
                one_scene(corners, size=size),
            )
        )
    return listed


def _matrix(
    corners: Corners,
    name: str,
    container: str,
    turn: Turn,
    right: Expected,
    *,
    scale: int = ONE,
    aspect: Fraction | None = None,
) -> Case:
    def make(path: Path) -> None:
        write(path, moving(corners), Coding(container=container, aspect=aspect))
        data = bytearray(path.read_bytes())
        at = data.index(b"tkhd") + MATRIX_AT
        a, b, c, d = (value * scale for value in turn)
        unit = (1 << 30) if any(turn) else 0
        data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, unit)
        path.write_bytes(data)

    return one_file(f"geometry/{name}", f"video.{container}", make, right)


# An H.264 or H.265 display orientation message (D.1.27): mirrored first, then turned counter-clockwise.
MESSAGES: tuple[tuple[str, str, str, Turn], ...] = (
    ("libx264", "h264_metadata", "rotate=90", (0, -1, 1, 0)),
    ("libx264", "h264_metadata", "rotate=180", (-1, 0, 0, -1)),
    ("libx264", "h264_metadata", "flip=horizontal", (-1, 0, 0, 1)),
    ("libx264", "h264_metadata", "flip=vertical", (1, 0, 0, -1)),
)


def _message(corners: Corners, codec: str, name: str, what: str, turn: Turn) -> Case:
    def make(path: Path) -> None:
        with av.open(str(path), "w", format="mpegts") as container:
            pictures, coding = moving(corners), Coding(codec=codec, container="mpegts", options={"bf": "0"})
            stream = add_stream(container, pictures[0], coding)
            edit = av.BitStreamFilterContext(f"{name}=display_orientation=insert:{what}", stream)
            for packet in packets(stream, pictures, coding, range(len(pictures)), 25):
                if packet.size:  # the last is empty
                    for edited in edit.filter(packet):
                        container.mux(edited)

    right = one_scene(shown(corners, turn), size=shown_size(SIZE, turn))
    right = replace(
        right, statuses=("ok", "salvaged")
    )  # the filter leaves a unit without a picture at the end
    return one_file(f"geometry/message-{what.replace('=', '-')}", "video.ts", make, right)


def _stretched(corners: Corners, name: str, container: str, aspect: Fraction) -> Case:
    coding = Coding(container=container, aspect=aspect)
    size = (round(SIZE[0] * aspect), SIZE[1])
    return one_file(
        f"geometry/{name}",
        "video",
        lambda path: write(path, moving(corners), coding),
        one_scene(corners, size=size, tolerance=LOSSY),
    )
