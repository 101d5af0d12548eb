"""HEIF by its items, and the odd headers of BMP and TIFF: whole pictures, or a reason that names them."""

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.errors import MediaError
from pipeline.media import stills
from pipeline.media.heif import read_heif
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox

LIMIT = 100_000_000
QUARTERS = np.zeros((48, 64, 3), np.uint8)  # red, green / blue, yellow
QUARTERS[:24, :32], QUARTERS[:24, 32:] = (255, 0, 0), (0, 255, 0)
QUARTERS[24:, :32], QUARTERS[24:, 32:] = (0, 0, 255), (255, 255, 0)
INDICES = np.repeat(np.repeat(np.array([[0, 1], [2, 3]], np.uint8), 24, axis=0), 32, axis=1)
PALETTE = b"\x00\x00\xff\x00\x00\xff\x00\x00\xff\x00\x00\x00\x00\xff\xff\x00"  # BGR0
BGRA = 0xFF0000, 0xFF00, 0xFF, 0xFF000000


def assert_quarters(path: Path, tolerance: int = 0) -> None:
    pixels, _, _ = stills.read_still(path, LIMIT)
    assert stills.is_still(path)
    assert pixels.shape == QUARTERS.shape
    inside = np.s_[4::16, 4::16]
    assert np.abs(pixels[inside].astype(int) - QUARTERS[inside]).max() <= tolerance


def box(kind: bytes, *contents: bytes) -> bytes:
    inside = b"".join(contents)
    return struct.pack(">I4s", 8 + len(inside), kind) + inside


def heif(coding: bytes, tiles: int, *brands: bytes, more: bytes = b"") -> bytes:
    """A HEIF file whose picture (garbage) is one item, or a grid of them."""
    full = bytes(4)
    types = [coding] if tiles == 1 else [b"grid"] + [coding] * tiles
    infes = [
        box(b"infe", b"\x02\0\0\0", struct.pack(">HH", n, 0), kind, b"\0") for n, kind in enumerate(types, 1)
    ]
    parts = struct.pack(f">HH{tiles}H", 1, tiles, *range(2, tiles + 2))
    meta = box(
        b"meta",
        full,
        box(b"hdlr", full, bytes(4), b"pict", bytes(13)),
        box(b"pitm", full, b"\0\1"),
        box(b"iinf", full, struct.pack(">H", len(types)), *infes),
        box(b"iref", full, box(b"dimg", parts)) if tiles > 1 else b"",
    )
    return box(b"ftyp", brands[0], bytes(4), *brands[1:]) + meta + more + box(b"mdat", b"\x55" * 200)


@pytest.mark.parametrize(
    "brands", [(b"heic", b"mif1"), (b"mif1", b"heic"), (b"msf1",), (b"heix",), (b"avif",)]
)
@pytest.mark.parametrize(("coding", "name"), [(b"hvc1", "HEIC"), (b"avc1", "AVCI"), (b"unci", "HEIF")])
@pytest.mark.parametrize("tiles", [1, 6])
def test_what_is_no_avif_is_refused_as_what_it_is(
    tmp_path: Path, brands: tuple[bytes, ...], coding: bytes, name: str, tiles: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(heif(coding, tiles, *brands))
    assert stills.is_still(tmp_path / "a.jpg")
    words = f"{name} still .{coding.decode()}" + (", a grid of 6 tiles" if tiles == 6 else "")
    with pytest.raises(MediaError, match=words):
        stills.read_still(tmp_path / "a.jpg", LIMIT)


def test_a_sequence_of_heic_is_no_still(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(heif(b"hvc1", 1, b"msf1", b"hevc", more=box(b"moov", bytes(8))))
    assert not stills.is_still(tmp_path / "a")


def test_damaged_boxes_are_no_traceback(tmp_path: Path) -> None:
    whole = heif(b"hvc1", 6, b"heic")
    rng = np.random.default_rng(0)
    for cut in range(0, len(whole) - 200, 3):
        (tmp_path / "cut").write_bytes(whole[:cut])
        stills.is_still(tmp_path / "cut")
        noisy = bytearray(whole)
        noisy[cut : cut + 4] = rng.bytes(4)
        (tmp_path / "noisy").write_bytes(noisy)
        stills.is_still(tmp_path / "noisy")
    (tmp_path / "huge").write_bytes(box(b"ftyp", b"heic") + struct.pack(">I4sQ", 1, b"free", (1 << 64) - 1))
    assert read_heif(tmp_path / "huge") is None
    circle = heif(b"grid", 2, b"heic")  # a grid of grids
    (tmp_path / "circle").write_bytes(circle)
    assert read_heif(tmp_path / "circle")


@pytest.mark.parametrize("brand", [b"avif", b"avis", b"mif1", b"msf1", b"miaf", b"MA1B", b"heic", b"mif2"])
@pytest.mark.parametrize("named", [True, False])
def test_avif_of_any_brand_is_the_whole_picture(tmp_path: Path, brand: bytes, named: bool) -> None:
    Image.fromarray(QUARTERS).save(tmp_path / "a.avif", quality=95)
    whole = (tmp_path / "a.avif").read_bytes()
    ends = int.from_bytes(whole[:4], "big")
    others = whole[16:ends] if named else whole[16:ends].replace(b"avif", b"miaf")
    (tmp_path / "a.jpg").write_bytes(whole[:8] + brand + whole[12:16] + others + whole[ends:])
    assert_quarters(tmp_path / "a.jpg", tolerance=4)


@pytest.mark.parametrize("brand", [b"msf1", b"iso8"])
def test_a_sequence_of_avif_moves(tmp_path: Path, brand: bytes) -> None:
    first, *more = [Image.fromarray(np.roll(QUARTERS, 4 * t, axis=1)) for t in range(4)]
    first.save(tmp_path / "a.avif", save_all=True, append_images=more, duration=100)
    whole = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a").write_bytes(whole[:8] + brand + whole[12:])
    assert stills.is_animation(tmp_path / "a")
    assert len(list(stills.frames(tmp_path / "a", LIMIT))) == 4


def test_pq_of_an_avif_is_tone_mapped_and_named(tmp_path: Path) -> None:
    grey = np.full((48, 64, 3), round(0.580689 * 255), np.uint8)  # 203 cd/m²
    Image.fromarray(grey).save(tmp_path / "a.avif", quality=100)
    whole = (tmp_path / "a.avif").read_bytes()
    (tmp_path / "a.avif").write_bytes(whole.replace(b"colrnclx\x00\x01\x00\x0d", b"colrnclx\x00\x09\x00\x10"))
    assert stills.transfer(tmp_path / "a.avif") == "pq"
    assert np.abs(stills.read_still(tmp_path / "a.avif", LIMIT)[0].astype(int) - 230).max() <= 4
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=60.0)) as sandbox:
        assert sandbox.analyze(tmp_path / "a.avif", AnalyzeConfig()).source["transfer"] == "pq"


@pytest.mark.parametrize(("name", "rows"), [("grid_heic.jpg", None), ("grid_mif1.avif", 512)])
def test_grids_are_whole_or_refused(media_dir: Path, name: str, rows: int | None) -> None:
    case = media_dir.parent / "cases" / name
    if not case.is_file():
        pytest.skip(f"no {case}")
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=60.0)) as sandbox:
        if rows is None:
            with pytest.raises(MediaError, match="a grid of 6 tiles"):
                sandbox.analyze(case, AnalyzeConfig())
            return
        source = sandbox.analyze(case, AnalyzeConfig()).source
    assert (source["kind"], source["width"], source["height"]) == ("image", 768, rows)


def bmp(
    bits: int,
    header: int = 40,
    coding: int = 0,
    *,
    down: bool = False,
    alpha: int | None = None,
    odd: int = 0,
) -> bytes:
    """A BMP of the quarters with this second header; `coding` 1 and 2 run-length, 3 with masks."""
    bgr = QUARTERS[..., ::-1]
    masks = BGRA if bits == 32 else (0xF800, 0x7E0, 0x1F, 0)
    red, green, blue = (QUARTERS[..., i].astype("<u2") >> 3 for i in range(3))
    rows = {
        24: bgr,
        32: np.dstack([bgr, np.full((48, 64), alpha or 0, np.uint8)]),
        16: blue | (green << 6 | (green & 16) << 1 | red << 11 if coding == 3 else green << 5 | red << 10),
        8: INDICES,
        4: INDICES[:, ::2] << 4 | INDICES[:, 1::2],
    }[bits]  # fmt: skip
    data = (rows if down else rows[::-1]).tobytes()
    if coding in (1, 2):
        step = 17 if bits == 4 else 1
        lines = [bytes([32, row[0] * step, 32, row[32] * step, 0, 0]) for row in INDICES[::-1]]
        data = b"".join(lines) + b"\0\1"
    colours = 4 if bits <= 8 else 0
    if header == 12:
        second = struct.pack("<IHHHH", 12, 64, 48, 1, bits)
        palette = (
            b"".join(PALETTE[4 * i : 4 * i + 3] for i in range(4)).ljust(3 << bits, b"\0") if colours else b""
        )
    else:
        height, palette = -48 if down else 48, PALETTE[: 4 * colours]
        second = struct.pack("<IiiHHIIiiII", header, 64, height, 1, bits, coding, len(data), 0, 0, colours, 0)
        mask_bytes = struct.pack("<4I", *masks) if coding == 3 else b""
        second += mask_bytes[: 12 if header == 40 else header - 40]
        second = second.ljust(header, b"\0")
    at = 14 + len(second) + len(palette)
    return b"BM" + struct.pack("<IHHI", at + len(data), odd, 0, at) + second + palette + data


@pytest.mark.parametrize(
    "data",
    [bmp(24, 12), bmp(8, 12), bmp(4, 12), bmp(24, odd=7), bmp(24, down=True), bmp(8, down=True), bmp(16),
     bmp(16, coding=3), bmp(16, 108, 3), bmp(32), bmp(32, 52, 3), bmp(32, 56, 3, alpha=255), bmp(24, 64),
     bmp(32, 124, 3, alpha=255), bmp(32, 124, 3), bmp(24, 124), bmp(8, coding=1), bmp(4, coding=2)],
)  # fmt: skip
def test_every_header_of_bmp_is_read(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    assert_quarters(tmp_path / "a")


def test_alpha_of_a_bmp_lies_over_white(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bmp(32, 124, 3, alpha=128))
    assert stills.read_still(tmp_path / "a", LIMIT)[0][5, 5].tolist() == [255, 127, 127]


def test_bigtiff_is_read_or_named(tmp_path: Path) -> None:
    Image.fromarray(QUARTERS).save(tmp_path / "a.tif", big_tiff=True)
    little = (tmp_path / "a.tif").read_bytes()
    assert little[:4] == b"II+\0"
    assert_quarters(tmp_path / "a.tif")
    (tmp_path / "b.tif").write_bytes(b"MM\0+\0\x08\0\0" + bytes(64))
    assert stills.is_still(tmp_path / "b.tif")
    with pytest.raises(MediaError, match="BigTIFF"):
        stills.read_still(tmp_path / "b.tif", LIMIT)


@pytest.mark.parametrize("suffix", ["jpg", "tiff", "png", "webp", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_every_format_is_applied_once(
    tmp_path: Path, suffix: str, orientation: int
) -> None:
    backwards = {6: 8, 8: 6}.get(orientation, orientation)
    picture = Image.fromarray(QUARTERS)
    stored = picture if orientation == 1 else picture.transpose(stills.TURNS[backwards][0])
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / f"a.{suffix}", exif=exif, quality=95)
    assert_quarters(tmp_path / f"a.{suffix}", tolerance=8)


def test_numbers_of_32_bits_and_cielab_have_a_reason(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 70_000, np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(MediaError, match="32 bits"):
        stills.read_still(tmp_path / "a.tiff", LIMIT)
    Image.new("LAB", (8, 8)).save(tmp_path / "b.tiff")
    with pytest.raises(MediaError, match="CIELAB"):
        stills.read_still(tmp_path / "b.tiff", LIMIT)


def test_the_transparent_grey_of_a_16_bit_png_is_white(tmp_path: Path) -> None:
    grey = np.full((8, 8), 1000, np.uint16)
    grey[:, 4:] = 40_000
    Image.fromarray(grey).save(tmp_path / "a.png", transparency=1000)
    assert stills.read_still(tmp_path / "a.png", LIMIT)[0][4, :, 0].tolist() == [255] * 4 + [156] * 4


def test_the_first_page_of_a_tiff_counts(tmp_path: Path) -> None:
    other = Image.new("RGB", (32, 32), "white")
    Image.fromarray(QUARTERS).save(tmp_path / "a.tif", save_all=True, append_images=[other, other])
    assert_quarters(tmp_path / "a.tif")
