"""What one pass over a file tells, as rows of the tables. Runs in the sandbox's child.

In: a local path and the analyze config. Out: plain rows (a source, its clips, their filmstrips), without
the columns that name the file. Never: a second decode (except to salvage a damaged file, and for a shot
detector by name), a table, a corpus. The pass itself is pipeline/onepass/watch.py.
"""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.dedup.prints import clip_print
from pipeline.errors import MediaError
from pipeline.media import decode as media
from pipeline.media import stills, strips
from pipeline.media.frames import Damage, MediaInfo
from pipeline.media.phash import perceptual_hash
from pipeline.onepass.columns import Row, Timing, clip_row, source_row
from pipeline.onepass.stills import analyze_still
from pipeline.onepass.watch import PassRecord, between, watch
from pipeline.shots import detectors
from pipeline.shots.boundaries import Boundary, Shot, find_boundaries, split
from pipeline.signals import bars, camera
from pipeline.signals import measure as signals

# A step further than UNEVEN_STEP off the usual one is uneven: whole milliseconds are 6 % off at 60 a second,
# a dropped frame 100 %. More than UNEVEN_SHARE of them are a variable rate, not an accident.
UNEVEN_STEP, UNEVEN_SHARE = 0.25, 0.02
RATE_OFF = 0.05  # a header's rate further off what was measured is not believed
MAX_FPS = 1000.0  # above it what a header states is the clock of its times, not a rate
# A file that ends before this share of its header's duration, less so many seconds, was cut off: headers
# round, and count a late start.
SHORT_SHARE, SHORT_S = 0.9, 0.2


def analyze_file(
    path: Path, config: AnalyzeConfig, boundaries: Sequence[Boundary] | None = None
) -> SourceAnalysis:
    """Rows of one video or still. `boundaries`: those that a shot detector by name found before."""
    return analyze_still(path, config) if stills.is_still(path) else _analyze_video(path, config, boundaries)


def describe(
    info: MediaInfo,
    record: PassRecord,
    config: AnalyzeConfig,
    damage: Damage,
    boundaries: Sequence[Boundary] | None = None,
) -> SourceAnalysis:
    """The rows that follow from what was kept of a pass."""
    timing = _timing(record.times_s, info)
    losses = _losses(info, timing, damage)
    source = source_row("video", info, timing, losses, damage.clock_jumps)
    gaps = record.gaps.tolist()
    between_shots = find_boundaries(record.descriptors, timing.fps, config.shots, gaps, boundaries)
    usual = _crop(record, source, None)
    clips, filmstrips = [], []
    for shot in split(between_shots, len(record.times_s)):
        clip, strip = _clip(shot, record, source, config, usual)
        clips.append(clip)
        filmstrips.append(strip)
    return SourceAnalysis(source=source, clips=clips, strips=filmstrips)


def _analyze_video(
    path: Path, config: AnalyzeConfig, boundaries: Sequence[Boundary] | None
) -> SourceAnalysis:
    for threads in (media.THREADS, 1):  # which frames of a damaged file survive depends on the threads
        damage = Damage()
        frames = media.decode(path, damage, max_pixels=config.max_pixels, threads=threads)
        first = next(frames, None)
        record = watch(chain([first], frames), first.info, config) if first else None
        if not damage.dropped:
            break
    if first is None or record is None:
        raise MediaError("no frame can be decoded")
    info = first.info
    if config.shots.detector in detectors.SCENEDETECT:
        boundaries = _scenedetect(path, info, record, config, threads=threads)
    return describe(info, record, config, damage, boundaries)


def _scenedetect(
    path: Path, info: MediaInfo, record: PassRecord, config: AnalyzeConfig, threads: int
) -> list[Boundary]:
    """What one of PySceneDetect's detectors finds: it needs pictures, so the file is decoded once more."""
    size = strips.fit(info.width, info.height, detectors.SCENEDETECT_LONG_PX, least=2)
    frames = media.decode(path, Damage(), max_pixels=config.max_pixels, threads=threads)
    fps = (len(record.times_s) - 1) / float(record.times_s[-1]) if len(record.times_s) > 1 else 1.0
    return detectors.scenedetect_boundaries((frame.rgb(*size) for frame in frames), fps, config.shots)


def _timing(times_s: np.ndarray, info: MediaInfo) -> Timing:
    """The header's rate where the frames [N] bear it out, else the measured one."""
    steps_s = np.diff(times_s)
    of_header_s = 1 / info.fps if 0 < info.fps < MAX_FPS else 0.0
    step_s = float(np.median(steps_s)) if len(steps_s) else of_header_s
    uneven = np.abs(steps_s - step_s) > UNEVEN_STEP * step_s
    is_vfr = bool(len(steps_s) > 2 and np.mean(uneven) > UNEVEN_SHARE)
    measured = len(steps_s) / float(times_s[-1]) if len(steps_s) else 0.0
    steady = not is_vfr and info.fps and abs(info.fps * step_s - 1) < RATE_OFF
    return Timing(
        fps=info.fps if steady else (measured or min(info.fps, MAX_FPS)),
        is_vfr=is_vfr,
        frames=len(times_s),
        duration_s=float(times_s[-1]) + step_s,
    )


def _losses(info: MediaInfo, timing: Timing, damage: Damage) -> list[str]:
    """What is missing of a file, in words."""
    losses = [damage.size_change] if damage.size_change else []
    if damage.dropped:
        losses.append(f"{damage.dropped} damaged packets or frames left out")
    if damage.begins_inside:
        losses.append("begins inside a group of pictures: what comes before its first whole picture left out")
    # A difference of clocks that jump is no duration; what is left out at the start is no loss at the end.
    stated_s = 0.0 if damage.clock_jumps or damage.begins_inside else info.stream_duration_s
    if timing.duration_s < SHORT_SHARE * stated_s - SHORT_S:
        losses.append(f"ends after {timing.duration_s:.2f} of {stated_s:.2f} s")
    return losses


def _clip(
    shot: Shot, record: PassRecord, source: Row, config: AnalyzeConfig, usual: bars.Box
) -> tuple[Row, Row]:
    """The clip row and the filmstrip of one shot."""
    inside = between(record, shot.start, shot.end)
    times_s = inside.times_s
    if shot.end == len(record.times_s) or shot.end in record.gaps:  # no next frame, or not the one after it
        end_s = float(times_s[-1]) + (source["duration_s"] - float(record.times_s[-1]))
    else:
        end_s = float(record.times_s[shot.end])
    numbers = signals.clip_signals(inside.rows, inside.close, inside.descriptors, times_s)
    crop = _crop(inside, source, usual)
    strip = _filmstrip(inside, crop, source, config)
    x, y, w, h = crop
    sides = source["width"], source["height"]
    active = x / sides[0], y / sides[1], (x + w) / sides[0], (y + h) / sides[1]
    strip["print"] = clip_print(inside.descriptors, times_s, end_s, active).tobytes()
    hashes = [perceptual_hash(stills.decode_luma(frame)) for frame in strip["frames"]]
    span_s = float(times_s[0]), end_s
    return clip_row(source, shot, span_s, crop, numbers, hashes, camera.kind(numbers)), strip


def _crop(record: PassRecord, source: Row, usual: bars.Box | None) -> bars.Box:
    """The active picture over a pass, [x, y, w, h] in display pixels."""
    rows = _sampled(record.bright_rows, source["height"])  # [K, H]
    return bars.active_picture(rows, _sampled(record.bright_columns, source["width"]), usual)


def _sampled(profiles: np.ndarray, count: int) -> np.ndarray:
    """Profiles [K, coded pixels] at `count` display pixels."""
    return profiles[:, np.arange(count) * profiles.shape[1] // count]  # [K, count]


def _filmstrip(clip: PassRecord, crop: bars.Box, source: Row, config: AnalyzeConfig) -> Row:
    """Up to `strip_frames` candidates, evenly spread from the first to the last, cut to the active
    picture."""
    if not len(clip.picture_at):
        return {"times_s": [], "frames": []}
    times_s = clip.times_s[clip.picture_at]
    wanted = np.linspace(times_s[0], times_s[-1], config.strip_frames)
    chosen = sorted({int(np.abs(times_s - t).argmin()) for t in wanted})
    size = source["width"], source["height"]
    frames = strips.strip_frames([clip.pictures[i] for i in chosen], crop, size, config.strip_quality)
    return {"times_s": [float(times_s[i]) for i in chosen], "frames": frames}
