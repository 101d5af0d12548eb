"""Pictures of every kind end as upright RGB, as a video, or with a reason."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.errors import MediaError
from pipeline.media import stills
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox

ANALYZE = AnalyzeConfig()
LIMIT = 100_000_000


@pytest.fixture(scope="module")
def box():
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=60.0)) as sandbox:
        yield sandbox


def scene(t: int = 0) -> np.ndarray:
    """uint8 [48, 64, 3]: red above, blue below, brighter to the right, with a white square at t."""
    frame = np.zeros((48, 64, 3), np.uint8)
    frame[:24, :, 0] = frame[24:, :, 2] = np.linspace(80, 250, 64)
    frame[16:32, t : t + 16] = 255
    return frame


def image(t: int = 0) -> Image.Image:
    return Image.fromarray(scene(t))


def header_only_png(path: Path, side: int) -> None:
    """A PNG that claims side x side pixels and has none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\x00\x00\x00\x0aIDAT"
    )


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "gif", "bmp", "tiff"])
def test_every_format_is_known_by_its_content(tmp_path: Path, suffix: str) -> None:
    image().save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "a.bin")
    assert stills.is_still(tmp_path / "a.bin")
    pixels, codec, rotation = stills.read_still(tmp_path / "a.bin", LIMIT)
    assert np.abs(pixels.astype(int) - scene()).mean() < 12  # a palette has few colours
    assert codec == {"jpg": "jpeg"}.get(suffix, suffix)
    assert rotation == 0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_made_upright(tmp_path: Path, orientation: int) -> None:
    backwards = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    stored = image() if orientation == 1 else image().transpose(stills.TURNS[backwards][0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert (stills.read_still(tmp_path / "a.png", LIMIT)[0] == scene()).all()


def test_a_damaged_orientation_is_none(tmp_path: Path) -> None:
    image().save(tmp_path / "a.jpg", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff", quality=95)
    assert stills.read_still(tmp_path / "a.jpg", LIMIT)[0].shape == (48, 64, 3)


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    clear = np.dstack([scene(), np.full((48, 64), 0, np.uint8)])
    clear[:, :32, 3] = 255
    Image.fromarray(clear).save(tmp_path / "a.png")
    pixels, _, _ = stills.read_still(tmp_path / "a.png", LIMIT)
    assert (pixels[:, 32:] == 255).all()
    assert (pixels[:, :32] == scene()[:, :32]).all()


def test_sixteen_bits_are_cut_to_eight(tmp_path: Path) -> None:
    grey = scene()[..., 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert (stills.read_still(tmp_path / "a.png", LIMIT)[0][..., 0] == scene()[..., 0]).all()


def test_cmyk_is_converted(tmp_path: Path) -> None:
    image().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert np.abs(stills.read_still(tmp_path / "a.jpg", LIMIT)[0].astype(int) - scene()).mean() < 6


def test_floating_point_pictures_have_a_reason(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(MediaError, match="floating-point"):
        stills.read_still(tmp_path / "a.tiff", LIMIT)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "avif", "bmp", "tiff"])
def test_truncated_pictures_are_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / f"a.{suffix}")
    whole = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(MediaError, match="picture"):
        stills.read_still(tmp_path / "cut", LIMIT)


def test_bombs_are_refused_from_the_header(box, tmp_path: Path) -> None:
    header_only_png(tmp_path / "bomb.png", 50_000)
    with pytest.raises(MediaError, match="too many pixels: 50000x50000"):
        box.analyze(tmp_path / "bomb.png", ANALYZE)
    image().save(tmp_path / "small.png")
    with pytest.raises(MediaError, match="too many pixels: 64x48"):
        stills.read_still(tmp_path / "small.png", max_pixels=3000)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif"])
def test_what_moves_is_a_video(box, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    more = [image(4 * t) for t in range(1, 10)]
    image().save(path, save_all=True, append_images=more, duration=100, loop=0)
    found = box.analyze(path, ANALYZE)
    assert found.source["kind"] == "video"
    assert (found.source["frames"], found.source["width"], found.source["height"]) == (10, 64, 48)
    assert found.source["fps"] == pytest.approx(10, rel=0.02)
    assert found.source["duration_s"] == pytest.approx(1.0, abs=0.02)
    span = box.read_span(path, times_s=[0.0, 0.5], crop=(0, 0, 64, 48), width_px=64, height_px=48)
    assert np.abs(span[1].astype(int) - scene(20)).mean() < 15


def test_an_animation_cut_short_has_a_reason(box, tmp_path: Path) -> None:
    first, *more = [image(4 * t) for t in range(8)]
    first.save(tmp_path / "a.webp", save_all=True, append_images=more, duration=100)
    whole = (tmp_path / "a.webp").read_bytes()
    (tmp_path / "a.webp").write_bytes(whole[: len(whole) * 6 // 10])
    with pytest.raises(MediaError, match="picture"):
        box.analyze(tmp_path / "a.webp", ANALYZE)


def test_a_frame_with_no_duration_is_shown_for_a_while(tmp_path: Path) -> None:
    image().save(tmp_path / "a.webp", save_all=True, append_images=[image(20)], duration=0)
    assert [t for t, _ in stills.frames(tmp_path / "a.webp", LIMIT)] == [0.0, stills.USUAL_DURATION_S]


def test_pictures_of_the_media_set(box, media_dir: Path) -> None:
    bad = json.loads((media_dir / "truth" / "bad.json").read_text())
    sizes = {
        "clips/cat.jpg": (640, 480),
        "clips/cmyk.jpg": (1280, 720),
        "clips/made_photo.webp": (480, 640),
        "clips/made_photo_exif6.jpg": (480, 640),
        "clips/rgba.png": (1280, 720),
        "bad/png_named.jpg": (1280, 720),
    }
    for file, (width, height) in sizes.items():
        source = box.analyze(media_dir / file, ANALYZE).source
        assert (source["kind"], source["width"], source["height"]) == ("image", width, height), file
    for file, reason in (("bad/truncated.jpg", "truncated"), ("bad/bomb_20000.png", "too many pixels")):
        assert bad[file]["expect"] == "reject"
        with pytest.raises(MediaError, match=reason):
            box.analyze(media_dir / file, ANALYZE)
    assert box.analyze(media_dir / "clips/newtonscradle.gif", ANALYZE).source["kind"] == "video"


def planar_tiff(path: Path, dtype: str) -> None:
    """RGB of a left and a right half, written as three planes, without compression."""
    pixels = np.zeros((3, 8, 16), dtype)
    pixels[0, :, :8] = pixels[2, :, 8:] = np.iinfo(pixels.dtype).max
    bits, data = pixels.itemsize * 8, pixels.tobytes()
    fields = [
        (256, 16),
        (257, 8),
        (258, 0),
        (259, 1),
        (262, 2),
        (273, 0),
        (277, 3),
        (278, 8),
        (279, 0),
        (284, 2),
    ]
    shared = 8 + 2 + 12 * len(fields) + 4
    triples = {
        258: (bits,) * 3,
        273: tuple(shared + 36 + n * len(data) // 3 for n in range(3)),
        279: (len(data) // 3,) * 3,
    }
    at = {tag: shared + 12 * n for n, tag in enumerate(triples)}
    entries = b"".join(
        struct.pack("<HHII", tag, 4, 3, at[tag]) if tag in at else struct.pack("<HHII", tag, 4, 1, value)
        for tag, value in fields
    )
    values = b"".join(struct.pack("<3I", *triple) for triple in triples.values())
    head = struct.pack("<4sIH", b"II*\x00", 8, len(fields))
    path.write_bytes(head + entries + bytes(4) + values + data)


def test_planes_of_16_bits_are_refused_and_not_shown_wrong(tmp_path: Path) -> None:
    planar_tiff(tmp_path / "a.tif", "<u1")
    pixels = stills.read_still(tmp_path / "a.tif", LIMIT)[0]
    assert (pixels[:, :8] == (255, 0, 0)).all()
    assert (pixels[:, 8:] == (0, 0, 255)).all()
    planar_tiff(tmp_path / "b.tif", "<u2")
    with pytest.raises(MediaError, match="16-bit planes"):
        stills.read_still(tmp_path / "b.tif", LIMIT)
