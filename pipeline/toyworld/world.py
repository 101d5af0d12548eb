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
The bytes depend on the config alone, never on `workers`. Never draws anything at random: see `toy_plan`.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.engine.resources import use_threads
from pipeline.errors import FormatError
from pipeline.progress import Progress, silent
from pipeline.storage import commit, commit_bytes, sha256_hex
from pipeline.toyworld.render import Frames, render_frames
from pipeline.toyworld.script import FilePlan, PlannedShot, ToyWorldConfig, plan_corpus

__all__ = ["ToyWorldConfig", "ToyWorldSummary", "render_corpus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorldSummary:
    videos: int
    images: int
    shots: int
    boundaries: int
    frames: int
    duration_s: float


def render_corpus(
    out_dir: Path,
    config: ToyWorldConfig,
    progress: Progress = silent,
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
        progress(len(rows), len(plans), {})
    commit_bytes(out_dir / "truth.jsonl", "".join(json.dumps(row) + "\n" for row in rows).encode())
    return ToyWorldSummary(
        videos=config.videos,
        images=config.images,
        shots=sum(len(row["shots"]) for row in rows),
        boundaries=sum(len(row["boundaries"]) for row in rows),
        frames=sum(row["frames"] for row in rows),
        duration_s=round(sum(row["duration_s"] for row in rows), 3),
    )


def _render_all(out_dir: Path, plans: list[FilePlan], workers: int) -> Iterator[dict[str, Any]]:
    """Truth rows in plan order."""
    if workers <= 1:
        yield from (_render_file(out_dir, plan) for plan in plans)
        return
    with worker_pool(workers) as pool:
        yield from pool.map(_render_file, [out_dir] * len(plans), plans, chunksize=4)


def worker_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that render, each on one core."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=use_threads, initargs=(1,))


def _render_file(out_dir: Path, plan: FilePlan) -> dict[str, Any]:
    path = out_dir / plan.name
    if plan.kind == "image":
        _write_image(path, plan)
    else:
        from pipeline.media.encode import write_video

        write_video(path, _file_frames(plan), plan.fps, crf=plan.crf)
    return _truth_row(plan, sha256_hex(path.read_bytes())[:16])


def _write_image(path: Path, plan: FilePlan) -> None:
    frame = next(_shot_frames(plan, 0, 0, 1))
    with commit(path) as temporary:
        Image.fromarray(frame).save(temporary, format="PNG")


def _file_frames(plan: FilePlan) -> Iterator[Frames]:
    """Every frame of the file [H, W, 3] with transitions and bars."""
    for index, planned in enumerate(plan.shots):
        yield from (_with_bars(plan, frame) for frame in _shot_frames(plan, index, 0, planned.frames))
        if index < len(plan.boundaries):
            yield from (_with_bars(plan, frame) for frame in _boundary_frames(plan, index))


def _shot_frames(plan: FilePlan, index: int, first: int, last: int) -> Iterator[Frames]:
    """Active picture of a shot's frames first..last (half open; 0 is its first clean frame)."""
    planned = plan.shots[index]
    width_px, height_px = plan.active[2:]
    moments = np.arange(first, last) / max(planned.frames - 1, 1)
    yield from render_frames(planned.shot, width_px, height_px, moments)


def _boundary_frames(plan: FilePlan, index: int) -> Iterator[Frames]:
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


def _with_bars(plan: FilePlan, frame: Frames) -> Frames:
    x, y, width_px, height_px = plan.active
    if (plan.width_px, plan.height_px) == (width_px, height_px):
        return frame
    canvas = np.zeros((plan.height_px, plan.width_px, 3), np.uint8)
    canvas[y : y + height_px, x : x + width_px] = frame
    return canvas


def _truth_row(plan: FilePlan, source_id: str) -> dict[str, Any]:
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


def _truth_shot(planned: PlannedShot, start: int, end: int, fps: Fraction) -> dict[str, Any]:
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


def read_truth(toyworld: Path) -> list[dict[str, Any]]:
    """The lines of truth.jsonl."""
    path = toyworld / "truth.jsonl"
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        raise FormatError(f"no toy world in {toyworld}", fix=f"framemill toyworld {toyworld}") from error
    except json.JSONDecodeError as error:
        raise FormatError(f"{path} is not JSON lines: {error}") from error
