"""Clocks that jump, streams that begin inside a group of pictures, interlaced pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.errors import MediaError
from pipeline.media.clock import Clock
from pipeline.media.decode import decode, decode_from
from pipeline.media.frames import Damage
from pipeline.media.spans import read_span
from pipeline.media.stills import decode_jpeg
from pipeline.onepass.pieces import count_pieces
from pipeline.onepass.rows import analyze_file

WIDTH, HEIGHT, FPS, HALF = 96, 64, 25, 50
WRAP_S = 2**33 / 90_000  # of the clock of MPEG systems
CONFIG = AnalyzeConfig()


def pictures(count: int, scene: int = 0) -> Iterator[np.ndarray]:
    """uint8 RGB [H, W, 3] with a square that wanders; its grey tells the frame, the ground the scene."""
    for index in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), ((30, 60, 150), (190, 120, 40))[scene], np.uint8)
        pixels[HEIGHT // 2 :, :, scene] //= 2
        pixels[8:40, index % 64 : index % 64 + 32] = 20 + 3 * index
        yield pixels


def write(
    path: Path,
    scenes: Sequence[int],
    starts_s: Sequence[float],
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """Two seconds of each scene with a keyframe at its start, its packets' clock from `starts_s` on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = 0
        stream.options = options or {}
        frames: list[av.VideoFrame | None] = []
        for scene in scenes:
            for pixels in pictures(HALF, scene):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
                frame.pts = len(frames)
                frame.pict_type = 1 if frame.pts % HALF == 0 else 0
                frames.append(frame)
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                tick_s = float(packet.time_base)
                part = int(packet.pts * tick_s / 2 + 1e-6)
                ticks = round((starts_s[part] - 2 * part) / tick_s)
                packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
                container.mux_one(packet)
    return path


def without_first(whole: Path, path: Path, count: int) -> Path:
    """The packets of a file but for the first `count`."""
    with av.open(str(whole)) as source, av.open(str(path), "w") as target:
        copy = target.add_stream_from_template(source.streams.video[0])
        for packet in [p for p in source.demux(video=0) if p.size][count:]:
            packet.stream = copy
            target.mux(packet)
    return path


def times(path: Path) -> list[float]:
    return [frame.time_s for frame in decode(path, Damage(), max_pixels=WIDTH * HEIGHT)]


def spans(analysis: SourceAnalysis) -> list[float]:
    return [value for clip in analysis.clips for value in (clip["start_s"], clip["end_s"])]


def two_clips(path: Path) -> None:
    """Two scenes of two seconds each, one after the other."""
    analysis = analyze_file(path, CONFIG)
    assert (analysis.source["status"], analysis.source["reason"]) == ("ok", None)
    assert analysis.source["duration_s"] == pytest.approx(4, abs=0.05)
    assert analysis.source["fps"] == pytest.approx(FPS)
    assert spans(analysis) == pytest.approx([0, 2, 2, 4], abs=0.05)


@pytest.mark.parametrize(
    ("name", "starts_s"),
    [
        ("a.ts", (0, 36_002)),
        ("a.ts", (0, 32)),
        ("a.ts", (WRAP_S - 3, WRAP_S - 1)),  # wraps inside the second scene
        ("a.ts", (WRAP_S - 2, WRAP_S)),
        ("a.mpg", (0, 3602)),
        ("a.mkv", (0, 36_002)),
    ],
)
def test_a_clock_that_jumps_is_no_time_on_screen(tmp_path: Path, name: str, starts_s: tuple[int]) -> None:
    two_clips(write(tmp_path / name, (0, 1), starts_s))


@pytest.mark.parametrize("starts_s", [(4000, 10), (10, 9), (10, 10), (100, 4000)])
def test_streams_put_end_to_end_play_one_after_the_other(tmp_path: Path, starts_s: tuple[int]) -> None:
    """The second's clock is behind, the same, ahead."""
    parts = [write(tmp_path / f"{scene}.ts", [scene], [starts_s[scene]]) for scene in (0, 1)]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    two_clips(path)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_picture_held_long_stays_held(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, (0, 1), (0, 62))
    analysis = analyze_file(path, CONFIG)
    assert analysis.source["duration_s"] == pytest.approx(64, abs=0.05)
    assert times(path)[HALF] == pytest.approx(62, abs=0.01)
    sought = [f.time_s for f in decode_from(path, 61, max_pixels=WIDTH * HEIGHT)]
    assert sought == times(path)[-len(sought) :]


def test_where_clocks_may_jump_nothing_is_sought(tmp_path: Path) -> None:
    """And a span is read by decoding from the start, at the times that the analysis gave."""
    path = write(tmp_path / "a.ts", (0, 1, 0, 1), (0, 7200, 7202, 9000))
    with pytest.raises(MediaError, match="clock"):
        next(decode_from(path, 5, max_pixels=WIDTH * HEIGHT))
    assert count_pieces(path, AnalyzeConfig(segment_s=1)) == 1
    analysis = analyze_file(path, CONFIG)
    assert spans(analysis) == pytest.approx([0, 2, 2, 4, 4, 6, 6, 8], abs=0.05)
    size = WIDTH, HEIGHT
    part = read_span(
        path,
        [6.5],
        (0, 0, *size),
        *size,
        limits=CONFIG.limits(),
        expected_phash=analysis.clips[3]["phash"][0],
    )
    assert np.abs(part[0].astype(int) - list(pictures(13, 1))[12]).mean() < 12


def test_a_clock_keeps_what_rises_and_what_is_held() -> None:
    steps = np.random.default_rng(0).uniform(0.001, 1.9, 50).cumsum()
    clock = Clock(step_s=0.04, may_jump=True)
    assert [clock.time_s(3 + s) for s in [0, *steps]] == pytest.approx([0, *steps])
    slides = Clock(step_s=0.2, may_jump=True)  # one picture in five seconds
    assert [slides.time_s(own_s) for own_s in (0, 1.9, 6.9, 11.9, 1000, 1005)] == pytest.approx(
        [0, 1.9, 6.9, 11.9, 16.9, 21.9]
    )
    standing = Clock(step_s=0.04, may_jump=False)
    assert [standing.time_s(own_s) for own_s in (1, 1, None, 1.12)] == pytest.approx([0, 0.04, 0.08, 0.12])


CODECS = {
    "h264.ts": ("libx264", {}),
    "h264.mp4": ("libx264", {}),
    "hevc.ts": ("libx265", {"x265-params": "log-level=none:keyint=12:min-keyint=12:scenecut=0"}),
    "mpeg2.ts": ("mpeg2video", {}),
    "mpeg1.mpg": ("mpeg1video", {}),
    "mpeg4.mp4": ("mpeg4", {}),
    "mpeg4.avi": ("mpeg4", {}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
}


@pytest.mark.parametrize("name", CODECS)
def test_a_stream_cut_anywhere_begins_at_its_first_whole_picture(tmp_path: Path, name: str) -> None:
    codec, options = CODECS[name]
    whole = write(tmp_path / f"whole_{name}", [0], [0], codec, options)
    cut = without_first(whole, tmp_path / name, 7)
    size = WIDTH, HEIGHT
    kept, full = (
        [frame.rgb(*size) for frame in decode(path, Damage(), max_pixels=WIDTH * HEIGHT)]
        for path in (cut, whole)
    )
    assert 30 <= len(kept) < len(full) - 4
    assert np.array_equal(np.stack(kept), np.stack(full[-len(kept) :]))
    source = analyze_file(cut, CONFIG).source
    assert source["status"] == "salvaged"
    assert source["reason"].startswith("begins inside a group of pictures")
    assert "ends after" not in source["reason"]
    assert source["frames"] == len(kept)
    assert times(cut)[0] == 0
    assert analyze_file(whole, CONFIG).source["status"] == "ok"


def woven(count: int) -> Iterator[np.ndarray]:
    """Two fields of a bright bar that moves eight pixels from one to the other; uint8 RGB [H, W, 3]."""
    for index in range(count):
        pixels = np.full((HEIGHT, WIDTH, 3), 40, np.uint8)
        for field in (0, 1):
            left = (16 * index + 8 * field) % 64
            pixels[field::2, left : left + 16] = 220
        yield pixels


def write_interlaced(path: Path, codec: str, options: dict[str, str]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.options = options
        for index, pixels in enumerate(woven(25)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.mpg", "mpeg2video", {"flags": "+ildct+ilme"}),
        ("a.mp4", "libx264", {"x264-params": "tff=1", "crf": "10"}),
    ],
)
def test_interlaced_pictures_are_shown_by_one_field(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    path = write_interlaced(tmp_path / name, codec, options)
    size = WIDTH, HEIGHT
    frames = list(decode(path, Damage(), max_pixels=WIDTH * HEIGHT))
    for frame, pixels in zip(frames[1:], list(woven(25))[1:], strict=True):
        upper = np.repeat(pixels[::2], 2, axis=0).astype(int)
        for drawn in (frame.rgb(*size), frame.small_rgb(*size), frame.rgb(*size, (0, 0, 1, 0.999))):
            assert np.abs(drawn - upper).mean() < 8
            assert np.abs(drawn[::2].astype(int) - drawn[1::2]).mean() < 4  # no combs
    analysis = analyze_file(path, CONFIG)
    assert (analysis.source["frames"], analysis.source["height"]) == (25, HEIGHT)
    assert analysis.clips[0]["crop"] == [0, 0, *size]
    assert analysis.clips[0]["signals"]["interlacing"] > 0.05  # measured as coded
    strip = decode_jpeg(analysis.strips[0]["frames"][1])
    assert np.abs(strip[::2].astype(int) - strip[1::2]).mean() < 6
