"""Display matrices: a picture is shown as a person sees it, known by the colours of its corners."""

import struct
from itertools import product
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from pipeline.config import AnalyzeConfig
from pipeline.media.decode import decode, probe
from pipeline.media.frames import Damage
from pipeline.media.orientation import AS_CODED, Orientation, of_matrix
from pipeline.media.spans import read_span
from pipeline.media.stills import decode_jpeg
from pipeline.onepass.rows import analyze_file

ONE = 1 << 16  # of the matrix's fixed point
WIDTH, HEIGHT = 96, 64
RED, GREEN, BLUE, YELLOW = (200, 40, 40), (40, 180, 40), (40, 40, 200), (210, 210, 40)
CODED = (RED, GREEN, BLUE, YELLOW)  # top left, top right, bottom left, bottom right
# (a, b, c, d) of a matrix → the corners as shown
SHOWN = {
    (1, 0, 0, 1): CODED,
    (-1, 0, 0, 1): (GREEN, RED, YELLOW, BLUE),  # mirrored
    (1, 0, 0, -1): (BLUE, YELLOW, RED, GREEN),  # flipped
    (-1, 0, 0, -1): (YELLOW, BLUE, GREEN, RED),
    (0, 1, -1, 0): (BLUE, RED, YELLOW, GREEN),  # a quarter clockwise
    (0, -1, 1, 0): (GREEN, YELLOW, RED, BLUE),
    (0, 1, 1, 0): (RED, BLUE, GREEN, YELLOW),  # transposed
    (0, -1, -1, 0): (YELLOW, GREEN, BLUE, RED),  # transverse
}
LIMITS = AnalyzeConfig().limits()


def matrix_bytes(a: float, b: float, c: float, d: float) -> bytes:
    fixed = [round(v * ONE) for v in (a, b, c, d)]
    return struct.pack("@9i", fixed[0], fixed[1], 0, fixed[2], fixed[3], 0, 0, 0, 1 << 30)


def coded_picture() -> np.ndarray:
    """uint8 RGB [H, W, 3]: four quarters."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    middle, centre = HEIGHT // 2, WIDTH // 2
    for corner, colour in enumerate(CODED):
        down, right = divmod(corner, 2)
        pixels[middle * down : middle * (down + 1), centre * right : centre * (right + 1)] = colour
    return pixels


def corners(pixels: np.ndarray) -> tuple[str, ...]:
    """The names of what is nearest to the pixels of the corners."""
    high, wide, _ = pixels.shape
    found = [pixels[y, x].astype(int) for y in (high // 8, -high // 8) for x in (wide // 8, -wide // 8)]
    return tuple(CODED[int(np.argmin([np.abs(f - c).sum() for c in CODED]))] for f in found)


def write_with_matrix(path: Path, matrix: bytes, sei: str = "", seconds: int = 1) -> Path:
    """A video of still corners; the matrix stands in the track header, or with `sei` in the pictures."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if not sei:
            stream.set_display_matrix(list(struct.unpack("@9i", matrix)))
        marked = (
            BitStreamFilterContext(f"h264_metadata=display_orientation=insert:{sei}", stream) if sei else None
        )
        for index in range(25 * seconds):
            frame = av.VideoFrame.from_ndarray(coded_picture(), format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            for packet in stream.encode(frame):
                container.mux(marked.filter(packet) if marked else packet)
        for packet in stream.encode(None):
            container.mux(marked.filter(packet) if marked else packet)
    return path


@pytest.mark.parametrize("turn", SHOWN, ids=str)
def test_each_matrix_of_a_track_shows_its_corners(tmp_path: Path, turn: tuple[int, ...]) -> None:
    path = write_with_matrix(tmp_path / "a.mp4", matrix_bytes(*turn))
    size = (HEIGHT, WIDTH) if turn[0] == 0 else (WIDTH, HEIGHT)
    info = probe(path)
    assert (info.width, info.height) == size
    analysis = analyze_file(path, AnalyzeConfig())
    assert (analysis.source["width"], analysis.source["height"]) == size
    assert corners(decode_jpeg(analysis.strips[0]["frames"][0])) == SHOWN[turn]
    latent_pixels = read_span(path, [0.0], (0, 0, *size), *size, limits=LIMITS)[0]
    assert corners(latent_pixels) == SHOWN[turn]
    half = read_span(path, [0.0], (0, 0, size[0] // 2, size[1]), size[0] // 2, size[1], limits=LIMITS)[0]
    assert corners(half)[::2] == SHOWN[turn][::2]
    frame = next(decode(path, Damage(), max_pixels=WIDTH * HEIGHT))
    assert corners(frame.rgb(*size)) == corners(frame.small_rgb(*size)) == SHOWN[turn]
    luma, whole = frame.luma(*size), np.asarray(frame.yuv(*size)[0])
    assert np.abs(luma.astype(int) - whole).mean() < 3
    assert luma.shape == (size[1], size[0])


def test_pictures_that_carry_their_orientation_are_shown_by_it(tmp_path: Path) -> None:
    mirrored = probe(write_with_matrix(tmp_path / "m.ts", b"", "flip=horizontal"))
    assert (mirrored.width, mirrored.height, mirrored.rotation) == (WIDTH, HEIGHT, 0)
    for name, sei in (("m", "flip=horizontal"), ("f", "flip=vertical"), ("r", "rotate=90")):
        path = write_with_matrix(tmp_path / f"{name}.ts", b"", sei)
        frames = list(decode(path, Damage(), max_pixels=WIDTH * HEIGHT))
        by_name = {
            "m": (GREEN, RED, YELLOW, BLUE),
            "f": (BLUE, YELLOW, RED, GREEN),
            "r": SHOWN[0, -1, 1, 0],  # counter-clockwise (H.264, D.2.26)
        }
        size = frames[0].orientation.size(WIDTH, HEIGHT)
        assert {corners(frame.rgb(*size)) for frame in frames} == {by_name[name]}, sei


@pytest.mark.parametrize("turn", SHOWN, ids=str)
def test_the_algebra_is_that_of_the_matrix(turn: tuple[int, ...]) -> None:
    """Each pixel is shown where the matrix sends it; profiles are those of the picture as shown."""
    a, b, c, d = turn
    picture = np.arange(6).reshape(2, 3)  # [H, W]
    orientation = of_matrix(matrix_bytes(*turn))
    upright = orientation.upright(picture)
    assert orientation.size(3, 2) == upright.shape[::-1]
    at = {(x, y): (a * x + c * y, b * x + d * y) for y, x in product(range(2), range(3))}
    left, top = (min(place[axis] for place in at.values()) for axis in (0, 1))
    for (x, y), (right, down) in at.items():
        assert upright[down - top, right - left] == picture[y, x]
    rows, columns = orientation.profile(picture.max(axis=1), picture.max(axis=0))
    assert np.array_equal(rows, upright.max(axis=1))
    assert np.array_equal(columns, upright.max(axis=0))
    assert orientation.degrees == 90 * orientation.quarters


def test_matrices_that_show_nothing_or_other_angles(tmp_path: Path) -> None:
    for flat in ((0, 0, 0, 0), (1, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0)):
        assert of_matrix(matrix_bytes(*flat)) == AS_CODED
    assert of_matrix(b"") == AS_CODED
    for degrees, quarters in ((30, 0), (60, 1), (-30, 0), (170, 2), (-100, 3)):
        turn = np.deg2rad(degrees)
        cos, sin = np.cos(turn), np.sin(turn)
        assert of_matrix(matrix_bytes(cos, -sin, sin, cos)) == Orientation(quarters=quarters)
        assert of_matrix(matrix_bytes(-cos, sin, sin, cos)) == Orientation(quarters=quarters, mirrored=True)
    assert of_matrix(matrix_bytes(-2, 0, 0, 0.5)) == Orientation(mirrored=True)  # scale is another's matter
    path = write_with_matrix(tmp_path / "zero.mp4", matrix_bytes(0, 0, 0, 0))
    assert (probe(path).width, probe(path).height, probe(path).rotation) == (WIDTH, HEIGHT, 0)
    with pytest.raises(ValueError, match="quarters"):
        Orientation(quarters=4)


def test_an_upright_picture_is_not_copied() -> None:
    pixels = np.zeros((4, 6), np.uint8)
    assert AS_CODED.upright(pixels) is pixels
    assert Orientation(quarters=1, mirrored=True).upright(pixels).base is pixels
