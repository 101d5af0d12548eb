"""Real files, read through the sandbox: sizes, frame counts and pixels agree with what is known of them."""

import json
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig
from pipeline.engine.stage import Failure, guard
from pipeline.errors import MediaError, UsageError
from pipeline.media.phash import perceptual_hash
from pipeline.onepass.pieces import unpack
from pipeline.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def box():
    with Sandbox() as sandbox:
        yield sandbox


def moving_square(count: int, width: int = 64, height: int = 48) -> np.ndarray:
    """uint8 [T, H, W, 3]: a bright square that moves right over a dark gradient."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[..., 2] = np.linspace(40, 120, width).astype(np.uint8)
    for t in range(count):
        frames[t, 16:32, t % (width - 16) : t % (width - 16) + 16] = (220, 180, 60)
    return frames


def test_a_written_video_reads_back(box, tmp_path: Path) -> None:
    frames = moving_square(24)
    box.write_video(tmp_path / "a.mp4", frames, 12.0)
    times_s = [0.0, 0.5, 23 / 12]
    got = box.read_span(tmp_path / "a.mp4", times_s=times_s, crop=(0, 0, 64, 48), width_px=64, height_px=48)
    assert got.shape == (3, 48, 64, 3)
    assert np.abs(got.astype(int) - frames[[0, 6, 23]]).mean() < 4


def test_a_written_video_has_the_same_bytes_every_time(box, tmp_path: Path) -> None:
    for name in ("a", "b"):
        box.write_video(tmp_path / f"{name}.mp4", moving_square(30, 96, 64), 29.97)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_odd_sizes_are_refused(box, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="even"):
        box.write_video(tmp_path / "a.mp4", moving_square(2, 63, 48), 12.0)


def test_a_crop_is_that_part_of_the_picture(box, tmp_path: Path) -> None:
    frames = moving_square(5)
    box.write_video(tmp_path / "a.mp4", frames, 5.0)
    got = box.read_span(tmp_path / "a.mp4", times_s=[0.4], crop=(8, 8, 32, 24), width_px=32, height_px=24)
    assert np.abs(got[0].astype(int) - frames[2, 8:32, 8:40]).mean() < 4


def listed(media_dir: Path) -> dict[str, list[str]]:
    """File → its row of the table of real files in the media set's README: name, kB, codec, coded size,
    sample aspect, rotation, rates, seconds, frames, …"""
    text = (media_dir / "README.md").read_text().split("## clips/")[1].split("\n## ")[0]
    rows = [
        [cell.strip() for cell in line.strip("| ").split("|")] for line in text.splitlines() if "|" in line
    ]
    return {row[0]: row for row in rows if (media_dir / "clips" / row[0]).is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(6))
def test_frames_size_rotation_and_length_of_every_real_file(box, media_dir: Path, turn: int) -> None:
    files = list(listed(media_dir).items())
    assert len(files) > 30
    for name, (_, _, _, coded, aspect, rotated, rates, seconds, frames, *_) in files[turn::6]:
        source = box.analyze(media_dir / "clips" / name, AnalyzeConfig()).source
        width, height = (int(side) for side in coded.split("x"))
        over, under = (int(part) for part in (aspect or "1:1").split(":"))
        displayed = (round(width * Fraction(over, under)), height)
        rotation = int(rotated or 0) % 360
        if source["kind"] == "image":  # the table has what is stored; the orientation of a still is its own
            rotation = source["rotation"]
        assert source["status"] == "ok", name
        assert source["frames"] == int(frames), name
        assert (source["width"], source["height"]) == (displayed[::-1] if rotation % 180 else displayed), name
        assert source["rotation"] == rotation, name
        if source["kind"] == "video":
            of_frames = int(frames) / float(
                rates.split("/")[-1]
            )  # `seconds` counts other streams and a late start
            off = min(abs(source["duration_s"] - known) for known in (float(seconds), of_frames))
            assert off < 0.4, name


def test_variable_frame_rates_keep_their_times(box, media_dir: Path) -> None:
    truth = json.loads((media_dir / "truth" / "geometry.json").read_text())["clips/made_vfr_drone.mp4"]
    path, config = media_dir / "clips" / "made_vfr_drone.mp4", AnalyzeConfig()
    source = box.analyze(path, config).source
    assert source["is_vfr"]
    assert source["frames"] == truth["frames"]
    record = unpack(box.watch_piece(path, config, 0, 1)).record
    assert record.times_s == pytest.approx(truth["pts"], abs=1e-3)


def test_high_dynamic_range_is_named(box, media_dir: Path) -> None:
    names = ("bt2020pq_320x240.mp4", "h264_10bit_200x200.mp4")
    sources = [box.analyze(media_dir / "clips" / name, AnalyzeConfig()).source for name in names]
    assert [source["transfer"] for source in sources] == ["pq", "sdr"]


def test_a_rotated_file_looks_like_its_upright_original(box, media_dir: Path) -> None:
    wanted = {"crop": (0, 0, 480, 360), "width_px": 96, "height_px": 72}
    turned = box.read_span(media_dir / "clips/made_rotate90_haircut.mp4", times_s=[0, 1], **wanted)
    upright = box.read_span(media_dir / "sources/haircut_480x360.mp4", times_s=[2, 3], **wanted)
    assert np.abs(turned.astype(int) - upright).mean() < 4


@pytest.mark.parametrize("name", ["cockatoo_720p.mp4", "bbb30s_720p.webm"])
def test_a_sought_span_equals_one_decoded_from_the_start(box, media_dir: Path, name: str) -> None:
    wanted = {"times_s": [8.0, 8.5], "crop": (0, 0, 1280, 720), "width_px": 128, "height_px": 72}
    slow = box.read_span(media_dir / "clips" / name, **wanted)
    fast = box.read_span(media_dir / "clips" / name, **wanted, expected_phash=perceptual_hash(slow[0]))
    assert np.array_equal(slow, fast)


def test_a_sought_span_that_looks_wrong_is_decoded_from_the_start(box, media_dir: Path) -> None:
    wanted = {"times_s": [8.0], "crop": (0, 0, 1280, 720), "width_px": 128, "height_px": 72}
    file = media_dir / "clips" / "bbb30s_720p.webm"
    slow = box.read_span(file, **wanted)
    opposite = perceptual_hash(slow[0]) ^ (2**64 - 1)
    assert np.array_equal(slow, box.read_span(file, **wanted, expected_phash=opposite))


def test_exif_orientation_is_applied(box, media_dir: Path) -> None:
    wanted = {"kind": "image", "times_s": [0.0], "crop": (0, 0, 480, 640), "width_px": 48, "height_px": 64}
    turned = box.read_span(media_dir / "clips/made_photo_exif6.jpg", **wanted)
    upright = box.read_span(media_dir / "clips/made_photo.webp", **wanted)
    assert np.abs(turned.astype(int) - upright).mean() < 3


REASONS = {
    "empty_file": "empty file",
    "not_a_video": "not a video",
    "no_index": "no index",
    "no_video_stream": "no video stream",
    "truncated_image": "damaged picture",
    "too_many_pixels": "too many pixels",
}


def test_bad_files_fail_with_a_reason_or_give_good_frames_only(box, media_dir: Path) -> None:
    truth = json.loads((media_dir / "truth" / "bad.json").read_text())
    for name, known in truth.items():
        if not (media_dir / name).is_file():
            continue
        answer = guard(partial(box.analyze, media_dir / name, AnalyzeConfig()))
        if isinstance(answer, Failure):
            assert known["expect"] != "accept", f"{name}: {answer.reason}"
            assert REASONS.get(known["reason"], "") in answer.reason, name
            continue
        source = answer.source
        assert known["expect"] != "reject" or known["reason"] not in REASONS, name
        if known["expect"] == "salvage_or_reject":
            good = known.get("frames_decodable", 150) - len(known.get("damaged_frames", ()))
            assert source["status"] == "salvaged"
            assert 0.9 * good <= source["frames"] <= good
        if "frames" in known:
            assert source["frames"] == known["frames"]


def test_a_shot_never_spans_frames_that_were_left_out(box, media_dir: Path) -> None:
    clips = box.analyze(media_dir / "bad/corrupt_packets.mp4", AnalyzeConfig()).clips
    assert [(c["start_frame"], c["end_frame"]) for c in clips] == [(0, 54), (54, 129)]
    assert clips[0]["end_s"] == pytest.approx(54 / 30)
    assert clips[1]["start_s"] == pytest.approx(75 / 30)


def test_a_missing_file_says_so(box, tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="no such file"):
        box.analyze(tmp_path / "nothing.mp4", AnalyzeConfig())
