"""The truth world on disk: real H.264 files and images of toy shots, with every fact known.

In: a `ToyWorldConfig`. Out: `videos/v000000.mp4`, `images/i000000.png` and `truth.jsonl`, one line a file:

    {"file", "source_id", "kind": "video" | "image", "width", "height", "fps", "frames", "duration_s",
     "active": [x, y, w, h],
     "boundaries": [{"kind": "cut" | "dissolve" | "fade", "first_frame", "last_frame"}],
     "shots": [{"start_frame", "end_frame", "start_s", "end_s", "facts": [{"kind", "subject", "value"}],
                "short", "detailed", "static", "blurred", "text", "duplicate_of": {"file", "shot"} | null}]}

A cut's first and last frame are both the first frame of the new shot; a gradual boundary names the first
and last frame that it touches. A shot's span is half open and holds its clean frames only. An image is one
shot of one frame, with fps 0. `truth.jsonl` is written last; no file bears its final name half written.
The bytes depend on the config alone, never on `workers`. Never draws a shot itself: see `toy_scene`.
"""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import ConfigError
from pipeline.storage import TEMP_PREFIX, sha256_hex
from pipeline.toy_captions import ToyCaption, caption_shot
from pipeline.toy_render import Frames, render_frames
from pipeline.toy_scene import Shot, sample_shot

ASPECTS = ((9, 21), (9, 16), (3, 4), (1, 1), (4, 3), (16, 9), (21, 9))
FRAME_RATES = tuple(
    Fraction(*rate)
    for rate in ((12, 1), (15, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (60, 1))
)
CRF, DUPLICATE_CRF = 16, 26
_GRADUAL_S = (0.3, 0.6)  # shortest and longest dissolve or fade
_BAR_SHARE = (0.1, 0.18)  # of the side, for each of the two letterbox bars


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorldConfig:
    """What to render. Shares are probabilities: letterbox a file, the others a shot or a boundary."""

    videos: int = 12
    images: int = 4
    seed: int = 0
    min_shots: int = 2
    max_shots: int = 5
    min_shot_s: float = 1.2
    max_shot_s: float = 3.5
    area_px: int = 160 * 96
    letterbox_share: float = 0.1
    text_share: float = 0.08
    static_share: float = 0.06
    blurred_share: float = 0.06
    duplicate_share: float = 0.06
    gradual_share: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.min_shots <= self.max_shots:
            raise ConfigError(
                f"min_shots {self.min_shots}, max_shots {self.max_shots}", expected="1 <= min <= max"
            )
        if not 0.5 <= self.min_shot_s <= self.max_shot_s:
            raise ConfigError(
                f"min_shot_s {self.min_shot_s}, max_shot_s {self.max_shot_s}", expected="0.5 <= min <= max"
            )
        if self.area_px < 48 * 48:
            raise ConfigError(
                f"area_px {self.area_px}", expected=f"at least {48 * 48}, to keep small shapes visible"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorldSummary:
    videos: int
    images: int
    shots: int
    boundaries: int
    frames: int
    duration_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlannedShot:
    shot: Shot
    caption: ToyCaption
    frames: int  # clean ones
    duplicate_of: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Boundary:
    kind: str  # cut | dissolve | fade
    frames: int  # touched frames; 0 for a cut; even for a fade


@dataclass(frozen=True, slots=True, kw_only=True)
class _FilePlan:
    name: str
    kind: str
    width_px: int
    height_px: int
    active: tuple[int, int, int, int]
    aspect: tuple[int, int]
    fps: Fraction
    crf: int
    shots: tuple[_PlannedShot, ...]
    boundaries: tuple[_Boundary, ...]


def render_corpus(
    out_dir: Path,
    config: ToyWorldConfig,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 1,
) -> ToyWorldSummary:
    """Renders the corpus into `out_dir`; `progress(done, total)` is called after each file."""
    plans = plan_corpus(config)
    out_dir = Path(out_dir)
    for folder in sorted({plan.name.split("/")[0] for plan in plans}):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for row in _render_all(out_dir, plans, workers):
        rows.append(row)
        if progress is not None:
            progress(len(rows), len(plans))
    _write_atomically(out_dir / "truth.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return ToyWorldSummary(
        videos=config.videos,
        images=config.images,
        shots=sum(len(row["shots"]) for row in rows),
        boundaries=sum(len(row["boundaries"]) for row in rows),
        frames=sum(row["frames"] for row in rows),
        duration_s=round(sum(row["duration_s"] for row in rows), 3),
    )


def plan_corpus(config: ToyWorldConfig) -> list[_FilePlan]:
    """Draws every file. A file's draws depend on the seed, its index and, for duplicates, earlier plans."""
    plans: list[_FilePlan] = []
    for index in range(config.videos):
        plans.append(_plan_video(config, index, plans))
    return plans + [_plan_image(config, index) for index in range(config.images)]


def _plan_video(config: ToyWorldConfig, index: int, earlier: list[_FilePlan]) -> _FilePlan:
    rng = np.random.default_rng([config.seed, 0, index])
    count = int(rng.integers(config.min_shots, config.max_shots + 1))
    wanted = [bool(rng.random() < config.duplicate_share) for _ in range(count)]
    original = earlier[int(rng.integers(len(earlier)))] if earlier and any(wanted) else None
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    fps = FRAME_RATES[int(rng.integers(len(FRAME_RATES)))]
    if original is not None:  # the same picture must fit the same frame at the same rate
        aspect, fps = original.aspect, original.fps
    width_px, height_px, active = _frame_size(config, aspect, rng)
    shots: list[_PlannedShot] = []
    for duplicate in wanted:
        avoid = shots[-1].shot.background if shots else None
        copy = _copy_shot(original, shots, rng) if duplicate and original is not None else None
        shots.append(copy if copy is not None else _new_shot(config, fps, avoid, rng))
    return _FilePlan(
        name=f"videos/v{index:06d}.mp4",
        kind="video",
        width_px=width_px,
        height_px=height_px,
        active=active,
        aspect=aspect,
        fps=fps,
        crf=DUPLICATE_CRF if any(shot.duplicate_of for shot in shots) else CRF,
        shots=tuple(shots),
        boundaries=tuple(_plan_boundary(config, fps, rng) for _ in range(count - 1)),
    )


def _new_shot(
    config: ToyWorldConfig, fps: Fraction, avoid: str | None, rng: np.random.Generator
) -> _PlannedShot:
    shot = sample_shot(
        rng,
        avoid_background=avoid,
        static=bool(rng.random() < config.static_share),
        blurred=bool(rng.random() < config.blurred_share),
        with_text=bool(rng.random() < config.text_share),
    )
    length_s = float(rng.uniform(config.min_shot_s, config.max_shot_s))
    return _PlannedShot(shot=shot, caption=caption_shot(shot, rng), frames=round(length_s * fps))


def _copy_shot(
    original: _FilePlan, shots: list[_PlannedShot], rng: np.random.Generator
) -> _PlannedShot | None:
    """A shot of `original` that is no copy itself, is not used here yet and still makes a visible cut."""
    used = {planned.duplicate_of for planned in shots}
    avoid = shots[-1].shot.background if shots else None
    free = [
        (index, planned)
        for index, planned in enumerate(original.shots)
        if planned.duplicate_of is None
        and (original.name, index) not in used
        and planned.shot.background != avoid
    ]
    if not free:
        return None
    index, planned = free[int(rng.integers(len(free)))]
    return replace(planned, duplicate_of=(original.name, index))


def _plan_boundary(config: ToyWorldConfig, fps: Fraction, rng: np.random.Generator) -> _Boundary:
    gradual, fade = rng.random() < config.gradual_share, rng.random() < 0.5
    frames = max(4, round(float(rng.uniform(*_GRADUAL_S)) * fps))
    if not gradual:
        return _Boundary(kind="cut", frames=0)
    return (
        _Boundary(kind="fade", frames=frames + frames % 2)
        if fade
        else _Boundary(kind="dissolve", frames=frames)
    )


def _plan_image(config: ToyWorldConfig, index: int) -> _FilePlan:
    rng = np.random.default_rng([config.seed, 1, index])
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    width_px, height_px = _even_size(config.area_px, aspect)
    shot = sample_shot(
        rng,
        is_image=True,
        blurred=bool(rng.random() < config.blurred_share),
        with_text=bool(rng.random() < config.text_share),
    )
    return _FilePlan(
        name=f"images/i{index:06d}.png",
        kind="image",
        width_px=width_px,
        height_px=height_px,
        active=(0, 0, width_px, height_px),
        aspect=aspect,
        fps=Fraction(0),
        crf=0,
        shots=(_PlannedShot(shot=shot, caption=caption_shot(shot, rng), frames=1),),
        boundaries=(),
    )


def _even_size(area_px: int, aspect: tuple[int, int]) -> tuple[int, int]:
    """Even sides close to the area and the aspect: (15360, (16, 9)) -> (166, 92)."""
    height = (area_px * aspect[1] / aspect[0]) ** 0.5
    return 2 * round(height * aspect[0] / aspect[1] / 2), 2 * round(height / 2)


def _frame_size(
    config: ToyWorldConfig, aspect: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, tuple[int, int, int, int]]:
    """Frame size and the active picture [x, y, w, h]; bars are added around the picture, never over it."""
    width_px, height_px = _even_size(config.area_px, aspect)
    letterbox, bar = rng.random() < config.letterbox_share, float(rng.uniform(*_BAR_SHARE))
    if not letterbox:
        return width_px, height_px, (0, 0, width_px, height_px)
    if width_px >= height_px:
        bar_px = 2 * round(bar * height_px / 2)
        return width_px, height_px + 2 * bar_px, (0, bar_px, width_px, height_px)
    bar_px = 2 * round(bar * width_px / 2)
    return width_px + 2 * bar_px, height_px, (bar_px, 0, width_px, height_px)


def _render_all(out_dir: Path, plans: list[_FilePlan], workers: int) -> Iterator[dict[str, Any]]:
    """Truth rows in plan order."""
    if workers <= 1:
        yield from (_render_file(out_dir, plan) for plan in plans)
        return
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_render_file, [out_dir] * len(plans), plans, chunksize=4)


def _render_file(out_dir: Path, plan: _FilePlan) -> dict[str, Any]:
    path = out_dir / plan.name
    if plan.kind == "image":
        _write_image(path, plan)
    else:
        from pipeline.media import write_video  # loads a codec library: only where a file is written

        write_video(path, _file_frames(plan), plan.fps, crf=plan.crf)
    return _truth_row(plan, sha256_hex(path.read_bytes())[:16])


def _write_image(path: Path, plan: _FilePlan) -> None:
    frame = next(_shot_frames(plan, 0, 0, 1))
    temporary = path.with_name(f"{TEMP_PREFIX}{path.name}")
    Image.fromarray(frame).save(temporary, format="PNG")
    os.replace(temporary, path)


def _write_atomically(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{TEMP_PREFIX}{path.name}")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _file_frames(plan: _FilePlan) -> Iterator[Frames]:
    """Every frame of the file [H, W, 3] with transitions and bars."""
    for index, planned in enumerate(plan.shots):
        yield from (_with_bars(plan, frame) for frame in _shot_frames(plan, index, 0, planned.frames))
        if index < len(plan.boundaries):
            yield from (_with_bars(plan, frame) for frame in _boundary_frames(plan, index))


def _shot_frames(plan: _FilePlan, index: int, first: int, last: int) -> Iterator[Frames]:
    """Active picture of a shot's frames first..last (half open; 0 is its first clean frame)."""
    planned = plan.shots[index]
    width_px, height_px = plan.active[2:]
    moments = np.arange(first, last) / max(planned.frames - 1, 1)
    yield from render_frames(planned.shot, width_px, height_px, moments)


def _boundary_frames(plan: _FilePlan, index: int) -> Iterator[Frames]:
    """Frames between shot `index` and the next: a dissolve mixes both, a fade goes through black."""
    boundary, length = plan.boundaries[index], plan.shots[index].frames
    if boundary.kind == "dissolve":
        leaving = _shot_frames(plan, index, length, length + boundary.frames)
        coming = _shot_frames(plan, index + 1, -boundary.frames, 0)
        for step, (old, new) in enumerate(zip(leaving, coming, strict=True), start=1):
            share = step / (boundary.frames + 1)
            yield np.round(old * (1 - share) + new * share).astype(np.uint8)
    elif boundary.kind == "fade":
        half = boundary.frames // 2
        for step, old in enumerate(_shot_frames(plan, index, length, length + half), start=1):
            yield np.round(old * (1 - step / half)).astype(np.uint8)
        for step, new in enumerate(_shot_frames(plan, index + 1, -half, 0)):
            yield np.round(new * (step / half)).astype(np.uint8)


def _with_bars(plan: _FilePlan, frame: Frames) -> Frames:
    x, y, width_px, height_px = plan.active
    if (plan.width_px, plan.height_px) == (width_px, height_px):
        return frame
    canvas = np.zeros((plan.height_px, plan.width_px, 3), np.uint8)
    canvas[y : y + height_px, x : x + width_px] = frame
    return canvas


def _truth_row(plan: _FilePlan, source_id: str) -> dict[str, Any]:
    boundaries, shots, start = [], [], 0
    for planned, boundary in zip(plan.shots, (*plan.boundaries, None), strict=True):
        end = start + planned.frames
        shots.append(_truth_shot(planned, start, end, plan.fps))
        start = end
        if boundary is not None:
            start = end + boundary.frames
            boundaries.append(
                {"kind": boundary.kind, "first_frame": end, "last_frame": max(end, start - 1)},
            )
    return {
        "file": plan.name,
        "source_id": source_id,
        "kind": plan.kind,
        "width": plan.width_px,
        "height": plan.height_px,
        "fps": float(plan.fps),
        "frames": start,
        "duration_s": _seconds(start, plan.fps),
        "active": list(plan.active),
        "boundaries": boundaries,
        "shots": shots,
    }


def _truth_shot(planned: _PlannedShot, start: int, end: int, fps: Fraction) -> dict[str, Any]:
    source = planned.duplicate_of
    return {
        "start_frame": start,
        "end_frame": end,
        "start_s": _seconds(start, fps),
        "end_s": _seconds(end, fps),
        "facts": [asdict(fact) for fact in sorted(planned.shot.facts)],
        "short": planned.caption.short,
        "detailed": planned.caption.detailed,
        "static": planned.shot.static,
        "blurred": planned.shot.blurred,
        "text": planned.shot.text,
        "duplicate_of": None if source is None else {"file": source[0], "shot": source[1]},
    }


def _seconds(frames: int, fps: Fraction) -> float:
    return round(float(frames / fps), 6) if fps else 0.0
