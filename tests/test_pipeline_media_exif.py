"""Orientation by EXIF: in animations and in the frames of camera videos it counts as in a still."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.media.spans import read_span
from pipeline.media.stills import decode_jpeg
from pipeline.onepass.rows import analyze_file

WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, YELLOW = (200, 40, 40), (40, 180, 40), (40, 40, 200), (210, 210, 40)
CODED = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right
SHOWN = {  # EXIF orientation → corners as shown
    1: CODED,
    2: (GREEN, RED, YELLOW, BLUE),
    3: (YELLOW, BLUE, GREEN, RED),
    4: (BLUE, YELLOW, RED, GREEN),
    5: (RED, BLUE, GREEN, YELLOW),
    6: (BLUE, RED, YELLOW, GREEN),
    7: (YELLOW, GREEN, BLUE, RED),
    8: (GREEN, YELLOW, RED, BLUE),
}


def picture(index: int) -> Image.Image:
    """Four quarters, and a mark that moves."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for corner, colour in enumerate(CODED):
        down, right = divmod(corner, 2)
        pixels[32 * down : 32 * down + 32, 48 * right : 48 * right + 48] = colour
    pixels[28:36, 30 + 4 * index : 34 + 4 * index] = 255
    return Image.fromarray(pixels)


def exif(orientation: int) -> bytes:
    facts = Image.Exif()
    facts[0x0112], facts[0x010F] = orientation, "a maker"
    return facts.tobytes()


def write_animation(path: Path, orientation: int) -> None:
    more = [picture(index) for index in (1, 2)]
    picture(0).save(
        path, save_all=True, append_images=more, duration=200, lossless=True, exif=exif(orientation)
    )


def write_camera_video(path: Path, orientation: int) -> None:
    """Motion JPEG as cameras write it: EXIF in every frame."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuvj444p"
        for index in range(3):
            data = io.BytesIO()
            picture(index).save(data, "JPEG", quality=95, subsampling=0, exif=exif(orientation))
            packet = av.Packet(data.getvalue())
            packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, 25), True
            packet.pts = packet.dts = index
            container.mux(packet)


def corners(pixels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    high, wide, _ = pixels.shape
    seen = [pixels[y, x].astype(int) for y in (high // 8, -high // 8) for x in (wide // 8, -wide // 8)]
    return tuple(CODED[int(np.argmin([np.abs(s - c).sum() for c in CODED]))] for s in seen)


@pytest.mark.parametrize("orientation", SHOWN)
@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.avi", "a.mov"])
def test_moving_pictures_are_turned_by_exif(tmp_path: Path, name: str, orientation: int) -> None:
    path = tmp_path / name
    write = write_animation if name in ("a.webp", "a.png") else write_camera_video
    write(path, orientation)
    analysis = analyze_file(path, AnalyzeConfig())
    size = (WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH)
    assert (analysis.source["kind"], analysis.source["frames"]) == ("video", 3)
    assert (analysis.source["width"], analysis.source["height"]) == size
    assert analysis.source["rotation"] == {3: 180, 4: 180, 5: 90, 8: 90, 6: 270, 7: 270}.get(orientation, 0)
    assert corners(decode_jpeg(analysis.strips[0]["frames"][0])) == SHOWN[orientation]
    (span,) = read_span(path, [0.0], (0, 0, *size), *size, limits=AnalyzeConfig().limits())
    assert corners(span) == SHOWN[orientation]
