"""What one pass over a file tells, as rows of the tables. Runs in the sandbox's child.

In: a local path and the analyze config. Out: plain rows (a source, its clips, their filmstrips), without
the columns that name the file. Never: a second decode (except to salvage a damaged file, and for a shot
detector by name), a table, a corpus. The pass itself is pipeline/onepass/watch.py.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.dedup.prints import clip_print
from pipeline.errors import MediaError
from pipeline.media import decode as media
from pipeline.media import stills
from pipeline.media.frames import Damage, MediaInfo
from pipeline.media.phash import perceptual_hash
from pipeline.onepass.watch import CLOSE_LONG_PX, JpegBytes, Seen, between, fit, jpeg, watch
from pipeline.shots import boundaries as shots
from pipeline.shots import detectors
from pipeline.shots.descriptor import descriptors
from pipeline.signals import bars, camera
from pipeline.signals import measure as signals

Rows = dict[str, Any]


def analyze_file(
    path: Path, config: AnalyzeConfig, named: Sequence[shots.Boundary] | None = None
) -> SourceAnalysis:
    """Rows of one video or still. `named`: shot boundaries that another detector has found."""
    return _analyze_still(path, config) if stills.is_still(path) else _analyze_video(path, config, named)


def _analyze_video(
    path: Path, config: AnalyzeConfig, named: Sequence[shots.Boundary] | None
) -> SourceAnalysis:
    info = media.probe(path)
    damage = Damage()
    seen = _watched(path, info, config, damage, threads=media.THREADS)
    if damage.dropped:  # which frames survive depends on the threads: the salvaging pass has one
        damage = Damage()
        seen = _watched(path, info, config, damage, threads=1)
    if seen is None:
        raise MediaError("no frame can be decoded")
    if config.shots.detector in detectors.SCENEDETECT:
        named = _scenedetect(path, info, seen, config, threads=1 if damage.dropped else media.THREADS)
    return describe(info, seen, config, damage, named)


def describe(
    info: MediaInfo,
    seen: Seen,
    config: AnalyzeConfig,
    damage: Damage,
    named: Sequence[shots.Boundary] | None = None,
) -> SourceAnalysis:
    """The rows that follow from what a pass has seen."""
    source = _source_row(info, seen, damage)
    found = shots.find_boundaries(seen.descriptors, source["fps"], config.shots, damage.gaps, named)
    usual = _crop(seen, source, None)
    clips, strips = [], []
    for shot in shots.split(found, len(seen.times_s)):
        clip, strip = _clip(shot, seen, source, config, damage.gaps, usual)
        clips.append(clip)
        strips.append(strip)
    return SourceAnalysis(source=source, clips=clips, strips=strips)


def _watched(path: Path, info: MediaInfo, config: AnalyzeConfig, damage: Damage, threads: int) -> Seen | None:
    frames = media.decode(path, damage, max_pixels=config.max_pixels, threads=threads)
    return watch(frames, info, config, damage)


def _scenedetect(
    path: Path, info: MediaInfo, seen: Seen, config: AnalyzeConfig, threads: int
) -> list[shots.Boundary]:
    """What one of PySceneDetect's detectors finds: it needs pictures, so the file is decoded once more."""
    size = fit(info.width, info.height, detectors.SCENEDETECT_LONG_PX, least=2)
    frames = media.decode(path, Damage(), max_pixels=config.max_pixels, threads=threads)
    fps = (len(seen.times_s) - 1) / float(seen.times_s[-1]) if len(seen.times_s) > 1 else 1.0
    return detectors.scenedetect_boundaries((frame.rgb(*size) for frame in frames), fps, config.shots)


def _source_row(info: MediaInfo, seen: Seen, damage: Damage) -> Rows:
    times_s = seen.times_s
    steps_s = np.diff(times_s)
    step_s = float(np.median(steps_s)) if len(steps_s) else (1 / info.fps if 0 < info.fps < 1000 else 0.0)
    vfr = bool(len(steps_s) > 2 and np.mean(np.abs(steps_s - step_s) > 0.25 * step_s) > 0.02)
    measured = len(steps_s) / float(times_s[-1]) if len(steps_s) else 0.0
    steady = not vfr and info.fps and abs(info.fps * step_s - 1) < 0.05
    duration_s = float(times_s[-1]) + step_s
    reasons = [damage.size_change] if damage.size_change else []
    if damage.dropped:
        reasons.append(f"{damage.dropped} damaged packets or frames left out")
    if duration_s < 0.9 * info.duration_s - 0.2:
        reasons.append(f"ends after {duration_s:.2f} of {info.duration_s:.2f} s")
    return {
        "kind": "video",
        "status": "salvaged" if reasons else "ok",
        "reason": "; ".join(reasons) or None,
        "container": info.container,
        "codec": info.codec,
        "width": info.width,
        "height": info.height,
        "rotation": info.rotation,
        "fps": info.fps if steady else (measured or min(info.fps, 1000.0)),
        "is_vfr": vfr,
        "frames": len(times_s),
        "duration_s": duration_s,
        "has_audio": info.has_audio,
        "transfer": info.transfer,
    }


def _clip(
    shot: shots.Shot, seen: Seen, source: Rows, config: AnalyzeConfig, gaps: Sequence[int], usual: bars.Box
) -> tuple[Rows, Rows]:
    """The clip row and the filmstrip of one shot."""
    inside = between(seen, shot.start, shot.end)
    times_s = inside.times_s
    if shot.end == len(seen.times_s) or shot.end in gaps:  # no next frame, or not the one that was next
        end_s = float(times_s[-1]) + (source["duration_s"] - float(seen.times_s[-1]))
    else:
        end_s = float(seen.times_s[shot.end])
    numbers = signals.clip_signals(inside.rows, inside.close, inside.descriptors, times_s)
    crop = _crop(inside, source, usual)
    strip = _filmstrip(inside, crop, source, config)
    x, y, w, h = crop
    sides = source["width"], source["height"]
    active = x / sides[0], y / sides[1], (x + w) / sides[0], (y + h) / sides[1]
    strip["print"] = clip_print(inside.descriptors, times_s, end_s, active).tobytes()
    clip = {
        "kind": "video",
        "start_s": float(times_s[0]),
        "end_s": end_s,
        "start_frame": shot.start,
        "end_frame": shot.end,
        "fps": source["fps"],
        "width": source["width"],
        "height": source["height"],
        "crop": list(crop),
        "boundary_in": shot.boundary_in,
        "boundary_out": shot.boundary_out,
        "boundary_confidence": shot.confidence,
        "signals": numbers,
        "camera": camera.kind(numbers),
        "phash": [perceptual_hash(_grey(frame)) for frame in strip["frames"]],
        "status": "ok",
        "reason": None,
    }
    return clip, strip


def _crop(part: Seen, source: Rows, usual: bars.Box | None) -> bars.Box:
    """The active picture over a part of a pass, [x, y, w, h] in display pixels."""
    rows = _sampled(part.bright_rows, source["height"])  # [K, H]
    return bars.active_picture(rows, _sampled(part.bright_columns, source["width"]), usual)


def _sampled(profiles: np.ndarray, count: int) -> np.ndarray:
    """Profiles [K, coded pixels] at `count` display pixels."""
    return profiles[:, np.arange(count) * profiles.shape[1] // count]  # [K, count]


def _filmstrip(clip: Seen, crop: tuple[int, int, int, int], source: Rows, config: AnalyzeConfig) -> Rows:
    """Up to `strip_frames` candidates, evenly spread from the first to the last, cut to the active
    picture."""
    if not len(clip.shown):
        return {"times_s": [], "frames": []}
    times_s = clip.times_s[clip.shown]
    wanted = np.linspace(times_s[0], times_s[-1], config.strip_frames)
    chosen = sorted({int(np.abs(times_s - t).argmin()) for t in wanted})
    frames = [jpeg(clip.pictures[i], config.strip_quality) for i in chosen]
    if crop != (0, 0, source["width"], source["height"]):
        frames = [_cut(frame, crop, source, config.strip_quality) for frame in frames]
    return {"times_s": [float(times_s[i]) for i in chosen], "frames": frames}


def _cut(data: JpegBytes, crop: tuple[int, int, int, int], source: Rows, quality: int) -> JpegBytes:
    pixels = _pixels(data)
    across, down = pixels.shape[1] / source["width"], pixels.shape[0] / source["height"]
    x, y = round(crop[0] * across), round(crop[1] * down)
    w, h = max(1, round(crop[2] * across)), max(1, round(crop[3] * down))
    return jpeg(pixels[y : y + h, x : x + w], quality)


def _analyze_still(path: Path, config: AnalyzeConfig) -> SourceAnalysis:
    pixels, codec, rotation = stills.read_still(path, config.max_pixels)
    height, width, _ = pixels.shape
    strip = stills.resize(pixels, *fit(width, height, config.strip_long_px, least=1))
    thumb = Image.fromarray(strip).convert("YCbCr").resize(fit(width, height, config.thumb_long_px, least=1))
    y, u, v = np.moveaxis(np.asarray(thumb), 2, 0)[:, None]  # [1, H, W] each
    luma = Image.fromarray(pixels).convert("L")
    small = luma.resize(fit(width, height, CLOSE_LONG_PX, least=1))
    close = signals.inspect(np.asarray(small), np.asarray(luma), full_range=True)
    rows = signals.measure(y, u, v, None)
    numbers = signals.clip_signals(rows, close, np.zeros((1, 1)), np.zeros(1))
    shape: Rows = {"kind": "image", "width": width, "height": height, "fps": 0.0}
    source = shape | {
        "status": "ok",
        "reason": None,
        "container": codec,
        "codec": codec,
        "rotation": rotation,
        "is_vfr": False,
        "frames": 1,
        "duration_s": 0.0,
        "has_audio": False,
        "transfer": "sdr",
    }
    clip = shape | {
        "start_s": 0.0,
        "end_s": 0.0,
        "start_frame": 0,
        "end_frame": 1,
        "crop": [0, 0, width, height],
        "boundary_in": "start",
        "boundary_out": "end",
        "boundary_confidence": 1.0,
        "signals": numbers,
        "phash": [perceptual_hash(strip)],
        "status": "ok",
        "reason": None,
    }
    cells = Image.fromarray(strip).convert("YCbCr").resize((32, 32), Image.Resampling.BOX)
    grid = descriptors(*np.moveaxis(np.asarray(cells), 2, 0)[:, None])  # [1, DIMENSIONS]
    tiny = clip_print(grid, np.zeros(1), 0.0, (0.0, 0.0, 1.0, 1.0))
    frames = {"times_s": [0.0], "frames": [jpeg(strip, config.strip_quality)], "print": tiny.tobytes()}
    return SourceAnalysis(source=source, clips=[clip], strips=[frames])


def _grey(data: JpegBytes) -> np.ndarray:
    """uint8 luma [H, W] of a JPEG; its chroma is not decoded."""
    picture = Image.open(io.BytesIO(data))
    picture.draft("L", picture.size)
    return np.asarray(picture)


def _pixels(data: JpegBytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
