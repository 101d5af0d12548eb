"""What came out of framemill, held against what went in.

In: an expectation and what the tables, the filmstrips and the latents' pixels show of a source. Out: the
differences in words; none is right. Pure.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.zoo.case import RGB, Corners, Expected, Scene

COMB = 60.0  # of 255: neighbouring fields further apart than this, over a column, are of two moments
NEAR, FAR = 1 / 16, 3 / 16  # of a side: where a corner is looked at, away from edges and from what moves


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """Pictures of one clip, uint8 RGB [H, W, 3], and its span."""

    start_s: float
    end_s: float
    strip: Sequence[np.ndarray]  # the filmstrip's frames
    span: np.ndarray | None  # what the VAE would see at the clip's first frame; None: it cannot be read
    problem: str = ""  # why not


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What framemill gave for one source."""

    row: Mapping[str, Any]  # of the sources table
    caption: str | None
    clips: Sequence[Shown]


def corners_of(pixels: np.ndarray) -> Corners:
    """The median colour near each corner of uint8 RGB [H, W, 3]."""
    high, wide, _ = pixels.shape
    rows = slice(int(high * NEAR), max(int(high * NEAR) + 1, int(high * FAR)))
    columns = slice(int(wide * NEAR), max(int(wide * NEAR) + 1, int(wide * FAR)))
    down, across = pixels[::-1], pixels[:, ::-1]
    parts = pixels[rows, columns], across[rows, columns], down[rows, columns], down[:, ::-1][rows, columns]
    a, b, c, d = (_median(part) for part in parts)
    return a, b, c, d


def _median(pixels: np.ndarray) -> RGB:
    red, green, blue = (int(v) for v in np.median(pixels.reshape(-1, 3), axis=0))
    return red, green, blue


def combing(pixels: np.ndarray) -> float:
    """How far even rows are from odd ones in the worst column of the middle band, 0 to 255."""
    high = pixels.shape[0]
    band = pixels[high * 3 // 8 : high * 5 // 8].astype(float).mean(axis=2)  # [h, W]
    band = band[: len(band) // 2 * 2]
    if not len(band):
        return 0.0
    return float(np.abs(band[::2].mean(axis=0) - band[1::2].mean(axis=0)).max())


def differences(right: Expected, outcome: Outcome) -> list[str]:
    """What is not as it must be."""
    row = outcome.row
    status, reason = str(row["status"]), str(row.get("reason") or "")
    if right.or_refused and status == "failed" and says(right.or_refused, reason):
        return []
    wrong = []
    if status not in right.statuses:
        wrong.append(f"status {' or '.join(right.statuses)}, got {status}: {reason}")
    if right.reason and not says(right.reason, reason):
        wrong.append(f"a reason with /{right.reason}/, got {reason!r}")
    if right.caption != outcome.caption:
        wrong.append(f"caption {_short(right.caption)}, got {_short(outcome.caption)}")
    if status == "failed" or wrong:
        return wrong
    if row["kind"] != right.kind:
        wrong.append(f"kind {right.kind}, got {row['kind']}")
    size = (row["width"], row["height"])
    if right.size and size != right.size:
        wrong.append(f"size {right.size[0]}x{right.size[1]}, got {size[0]}x{size[1]}")
    if right.frames and not right.frames[0] <= row["frames"] <= right.frames[1]:
        wrong.append(f"frames {'-'.join(map(str, sorted(set(right.frames))))}, got {row['frames']}")
    if right.scenes:
        wrong += _scenes(right, outcome)
    return wrong


def _scenes(right: Expected, outcome: Outcome) -> list[str]:
    wrong = []
    end_s = right.scenes[-1].end_s
    if abs(outcome.row["duration_s"] - end_s) > right.slack_s:
        wrong.append(f"duration {end_s:.2f} s, got {outcome.row['duration_s']:.2f}")
    if len(outcome.clips) != len(right.scenes):
        return [*wrong, f"clips {len(right.scenes)}, got {len(outcome.clips)}"]
    for scene, clip in zip(right.scenes, outcome.clips, strict=True):
        wrong += _scene(right, scene, clip)
    return wrong


def _scene(right: Expected, scene: Scene, clip: Shown) -> list[str]:
    wrong = []
    if max(abs(clip.start_s - scene.start_s), abs(clip.end_s - scene.end_s)) > right.slack_s:
        span = f"{scene.start_s:.2f}-{scene.end_s:.2f} s"
        wrong.append(f"clip {span}, got {clip.start_s:.2f}-{clip.end_s:.2f}")
    if clip.span is None:
        wrong.append(f"pixels of the clip, got {clip.problem}")
    pictures = [("filmstrip", picture) for picture in clip.strip]
    pictures += [] if clip.span is None else [("latents' pixels", picture) for picture in clip.span]
    reported: set[str] = set()
    for what, picture in pictures:
        difference = _picture(right, scene, picture)
        if difference and what not in reported:
            reported.add(what)
            wrong.append(f"{what}: {difference}")
    return wrong


def _picture(right: Expected, scene: Scene, picture: np.ndarray) -> str:
    actual = corners_of(picture)
    if np.abs(np.array(actual) - np.array(scene.corners)).max() > right.tolerance:
        return f"corners {_colours(scene.corners)}, got {_colours(actual)}"
    if right.whole and (comb := combing(picture)) > COMB:
        return f"fields of one moment, got rows {comb:.0f} apart"
    return ""


def says(pattern: str, words: str) -> bool:
    """Whether the words hold the pattern, in any case."""
    return re.search(pattern, words, re.IGNORECASE) is not None


def _short(words: str | None) -> str:
    return "none" if words is None else repr(words if len(words) < 60 else f"{words[:40]}… ({len(words)})")


def _colours(corners: Corners) -> str:
    return " ".join("#{:02x}{:02x}{:02x}".format(*colour) for colour in corners)
