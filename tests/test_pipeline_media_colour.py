"""Colours come out as they went in, whatever matrix, range and transfer a stream states, or none."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_info import INFO

from pipeline.errors import MediaError
from pipeline.media import tones
from pipeline.media.colour import Scaler, usual_matrix
from pipeline.media.decode import decode, probe
from pipeline.media.encode import write_video
from pipeline.media.frames import Damage, Frame
from pipeline.media.orientation import AS_CODED

LIMIT = 100_000_000
COLOURS = np.array(
    [[200, 40, 30], [40, 180, 60], [30, 60, 210], [200, 190, 40], [120, 120, 120], [250, 250, 250]]
)
WEIGHTS = {  # H.273 matrix → Kr, Kb
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    5: (0.299, 0.114),
    6: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
}
TOLERANCE = 3  # of 255: rounding to 8 bits, chroma to 1/224
LAYOUTS = {8: "yuv444p", 10: "yuv444p10le"}


def stripes(width_px: int = 96, height_px: int = 48) -> np.ndarray:
    """float [H, W, 3]: the colours side by side."""
    row = np.repeat(COLOURS, width_px // len(COLOURS), axis=0)
    row = np.pad(row, ((0, width_px - len(row)), (0, 0)), mode="edge")
    return np.broadcast_to(row, (height_px, width_px, 3)).astype(float)


def mixed(rgb: np.ndarray, matrix: int) -> np.ndarray:
    """Luma and chroma, float [H, W, 3], of R'G'B' from 0 to 1: H.273's equations, written out again."""
    red, green, blue = np.moveaxis(rgb, -1, 0)
    if matrix == 8:
        luma, half = green / 2 + (red + blue) / 4, (red - blue) / 2
        return np.stack([luma, green / 2 - (red + blue) / 4, half], axis=-1)
    kr, kb = WEIGHTS[matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    return np.stack([luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))], axis=-1)


def coded(ycc: np.ndarray, bits: int, *, full: bool) -> av.VideoFrame:
    """A picture of these numbers, untagged."""
    top = (1 << bits) - 1
    scale, step = (top, top) if full else (219 << bits - 8, 224 << bits - 8)
    planes = np.stack([ycc[..., 0] * scale, ycc[..., 1] * step, ycc[..., 2] * step])
    planes += np.array([0 if full else 16 << bits - 8, 1 << bits - 1, 1 << bits - 1])[:, None, None]
    numbers = np.rint(np.clip(planes, 0, top)).astype(np.uint8 if bits == 8 else np.uint16)
    picture = av.VideoFrame(ycc.shape[1], ycc.shape[0], LAYOUTS[bits])
    for plane, values in zip(picture.planes, numbers, strict=True):
        row = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        row[:, : plane.width] = values
        plane.update(row.tobytes())
    picture.color_range = 2 if full else 1
    return picture


def shown(picture: av.VideoFrame) -> np.ndarray:
    """int [colours, 3] of the middle of each stripe, alike in filmstrips, latents, and a part of one."""
    frame = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO)
    width, height = picture.width, picture.height
    at = np.arange(len(COLOURS)) * (width // len(COLOURS)) + width // len(COLOURS) // 2
    small = frame.small_rgb(width, height)[height // 2, at].astype(int)
    assert np.abs(frame.rgb(width, height)[height // 2, at].astype(int) - small).max() <= 2
    part = frame.rgb(width, height // 2, (0.0, 0.0, 1.0, 0.5))[height // 4, at].astype(int)
    assert np.abs(part - small).max() <= 2
    return small


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [*WEIGHTS, 8])
def test_a_stated_matrix_is_the_one_that_counts(matrix: int, full: bool, bits: int) -> None:
    picture = coded(mixed(stripes() / 255, matrix), bits, full=full)
    picture.colorspace = matrix
    assert np.abs(shown(picture) - COLOURS).max() <= TOLERANCE


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    ("size", "matrix"),
    [((96, 48), 5), ((1272, 600), 5), ((1280, 534), 1), ((1280, 720), 1), ((720, 1280), 1), ((960, 720), 1)],
)
@pytest.mark.parametrize("tag", [2, 3, 0])  # none, a reserved one, RGB on what is none
def test_a_matrix_that_is_not_stated_follows_from_the_size(
    tag: int, size: tuple[int, int], matrix: int, full: bool
) -> None:
    picture = coded(mixed(stripes(*size) / 255, matrix), 8, full=full)
    picture.colorspace = tag
    assert usual_matrix(*size) == matrix
    assert np.abs(shown(picture) - COLOURS).max() <= TOLERANCE


@pytest.mark.parametrize(("primaries", "matrix"), [(1, 1), (9, 9), (2, 5), (5, None)])
def test_a_matrix_derived_from_primaries(primaries: int, matrix: int | None) -> None:
    if matrix is None:  # EBU's, computed from their chromaticities
        kr, kb = tones.luma_weights(primaries)
        assert (kr, kb) == pytest.approx((0.222, 0.071), abs=1e-3)
        matrix = 99
        WEIGHTS[matrix] = kr, kb
    picture = coded(mixed(stripes() / 255, matrix), 8, full=False)
    picture.colorspace, picture.color_primaries = 12, primaries
    expected = COLOURS
    if primaries == 9:  # and BT.2020 is brought to BT.709
        light = (COLOURS / 255) ** 2.4 @ tones._to_bt709(9).T
        expected = 255 * np.clip(light, 0, 1) ** (1 / 2.4)
    assert np.abs(shown(picture) - expected).max() <= TOLERANCE + 1


@pytest.mark.parametrize(
    ("matrix", "name"),
    [(10, "bt2020c"), (11, "smpte2085"), (13, "chroma-derived-c"), (14, "ictcp"), (15, "ipt-c2"),
     (16, "ycgco-re"), (17, "ycgco-ro"), (99, "99")],
)  # fmt: skip
def test_a_matrix_that_cannot_be_converted_is_named(matrix: int, name: str) -> None:
    picture = coded(mixed(stripes() / 255, 1), 8, full=False)
    picture.colorspace = matrix
    frame = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO)
    for look in (frame.small_rgb, frame.yuv, frame.luma):
        with pytest.raises(MediaError, match=name):
            look(48, 24)


def test_rgb_with_any_tag_is_rgb() -> None:
    for tag in range(18):
        picture = av.VideoFrame.from_ndarray(stripes().astype(np.uint8), format="rgb24")
        picture.colorspace = tag
        assert (shown(picture) == COLOURS).all()
        luma, _, _ = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO).yuv(96, 48)
        assert luma[24, 90] == 250


def test_measured_luma_does_not_depend_on_a_convention() -> None:
    lumas = []
    for tag in (2, 3, 5):
        picture = coded(mixed(stripes() / 255, 5), 8, full=False)
        picture.colorspace = tag
        frame = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO)
        lumas.append((frame.luma(48, 24), frame.yuv(48, 24)[0], frame.coded_luma()[0].copy()))
    for other in lumas[1:]:
        assert all((one == two).all() for one, two in zip(lumas[0], other, strict=True))


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_of_a_limited_range_is_stretched(bits: int) -> None:
    layout, kind = ("gray", np.uint8) if bits == 8 else ("gray16le", np.uint16)
    picture = av.VideoFrame.from_ndarray(np.full((48, 96), 235 << bits - 8, kind), format=layout)
    for limits, expected in ((1, 255), (2, 235), (0, 235)):
        picture.color_range = limits
        frame = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO)
        luma, full = frame.coded_luma()
        assert abs(int(frame.small_rgb(48, 24)[5, 5, 0]) - expected) <= 1
        assert abs(int(frame.luma(48, 24)[5, 5]) - expected) <= 1
        assert abs(int(luma[5, 5]) - (expected if full else 235)) <= 1


@pytest.mark.parametrize("size", [(96, 64), (1280, 534)])
def test_a_written_video_keeps_its_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    pixels = stripes(*size).astype(np.uint8)
    write_video(tmp_path / "a.mp4", [pixels] * 2, Fraction(25), crf=4)
    frame = next(decode(tmp_path / "a.mp4", Damage(), max_pixels=LIMIT))
    assert np.abs(shown(frame.picture) - COLOURS).max() <= TOLERANCE + 2
    assert probe(tmp_path / "a.mp4").transfer == "sdr"
    assert frame.picture.colorspace == (1 if size[0] >= 1280 else 2)


def test_dolby_vision_without_a_base_layer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as target:
        stream = target.add_stream("libx265", rate=25, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 120, np.uint8), format="rgb24")
        for number in range(8):  # of one or two pictures x265 gives times that the muxer sometimes refuses
            picture.pts = number
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    assert b"hev1" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"hev1", b"dvh1"))
    with pytest.raises(MediaError, match="Dolby Vision"):
        next(decode(path, Damage(), max_pixels=LIMIT))
