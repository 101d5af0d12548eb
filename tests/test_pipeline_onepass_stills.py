"""Stills: many at a time give the rows that each gives alone, and fast sums the numbers of plain ones."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.dedup.prints import clip_print, still_prints
from pipeline.media.phash import LOWEST, SIDE, block_mean, luma, perceptual_hash
from pipeline.onepass.rows import analyze_file
from pipeline.onepass.stills import analyze_still, analyze_stills
from pipeline.shots.descriptor import DIMENSIONS
from pipeline.signals import detail, overlay
from pipeline.signals import measure as signals

RNG = np.random.default_rng(0)
CONFIG = AnalyzeConfig()


def picture(width: int, height: int, cell: int = 8) -> np.ndarray:
    """uint8 RGB [H, W, 3] of coloured cells."""
    cells = RNG.integers(0, 256, (-(-height // cell), -(-width // cell), 3), dtype=np.uint8)
    return np.kron(cells, np.ones((cell, cell, 1), np.uint8))[:height, :width]


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(Image.fromarray(picture(120, 80)), "JPEG", exif=exif)


def written() -> np.ndarray:
    """Dense hard strokes in a corner."""
    pixels = np.full((240, 320, 3), 128, np.uint8)
    pixels[20:60, 20:200:6] = 255
    pixels[20:60, 22:200:6] = 0
    return pixels


STILLS = {
    "jpeg": encoded(Image.fromarray(picture(96, 72)), "JPEG", quality=90),
    "the same size": encoded(Image.fromarray(picture(96, 72, 3)), "JPEG", quality=50),
    "turned": turned(),
    "large": encoded(Image.fromarray(picture(1300, 700, 5)), "JPEG", quality=80),
    "text": encoded(Image.fromarray(written()), "PNG"),
    "one pixel": encoded(Image.new("RGB", (1, 1), "red"), "PNG"),
    "a line": encoded(Image.fromarray(picture(900, 3, 2)), "PNG"),
    "grey": encoded(Image.fromarray(picture(64, 64)[..., 0]), "PNG"),
    "deep": encoded(Image.fromarray(RNG.integers(0, 65536, (40, 60), dtype=np.uint16)), "PNG"),
    "clear": encoded(Image.fromarray(picture(50, 50)).convert("RGBA"), "PNG"),
    "cmyk": encoded(Image.fromarray(picture(60, 90)).convert("CMYK"), "JPEG"),
    "webp": encoded(Image.fromarray(picture(100, 100)), "WEBP"),
    "bmp": encoded(Image.fromarray(picture(33, 47)), "BMP"),
    "gif": encoded(Image.fromarray(picture(96, 72)), "GIF"),
    "tiff": encoded(Image.fromarray(picture(96, 72)), "TIFF", compression="tiff_lzw"),
}


def test_a_still_among_others_has_the_rows_that_it_has_alone(tmp_path: Path) -> None:
    alone = {}
    for name, data in STILLS.items():
        (tmp_path / "still").write_bytes(data)
        alone[name] = analyze_file(tmp_path / "still", CONFIG)
        assert analyze_still(data, CONFIG) == alone[name]
    for _ in range(3):
        names = RNG.permutation([*STILLS, *STILLS]).tolist()[: RNG.integers(2, 30)]
        assert analyze_stills([STILLS[name] for name in names], CONFIG) == [alone[name] for name in names]
    assert alone["text"].clips[0]["signals"]["text_area"] > 0.01
    (strip,) = alone["large"].strips[0]["frames"]
    assert Image.open(io.BytesIO(strip)).size == (256, 138)
    assert alone["turned"].source["width"] < alone["turned"].source["height"]


def test_what_is_no_good_still_is_left_to_be_looked_at_alone() -> None:
    frames = [Image.fromarray(picture(32, 32)) for _ in range(3)]
    bad = [
        b"",
        b"no picture at all",
        STILLS["large"][: len(STILLS["large"]) // 2],
        STILLS["jpeg"][:100],
        encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]),
    ]
    looked = analyze_stills([bad[0], STILLS["jpeg"], *bad[1:]], CONFIG)
    assert [analysis is None for analysis in looked] == [True, False, *[True] * 5]
    assert looked[1] == analyze_still(STILLS["jpeg"], CONFIG)
    assert analyze_stills(bad, CONFIG) == [None] * len(bad)
    assert analyze_stills([], CONFIG) == []


def test_a_picture_of_too_many_pixels_is_one_of_them() -> None:
    config = AnalyzeConfig(max_pixels=96 * 72)
    looked = analyze_stills([STILLS["jpeg"], STILLS["large"]], config)
    assert [analysis is None for analysis in looked] == [False, True]


def test_signals_of_many_stills_are_those_of_clips_of_one_frame() -> None:
    planes = [RNG.integers(0, 256, (7, *size), dtype=np.uint8) for size in ((72, 96), (36, 48), (36, 48))]
    rows = signals.measure(*planes, None)
    lumas = [RNG.integers(0, 256, (72, 96), dtype=np.uint8) for _ in range(7)]
    close = np.concatenate([signals.inspect(y, y, full_range=True) for y in lumas])
    one_by_one = [
        signals.clip_signals(
            signals.measure(*(plane[k : k + 1] for plane in planes), None),
            close[k : k + 1],
            np.zeros((1, 1)),
            np.zeros(1),
        )
        for k in range(7)
    ]
    assert signals.still_signals(rows, close) == one_by_one


def test_prints_of_many_stills_are_those_of_clips_of_one_frame() -> None:
    grids = RNG.integers(0, 256, (9, DIMENSIONS), dtype=np.uint8)
    alone = [clip_print(grids[k : k + 1], np.zeros(1), 0.0, (0.0, 0.0, 1.0, 1.0)) for k in range(9)]
    assert np.array_equal(still_prints(grids), np.concatenate(alone))


def test_a_hash_is_of_what_lies_above_the_median() -> None:
    for _ in range(200):
        pixels = RNG.integers(0, 256, (RNG.integers(1, 90), RNG.integers(1, 90), 3), dtype=np.uint8)
        k = np.arange(SIDE)
        dct = np.cos(np.pi * (2 * k[None, :] + 1) * k[:, None] / (2 * SIDE)).astype(np.float32)
        coded = (dct @ block_mean(luma(pixels), SIDE, SIDE) @ dct.T)[tuple(np.array(LOWEST).T)]
        bits = int.from_bytes(np.packbits(coded > np.median(coded)).tobytes(), "big")
        assert perceptual_hash(pixels) == bits


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.9, 1.0])
def test_a_quantile_is_numpys(share: float) -> None:
    for _ in range(300):
        values = RNG.random(RNG.integers(1, 70)) * 100
        assert detail._quantile(values, share) == float(np.quantile(values, share))


def test_noise_is_read_from_every_band() -> None:
    """The same as by padding and by numpy's quantile, over sizes around those that it needs."""
    for high, wide in ((18, 16), (19, 17), (72, 96), (75, 111), (400, 33)):
        pixels = RNG.integers(0, 256, (high, wide), dtype=np.uint8)
        tops = np.unique(np.linspace(0, high - detail.BAND_PX, detail.BANDS).astype(int))
        bands = np.stack([pixels[t : t + detail.BAND_PX] for t in tops]).astype(int)
        bent = bands[:, :-2] - 2 * bands[:, 1:-1] + bands[:, 2:]
        bent = np.abs(bent[:, :, :-2] - 2 * bent[:, :, 1:-1] + bent[:, :, 2:]).sum(axis=1)
        columns = np.pad(bent, ((0, 0), (0, 2)))[:, : wide // 16 * 16]
        blocks = columns.reshape(len(tops), -1, 16).sum(axis=2) / 256
        assert detail.noise(pixels) == float(np.quantile(blocks, 0.25)) * float(np.sqrt(np.pi / 2)) / 6


def test_no_strokes_or_too_few_of_them_are_no_text() -> None:
    cells = np.zeros((overlay.CELLS, overlay.CELLS), bool)
    assert overlay.areas(np.packbits(cells)[None]) == (0.0, None)
    cells[40, 40:53] = True  # a cell less than a window may be dense with
    assert overlay.areas(np.packbits(cells)[None]) == (0.0, None)
    cells[40:44, 40:53] = True
    text, logo = overlay.areas(np.packbits(cells)[None])
    assert text > 0
    assert logo is None
    assert overlay.areas(np.packbits(cells)[None].repeat(2, axis=0)) == (text, 0.0)
