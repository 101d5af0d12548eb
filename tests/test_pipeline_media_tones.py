"""HDR and wide gamuts: the curve's fixed points, hues kept, and the same picture wherever it is looked at."""

import av
import numpy as np
import pytest
from media_info import INFO

from pipeline.errors import MediaError
from pipeline.media import tones
from pipeline.media.colour import Scaler
from pipeline.media.frames import Frame
from pipeline.media.orientation import AS_CODED

TOP = 65535
PQ = {"0": 0.0, "100": 0.508078, "203": 0.580689, "1000": 0.751827, "10000": 1.0}  # cd/m² → code (ST 2084)


def grey(code: float, transfer: str) -> int:
    pixel = np.full((1, 1, 3), round(code * TOP), np.uint16)
    values = tones.to_standard(pixel, transfer, tones.BT2020)[0, 0]
    assert np.ptp(values) <= 1
    assert abs(int(tones.grey_table(transfer)[round(code * TOP)]) - int(values[1])) <= 1
    return int(values[1])


def test_pq_follows_the_eetf_from_1000_to_203() -> None:
    assert grey(PQ["0"], "pq") == 0
    below_the_knee = 255 * (50 / 203) ** (1 / 2.4)
    assert grey(0.44028, "pq") == pytest.approx(below_the_knee, abs=1)  # 50 cd/m²
    # the spline of BT.2390 at 203 cd/m²: 159.0 cd/m²
    assert grey(PQ["203"], "pq") == pytest.approx(255 * (159.04 / 203) ** (1 / 2.4), abs=1)
    assert grey(PQ["1000"], "pq") == grey(PQ["10000"], "pq") == 255


def test_hlg_and_pq_of_the_same_light_are_the_same_grey() -> None:
    assert grey(0.75, "hlg") == pytest.approx(grey(PQ["203"], "pq"), abs=1)  # BT.2408's reference white
    assert (grey(0.0, "hlg"), grey(1.0, "hlg")) == (0, 255)


@pytest.mark.parametrize("transfer", ["pq", "hlg", "sdr"])
def test_brighter_is_never_darker(transfer: str) -> None:
    assert (np.diff(tones.grey_table(transfer).astype(int)) >= 0).all()


def test_standard_range_of_bt709_stays_what_it_is() -> None:
    codes = np.arange(256, dtype=np.uint16)[:, None, None].repeat(3, axis=2) * 257
    assert (tones.to_standard(codes, "sdr", tones.BT709)[..., 0].ravel() == np.arange(256)).all()


def hdr(rgb709_nits: np.ndarray, transfer: int, *, ictcp: bool = False) -> av.VideoFrame:
    """A 10-bit BT.2020 picture (48 x 96) of one colour, light in cd/m² of BT.709: PQ only."""
    light = np.linalg.inv(tones._to_bt709(tones.BT2020)) @ rgb709_nits
    if ictcp:
        ycc = tones.ICTCP["pq"] @ tones._pq_code(tones.LMS @ light)
    else:
        red, green, blue = tones._pq_code(light)
        luma = 0.2627 * red + 0.678 * green + 0.0593 * blue
        ycc = np.array([luma, (blue - luma) / 1.8814, (red - luma) / 1.4746])
    codes = np.rint(ycc * (876, 896, 896) + (64, 512, 512)).astype(np.uint16)
    picture = av.VideoFrame(96, 48, "yuv420p10le")
    for plane, code in zip(picture.planes, codes, strict=True):
        plane.update(np.full(plane.buffer_size // 2, code, np.uint16).tobytes())
    picture.colorspace, picture.color_range = 14 if ictcp else 9, 1
    picture.color_trc, picture.color_primaries = transfer, 9
    return picture


@pytest.mark.parametrize("ictcp", [False, True])
@pytest.mark.parametrize("colour", [(60, 5, 5), (5, 60, 5), (5, 5, 60), (60, 50, 8), (40, 40, 40)])
def test_dim_colours_come_out_exactly(colour: tuple[int, int, int], ictcp: bool) -> None:
    light = np.array(colour, float)  # below the knee nothing is compressed
    expected = 255 * (light / tones.WHITE_NITS) ** (1 / 2.4)
    frame = Frame(0, 0.0, AS_CODED, hdr(light, 16, ictcp=ictcp), Scaler(), INFO)
    for pixels in (frame.small_rgb(48, 24), frame.rgb(48, 24), frame.rgb(48, 24, (0.0, 0.0, 0.5, 0.5))):
        assert np.abs(pixels[12, 24] - expected).max() <= 4


def test_measuring_sees_the_picture_that_is_shown() -> None:
    frame = Frame(0, 0.0, AS_CODED, hdr(np.array([203.0] * 3), 16), Scaler(), INFO)
    coded, full = frame.coded_luma()
    assert full
    assert coded.shape == (48, 96)
    shown = int(frame.small_rgb(48, 24)[12, 24, 1])
    assert shown == pytest.approx(230, abs=1)
    for luma in (coded, frame.luma(48, 24), frame.yuv(48, 24)[0]):
        assert abs(int(luma[12, 24]) - shown) <= 2


def test_p3_of_standard_range_is_brought_to_bt709() -> None:
    picture = av.VideoFrame.from_ndarray(np.full((48, 96, 3), (200, 80, 80), np.uint8), format="rgb24")
    plain = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO).small_rgb(48, 24)[5, 5].astype(int)
    picture.color_primaries = 12
    wide = Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO).small_rgb(48, 24)[5, 5].astype(int)
    assert plain.tolist() == [200, 80, 80]
    light = tones._to_bt709(12) @ (plain / 255) ** 2.4
    assert np.abs(wide - 255 * light ** (1 / 2.4)).max() <= 1
    assert wide[0] > 210  # the same red is further out in BT.709


def test_ictcp_needs_its_transfer() -> None:
    picture = hdr(np.array([40.0] * 3), 1, ictcp=True)
    with pytest.raises(MediaError, match="ictcp without PQ or HLG"):
        Frame(0, 0.0, AS_CODED, picture, Scaler(), INFO).small_rgb(48, 24)
