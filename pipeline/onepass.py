"""One sequential pass over one file: everything the tables want to know about it. Runs in the sandbox's
child.

In: a local path and the analyze config. Out: plain rows (a source, its clips, their filmstrips), without
the columns that name the file. Never: a second decode (except to salvage a damaged file), a table, a
corpus.

Which frames a filmstrip needs is known only when the shots are, so the pass keeps *candidates*: small
JPEGs of a frame every quarter of a second, more often in the first second after a large change, and the
frames on both sides of it. Memory is bounded by the duration: about 15 KB a candidate, 220 MB for an
hour.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import media, shots, signals, stills
from pipeline.config import AnalyzeConfig
from pipeline.errors import MediaError
from pipeline.fingerprint import colour_grid, perceptual_hash
from pipeline.sandbox import SourceAnalysis

CANDIDATE_S, DENSE_S, DENSE_FOR_S = 0.25, 0.1, 1.0  # spacing; spacing after a large change, and for how long
SHARPNESS_LONG_PX = 640
Rows = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A frame that may end up in a filmstrip."""

    index: int
    time_s: float
    jpeg: bytes
    sharpness: float
    rows: np.ndarray  # uint8 [H], the brightest luma of each row
    columns: np.ndarray  # uint8 [W]


@dataclass(slots=True)
class Pass:
    """What one pass has collected."""

    descriptors: list[np.ndarray]
    rows: list[signals.FrameRow]
    times_s: list[float]
    candidates: list[Candidate]


def analyze_file(path: Path, config: AnalyzeConfig) -> SourceAnalysis:
    """Rows of one video or still."""
    return _analyze_still(path, config) if stills.is_still(path) else _analyze_video(path, config)


def read_crop(
    path: str | Path,
    kind: str,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    expected_phash: int | None,
    max_pixels: int,
) -> np.ndarray:
    """uint8 [T, H, W, 3] RGB of [x, y, w, h] (display pixels) at each time, from a video or a still."""
    if kind == "image":
        pixels, _, _ = stills.read_still(path, max_pixels)
        x, y, w, h = crop
        still = stills.resize(pixels[y : y + h, x : x + w], width_px, height_px)  # [H, W, 3]
        return np.repeat(still[None], len(times_s), axis=0)  # [T, H, W, 3]
    return media.read_span(
        path, times_s, crop, width_px, height_px, max_pixels=max_pixels, expected_phash=expected_phash
    )


def _analyze_video(path: Path, config: AnalyzeConfig) -> SourceAnalysis:
    info = media.probe(path)
    damage = media.Damage()
    seen = _collect(path, info, config, damage, threads=media.THREADS)
    if damage.dropped:  # which frames survive depends on the threads: the salvaging pass has one
        damage = media.Damage()
        seen = _collect(path, info, config, damage, threads=1)
    if not seen.rows:
        raise MediaError("no frame can be decoded")
    source = _source_row(info, seen, damage)
    found = shots.find_boundaries(np.stack(seen.descriptors), source["fps"], config.shots, damage.gaps)
    clips, strips = [], []
    for shot in shots.split(found, len(seen.rows)):
        clip, strip = _clip(shot, seen, source, config, damage.gaps)
        clips.append(clip)
        strips.append(strip)
    return SourceAnalysis(source=source, clips=clips, strips=strips)


def _collect(
    path: Path, info: media.MediaInfo, config: AnalyzeConfig, damage: media.Damage, threads: int
) -> Pass:
    """The pass itself: cheap numbers of every frame, and the candidates."""
    seen = Pass([], [], [], [])
    thumb = _fit(info.width, info.height, config.thumb_long_px, least=16)
    before: tuple[media.Frame, np.ndarray] | None = None  # the last frame and its luma
    dense_until_s = DENSE_FOR_S
    for frame in media.decode(path, damage, max_pixels=config.max_pixels, threads=threads):
        y, u, v = frame.yuv(*thumb)
        seen.descriptors.append(shots.descriptor(y, u, v))
        seen.rows.append(signals.measure(y, u, v, before[1] if before else None))
        seen.times_s.append(frame.time_s)
        newest = seen.candidates[-1] if seen.candidates else None
        pair = seen.descriptors[-2:]
        jumped = (
            newest is not None and float(shots.difference(pair[0], pair[-1])) >= config.shots.cut_threshold
        )
        if jumped and newest and before and newest.index < before[0].index:
            seen.candidates.append(_candidate(before[0], info, config))
        if jumped:
            dense_until_s = frame.time_s + DENSE_FOR_S
        spacing_s = DENSE_S if frame.time_s < dense_until_s else CANDIDATE_S
        if newest is None or jumped or frame.time_s - newest.time_s >= spacing_s - 1e-3:
            seen.candidates.append(_candidate(frame, info, config))
        before = frame, y
    if before and seen.candidates[-1].index < before[0].index:
        seen.candidates.append(_candidate(before[0], info, config))
    return seen


def _candidate(frame: media.Frame, info: media.MediaInfo, config: AnalyzeConfig) -> Candidate:
    luma = frame.luma(info.width, info.height)  # uint8 [H, W]
    small = frame.luma(*_fit(info.width, info.height, SHARPNESS_LONG_PX, least=2))
    pixels = frame.rgb(*_fit(info.width, info.height, config.strip_long_px, least=2))
    return Candidate(
        index=frame.index,
        time_s=frame.time_s,
        jpeg=_jpeg(pixels, config.strip_quality),
        sharpness=signals.sharpness(small),
        rows=luma.max(axis=1),
        columns=luma.max(axis=0),
    )


def _source_row(info: media.MediaInfo, seen: Pass, damage: media.Damage) -> Rows:
    times_s = np.array(seen.times_s)
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
    }


def _clip(
    shot: shots.Shot, seen: Pass, source: Rows, config: AnalyzeConfig, gaps: Sequence[int]
) -> tuple[Rows, Rows]:
    """The clip row and the filmstrip of one shot."""
    inside = [c for c in seen.candidates if shot.start <= c.index < shot.end]
    times_s = np.array(seen.times_s[shot.start : shot.end])
    if shot.end == len(seen.times_s) or shot.end in gaps:  # no next frame, or not the one that was next
        end_s = float(times_s[-1]) + (source["duration_s"] - seen.times_s[-1])
    else:
        end_s = seen.times_s[shot.end]
    frames = slice(shot.start, shot.end)
    numbers = signals.clip_signals(seen.rows[frames], np.stack(seen.descriptors[frames]), times_s)
    crop = _crop(inside, source["width"], source["height"])
    strip = _filmstrip(inside, crop, source, config)
    shown = [_pixels(jpeg) for jpeg in strip["frames"]]
    if inside:
        numbers["sharpness"] = float(np.mean([c.sharpness for c in inside]))
    clip = {
        "kind": "video",
        "start_s": float(times_s[0]),
        "end_s": float(end_s),
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
        "phash": [perceptual_hash(frame) for frame in shown],
        "colour": colour_grid(shown) if shown else [],
        "status": "ok",
        "reason": None,
    }
    return clip, strip


def _crop(candidates: list[Candidate], width: int, height: int) -> tuple[int, int, int, int]:
    """The active picture over a clip, [x, y, w, h] in display pixels."""
    if not candidates:
        return 0, 0, width, height
    rows = np.max([c.rows for c in candidates], axis=0)
    columns = np.max([c.columns for c in candidates], axis=0)
    return signals.active_picture(rows, columns)


def _filmstrip(
    candidates: list[Candidate], crop: tuple[int, int, int, int], source: Rows, config: AnalyzeConfig
) -> Rows:
    """Up to `strip_frames` candidates, evenly spread from the first to the last, cut to the active
    picture."""
    if not candidates:
        return {"times_s": [], "frames": []}
    times_s = np.array([c.time_s for c in candidates])
    wanted = np.linspace(times_s[0], times_s[-1], config.strip_frames)
    chosen = sorted({int(np.abs(times_s - t).argmin()) for t in wanted})
    frames = [candidates[i].jpeg for i in chosen]
    if crop != (0, 0, source["width"], source["height"]):
        frames = [_cut(jpeg, crop, source, config.strip_quality) for jpeg in frames]
    return {"times_s": [float(times_s[i]) for i in chosen], "frames": frames}


def _cut(jpeg: bytes, crop: tuple[int, int, int, int], source: Rows, quality: int) -> bytes:
    pixels = _pixels(jpeg)
    across, down = pixels.shape[1] / source["width"], pixels.shape[0] / source["height"]
    x, y = round(crop[0] * across), round(crop[1] * down)
    w, h = max(1, round(crop[2] * across)), max(1, round(crop[3] * down))
    return _jpeg(pixels[y : y + h, x : x + w], quality)


def _analyze_still(path: Path, config: AnalyzeConfig) -> SourceAnalysis:
    pixels, codec, rotation = stills.read_still(path, config.max_pixels)
    height, width, _ = pixels.shape
    strip = stills.resize(pixels, *_fit(width, height, config.strip_long_px, least=1))
    thumb = Image.fromarray(strip).convert("YCbCr").resize(_fit(width, height, config.thumb_long_px, least=1))
    y, u, v = np.moveaxis(np.asarray(thumb), 2, 0)
    numbers = signals.clip_signals([signals.measure(y, u, v, None)], np.zeros((1, 1)), np.zeros(1))
    small = Image.fromarray(pixels).convert("L").resize(_fit(width, height, SHARPNESS_LONG_PX, least=1))
    numbers["sharpness"] = signals.sharpness(np.asarray(small))
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
        "colour": colour_grid([strip]),
        "status": "ok",
        "reason": None,
    }
    frames = {"times_s": [0.0], "frames": [_jpeg(strip, config.strip_quality)]}
    return SourceAnalysis(source=source, clips=[clip], strips=[frames])


def _fit(width: int, height: int, long_px: int, least: int) -> tuple[int, int]:
    """(width, height) with the long side at most `long_px`, the short one at least `least`; never larger."""
    scale = min(1.0, long_px / max(width, height))
    return max(least, round(width * scale)), max(least, round(height * scale))


def _jpeg(pixels: np.ndarray, quality: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _pixels(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB"))
