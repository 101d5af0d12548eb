"""Alpha lies over white in every video that carries it; what is opaque costs and changes nothing."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.media.decode import decode, decode_from, probe
from pipeline.media.frames import Damage, Frame
from pipeline.media.stills import decode_jpeg
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox

LIMIT = 100_000_000
WIDTH, HEIGHT = 128, 96
FILES = [  # codec, container, pixel format, options
    ("prores_ks", "mov", "yuva444p10le", {}),
    ("libvpx", "webm", "yuva420p", {"auto-alt-ref": "0"}),
    ("libvpx-vp9", "webm", "yuva420p", {}),
    ("qtrle", "mov", "argb", {}),
    ("png", "mov", "rgba", {}),
    ("png", "mov", "rgba64be", {}),
    ("png", "mov", "ya8", {}),
    ("ffv1", "matroska", "yuva420p", {}),
    ("ffv1", "matroska", "bgra", {}),
    ("utvideo", "avi", "gbrap", {}),
    ("apng", "apng", "rgba", {}),
]


def quarters(alpha: int = 0) -> np.ndarray:
    """uint8 RGBA [H, W, 4]: left red of this alpha, right opaque blue."""
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, : WIDTH // 2] = (255, 0, 0, alpha)
    pixels[:, WIDTH // 2 :] = (0, 0, 255, 255)
    return pixels


def write(
    path: Path,
    codec: str,
    container: str,
    layout: str,
    options: dict[str, str],
    rgba: np.ndarray,
    rotation: int = 0,
) -> Path:
    with av.open(str(path), "w", format=container) as target:
        stream = target.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, layout
        if rotation:
            stream.set_display_rotation(rotation)
        if container == "webm":
            stream.metadata["alpha_mode"] = "1"
        for index in range(3):
            picture = av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format=layout)
            picture.pts, picture.time_base = index, Fraction(1, 25)
            target.mux(stream.encode(picture))
        target.mux(stream.encode(None))
    return path


def first(path: Path) -> Frame:
    return next(decode(path, Damage(), max_pixels=LIMIT))


@pytest.mark.parametrize(("codec", "container", "layout", "options"), FILES)
def test_what_is_transparent_is_white(
    tmp_path: Path, codec: str, container: str, layout: str, options: dict[str, str]
) -> None:
    frame = first(write(tmp_path / "a", codec, container, layout, options, quarters()))
    looks = [frame.small_rgb(64, 48), frame.rgb(64, 48), frame.rgb(64, 48, (0.0, 0.25, 1.0, 0.5))]
    for pixels in looks:
        assert (pixels[:, :28] >= 252).all()
        assert (pixels[:, 36:, 0] < 40).all()
    coded, full = frame.coded_luma()
    for luma in (frame.luma(64, 48), frame.yuv(64, 48)[0], coded[::2, ::2] if full else None):
        assert luma is not None
        assert (luma[:, :28] >= 252).all()
        assert (luma[:, 36:] < 80).all()


@pytest.mark.parametrize(("codec", "container"), [("libvpx-vp9", "matroska"), ("prores_ks", "mov")])
def test_what_is_transparent_is_turned_like_any_picture(tmp_path: Path, codec: str, container: str) -> None:
    layout = {"mov": "yuva444p10le", "matroska": "yuva420p"}[container]
    path = write(tmp_path / "a", codec, container, layout, {}, quarters(), rotation=90)
    frame, info = first(path), probe(path)
    assert (info.width, info.height, info.rotation) == (HEIGHT, WIDTH, 90)
    pixels = frame.rgb(48, 64)
    assert (pixels[36:] >= 252).all()  # what was on the left
    assert (pixels[:28, :, 0] < 40).all()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_a_place_in_webm_with_alpha_is_sought_and_a_cut_start_left_out(tmp_path: Path, codec: str) -> None:
    """Their decoder marks no picture as a keyframe."""
    path, cut = tmp_path / "a.webm", tmp_path / "b.webm"
    with av.open(str(path), "w") as target:
        stream = target.add_stream(codec, rate=25, options={"auto-alt-ref": "0", "g": "25"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuva420p"
        stream.metadata["alpha_mode"] = "1"
        pictures: list[av.VideoFrame | None] = []
        for index in range(75):
            pixels = quarters()
            pixels[:, WIDTH // 2 :, 2] = 3 * index
            pictures.append(av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format="yuva420p"))
            pictures[-1].pts, pictures[-1].time_base = index, Fraction(1, 25)
        packets = [packet for picture in [*pictures, None] for packet in stream.encode(picture)]
        for packet in packets:
            target.mux(packet)
    with av.open(str(path)) as source, av.open(str(cut), "w") as without_start:
        copy = without_start.add_stream_from_template(source.streams.video[0])
        for number, packet in enumerate(source.demux(video=0)):
            if number > 3 and packet.pts is not None:
                packet.stream = copy
                without_start.mux(packet)
    frame = next(decode_from(path, 2.5, max_pixels=LIMIT))
    assert frame.time_s == pytest.approx(2.0, abs=0.01)
    assert frame.rgb(64, 48)[24, 48, 2] == pytest.approx(150, abs=8)
    assert (frame.rgb(64, 48)[:, :28] >= 252).all()
    damage = Damage()
    assert len(list(decode(cut, damage, max_pixels=LIMIT))) == 50
    assert damage.begins_inside


@pytest.mark.parametrize("codec", ["png", "ffv1"])
def test_half_transparent_colours_are_mixed_as_straight_alpha(tmp_path: Path, codec: str) -> None:
    container, layout = {"png": ("mov", "rgba"), "ffv1": ("matroska", "bgra")}[codec]
    frame = first(write(tmp_path / "a", codec, container, layout, {}, quarters(alpha=128)))
    assert np.abs(frame.small_rgb(64, 48)[5, 5].astype(int) - (255, 127, 127)).max() <= 1


def test_nothing_of_hidden_colours_comes_through_when_scaled(tmp_path: Path) -> None:
    pixels = quarters()
    pixels[:, WIDTH // 2 :] = (255, 255, 255, 255)  # white beside transparent red
    frame = first(write(tmp_path / "a", "png", "mov", "rgba", {}, pixels))
    assert (frame.small_rgb(50, 37) >= 254).all()


def test_an_opaque_alpha_channel_changes_nothing(tmp_path: Path) -> None:
    opaque = quarters(alpha=255)
    with_alpha = first(write(tmp_path / "a", "png", "mov", "rgba", {}, opaque))
    without = first(write(tmp_path / "b", "png", "mov", "rgb24", {}, opaque))
    assert (with_alpha.small_rgb(50, 37) == without.small_rgb(50, 37)).all()
    assert (with_alpha.yuv(64, 48)[0] == without.yuv(64, 48)[0]).all()


@pytest.mark.parametrize("name", ["alpha.apng", "alpha_prores4444.mov"])
def test_filmstrips_and_latents_see_white(media_dir: Path, name: str) -> None:
    case = media_dir.parent / "cases" / name
    if not case.is_file():
        pytest.skip(f"no {case}")
    with Sandbox(DEFAULT_LIMITS) as box:
        answer = box.analyze(case, AnalyzeConfig())
        strip = decode_jpeg(answer.strips[0]["frames"][0])
        span = box.read_span(case, times_s=[0.0], crop=(0, 0, 128, 96), width_px=64, height_px=48)
    for pixels in (strip[::2, ::2], span[0]):
        assert (pixels[:, :28] >= 250).all()
        red, _, blue = pixels[:, 36:].mean(axis=(0, 1))
        assert red < 20
        assert blue > 150
    assert answer.clips[0]["signals"]["luma"] > 0.5
