"""Colours: what the numbers of a picture mean, by its tags and, without any, by its size.

In: the corners. Out: cases coded without loss from the equations of ITU-T H.273, in every matrix and range.
"""

from pathlib import Path

import av
import numpy as np

from pipeline.zoo.case import LOSSLESS, Case, Corners, failed, one_file, one_scene
from pipeline.zoo.pictures import BLACK, SIZE, moving
from pipeline.zoo.writer import Coding, write

HD = (1280, 720)
WEIGHTS = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 7: (0.212, 0.087)}
WEIGHTS[9] = (0.2627, 0.0593)
MATRICES = {"bt709": 1, "fcc": 4, "bt470bg": 5, "smpte170m": 6, "smpte240m": 7}
LIMITED, FULL = 1, 2
HDR = {  # transfer of H.273, and the signal of diffuse white, 203 cd/m2 (ITU-R BT.2408, table 1)
    "pq-white": (16, 0.58),
    "hlg-white": (18, 0.75),
}
REFUSED = {"bt2020c": 10, "smpte2085": 11}
SHOWN_WHITE = (225, 225, 225)  # within LOSSY: from 185 to less than 266, so that mid-grey is wrong


def cases(corners: Corners) -> list[Case]:
    """Every matrix, both ranges, 8 and 10 bits; and none stated, in small and in high definition."""
    listed = []
    for name, matrix in MATRICES.items():
        for limits, word in ((LIMITED, "limited"), (FULL, "full")):
            for bits in (8, 10):
                listed.append(_case(corners, f"{name}-{word}-{bits}", matrix, limits, bits, tagged=True))
    listed.append(_case(corners, "bt601-hd-tagged", 5, LIMITED, 8, tagged=True, size=HD))
    listed.append(_case(corners, "bt709-hd-tagged", 1, LIMITED, 8, tagged=True, size=HD))
    listed.append(_case(corners, "untagged-sd", 5, LIMITED, 8, tagged=False))
    listed.append(_case(corners, "untagged-hd", 1, LIMITED, 8, tagged=False, size=HD))
    listed.append(_case(corners, "untagged-hd-10", 1, LIMITED, 10, tagged=False, size=HD))
    listed += [_hdr(name, *row) for name, row in HDR.items()]
    listed += [_refused(corners, name, matrix) for name, matrix in REFUSED.items()]
    return listed


def _hdr(name: str, transfer: int, signal: float) -> Case:
    """Diffuse white beside black: white, not clipped and not grey, on a screen for standard range."""
    tags = {"colorspace": 9, "color_range": LIMITED, "color_primaries": 9, "color_trc": transfer}
    coding = Coding(codec="ffv1", container="matroska", layout="yuv444p10le", tags=tags)
    pixels = np.zeros((SIZE[1], SIZE[0], 3))
    pixels[:, : SIZE[0] // 2] = 255 * signal

    def make(path: Path) -> None:
        write(path, [_coded(pixels, 9, LIMITED, 10)] * 25, coding)

    shown = (SHOWN_WHITE, BLACK, SHOWN_WHITE, BLACK)
    return one_file(f"colours/{name}", "video.mkv", make, one_scene(shown, size=SIZE))


def _refused(corners: Corners, name: str, matrix: int) -> Case:
    """A matrix that nothing here converts: by its name, never in other colours."""
    coding = Coding(codec="ffv1", container="matroska", layout="yuv444p", tags={"colorspace": matrix})

    def make(path: Path) -> None:
        write(path, [_coded(pixels, 1, LIMITED, 8) for pixels in moving(corners)], coding)

    return one_file(f"colours/{name}", "video.mkv", make, failed(name))


def _case(
    corners: Corners,
    name: str,
    matrix: int,
    limits: int,
    bits: int,
    *,
    tagged: bool,
    size: tuple[int, int] = SIZE,
) -> Case:
    tags = {"colorspace": matrix, "color_range": limits} if tagged else {}
    coding = Coding(
        codec="ffv1", container="matroska", layout="yuv444p" if bits == 8 else "yuv444p10le", tags=tags
    )
    count = 25 if size == SIZE else 5

    def make(path: Path) -> None:
        pictures = moving(corners, size, count)
        write(path, [_coded(pixels, matrix, limits, bits) for pixels in pictures], coding)

    right = one_scene(corners, frames=count, size=size, tolerance=LOSSLESS)
    return one_file(f"colours/{name}", "video.mkv", make, right)


def _coded(rgb: np.ndarray, matrix: int, limits: int, bits: int) -> av.VideoFrame:
    """Y'CbCr of R'G'B' (uint8 [H, W, 3]) by H.273, equations 1 to 3 and 20 to 31."""
    red, blue = WEIGHTS[matrix]
    r, g, b = np.moveaxis(rgb.astype(float) / 255, 2, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    chroma = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    unit = 1 << (bits - 8)
    if limits == LIMITED:
        planes = [(219 * y + 16) * unit, *((224 * c + 128) * unit for c in chroma)]
    else:
        most = (1 << bits) - 1
        planes = [y * most, *(c * most + (1 << (bits - 1)) for c in chroma)]
    coded = np.clip(np.rint(np.stack(planes)), 0, (1 << bits) - 1)  # [3, H, W]
    kind, layout = ("u1", "yuv444p") if bits == 8 else ("<u2", "yuv444p10le")
    frame = av.VideoFrame(rgb.shape[1], rgb.shape[0], layout)
    for plane, values in zip(frame.planes, coded.astype(kind), strict=True):
        target = np.frombuffer(memoryview(plane), kind).reshape(plane.height, -1)
        target[:, : plane.width] = values
    return frame
