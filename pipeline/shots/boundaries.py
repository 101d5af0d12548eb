"""Descriptors of a video's frames → shot boundaries → shots. Pure functions on arrays.

In: one descriptor a frame (pipeline/shots/descriptor.py) and the frame rate. Out: boundaries (cut,
dissolve, wipe, fade, stride) with a confidence, and the shots between them. Never: pixels, files, clocks.

Boundaries come from pipeline/shots/cuts.py, fades.py and gradual.py, or from a detector by name
(pipeline/shots/detectors.py). Here they are merged, and shots that are too long are split where least
happens. Time and memory are linear in the number of frames.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.config import ShotConfig
from pipeline.shots.cuts import cuts
from pipeline.shots.descriptor import steps
from pipeline.shots.fades import fades
from pipeline.shots.gradual import transitions
from pipeline.shots.weights import MODELS, Models

QUIET_S = 0.5  # motion is summed over this long to find where least happens
FILL, SLACK = 0.8, 0.1  # of the greatest length: what a piece is planned to have; how far its ends may move


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Frames `first` to `frame` - 1 belong to the transition (none for a cut); `frame` begins the new shot.

    `confidence` is the probability that a shot ends here. On 60 montages of files that the models were not
    fitted on its expected calibration error is 0.046 (222 cuts, dissolves and wipes); below 0.9 25 of 40 of
    them are real. A fade's follows from how unlike its two sides are."""

    first: int
    frame: int
    kind: str  # cut | dissolve | wipe | fade | stride (artificial: no shot ends here, no frame is left out)
    confidence: float  # 0 to 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Frames `start` to `end` - 1; the frames of transitions at its ends are left out, no others."""

    start: int
    end: int
    boundary_in: str
    boundary_out: str
    confidence: float  # the lower of its two boundaries


def find_boundaries(
    frames: np.ndarray,
    fps: float,
    config: ShotConfig,
    gaps: Sequence[int] = (),
    boundaries: Sequence[Boundary] | None = None,
    models: Models = MODELS,
) -> list[Boundary]:
    """All boundaries of a video, in order. frames: uint8 [N, DIMENSIONS]; at `gaps` frames are missing: cuts
    too. `boundaries`: another detector's, in place of the own."""
    change = steps(frames)
    proposed = [Boundary(first=g, frame=g, kind="cut", confidence=1.0) for g in gaps]
    proposed += _own(frames, change, fps, config, gaps, models) if boundaries is None else boundaries
    real = _spaced(proposed, config.min_shot_s * fps - 1)
    return sorted([*real, *_strides(real, change, fps, config)], key=lambda b: b.frame)


def split(boundaries: Sequence[Boundary], count: int) -> list[Shot]:
    """The shots between the boundaries of a video of `count` frames."""
    starts = [Boundary(first=0, frame=0, kind="start", confidence=1.0), *boundaries]
    ends = [*boundaries, Boundary(first=count, frame=count, kind="end", confidence=1.0)]
    return [
        Shot(
            start=a.frame,
            end=b.first,
            boundary_in=a.kind,
            boundary_out=b.kind,
            confidence=min(a.confidence, b.confidence),
        )
        for a, b in zip(starts, ends, strict=True)
        if b.first > a.frame
    ]


def cuts_and_fades(
    frames: np.ndarray,
    change: np.ndarray,
    fps: float,
    config: ShotConfig,
    gaps: Sequence[int] = (),
    models: Models = MODELS,
) -> tuple[list[Boundary], np.ndarray]:
    """The cuts and fades that this package finds, and the frames that belong to them or lie next to them (and
    to `gaps`, and to fades at the ends of the video), bool [N]: no dissolve or wipe touches those. frames:
    uint8 [N, DIMENSIONS]; change: their `steps`."""
    closed = np.zeros(len(frames), bool)
    accepted = []
    for gap in gaps:
        _close(closed, gap, gap)
    for at, sure in zip(*(values.tolist() for values in cuts(frames, change, fps, models)), strict=True):
        if sure >= config.cut_probability and not closed[at]:
            accepted.append(Boundary(first=at, frame=at, kind="cut", confidence=round(sure, 3)))
            _close(closed, at, at)
    for first, frame, sure in fades(frames, fps):
        if not closed[first : frame + 1].any():
            _close(closed, first, frame)
            if sure:
                accepted.append(Boundary(first=first, frame=frame, kind="fade", confidence=round(sure, 3)))
    return accepted, closed


def _own(
    frames: np.ndarray,
    change: np.ndarray,
    fps: float,
    config: ShotConfig,
    gaps: Sequence[int],
    models: Models,
) -> list[Boundary]:
    """What the detectors of this package find: cuts first, then what does not touch them."""
    accepted, closed = cuts_and_fades(frames, change, fps, config, gaps, models)
    for first, frame, kind, sure in transitions(frames, fps, closed, models):
        if sure >= config.gradual_probability and not closed[first : frame + 1].any():
            accepted.append(Boundary(first=first, frame=frame, kind=kind, confidence=round(sure, 3)))
            _close(closed, first, frame)
    return accepted


def _close(closed: np.ndarray, first: int, frame: int) -> None:
    closed[max(0, first - 1) : frame + 1] = True


def _spaced(boundaries: Sequence[Boundary], least: float) -> list[Boundary]:
    """In order; of two with fewer than `least` frames between them the surer one."""
    spaced: list[Boundary] = []
    for boundary in sorted(boundaries, key=lambda b: (b.frame, b.first)):
        if spaced and boundary.first - spaced[-1].frame < least:
            if boundary.confidence <= spaced[-1].confidence:
                continue
            spaced.pop()
        spaced.append(boundary)
    return spaced


def _strides(
    boundaries: Sequence[Boundary], change: np.ndarray, fps: float, config: ShotConfig
) -> list[Boundary]:
    """Where to split the shots that are longer than `max_shot_s`: near equal parts, at the quietest frame."""
    most = round(config.max_shot_s * fps)
    if most < 10:  # 0: never
        return []
    window = max(1, round(QUIET_S * fps))
    strides = []
    for shot in split(boundaries, len(change)):
        length = shot.end - shot.start
        if length <= most:
            continue
        motion = np.convolve(change[shot.start : shot.end], np.ones(window), "same")
        parts, slack = math.ceil(length / (FILL * most)), int(SLACK * most)
        for part in range(1, parts):
            low = part * length // parts - slack
            at = shot.start + low + int(np.argmin(motion[low : low + 2 * slack + 1]))
            strides.append(Boundary(first=at, frame=at, kind="stride", confidence=1.0))
    return strides
