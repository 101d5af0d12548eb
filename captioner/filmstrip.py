"""Filmstrips: what captioners and embedders look at, and how a stage goes through those of a corpus.

In: JPEG frames of a corpus. Out: `Filmstrip` values, tensors uint8 [T, 3, S, S], letterboxed (aspect kept,
padded with mid-grey), and an answer for each clip of a task. Never decodes video in this process.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.engine.stage import KILLED, Failure, Output, Task, TaskResult
from pipeline.engine.task_list import TaskList
from pipeline.engine.tasks import part_key
from pipeline.errors import MediaError
from pipeline.operation.reasons import failures_of

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

STRIP_FRAMES = AnalyzeConfig().strip_frames  # what a captioner is trained on is what the analysis makes
PAD_GREY = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Filmstrip:
    """A few JPEG frames of one clip, with their times in the source. An image is one frame."""

    clip_id: str
    source_id: str
    kind: str  # video | image
    start_s: float
    end_s: float
    times_s: tuple[float, ...]
    frames: tuple[bytes, ...]


def strip_pixels(strip: Filmstrip, image_px: int, max_frames: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """uint8 [T, 3, S, S] and times float32 [T] of at most `max_frames` frames, evenly chosen."""
    import torch  # here: planning goes through this module and needs none

    if not strip.frames:
        raise MediaError(f"clip {strip.clip_id} has no filmstrip frames")
    count = min(len(strip.frames), max_frames)
    chosen = np.linspace(0, len(strip.frames) - 1, count).round().astype(int)
    frames = np.stack([letterbox(decode_jpeg(strip.frames[i], strip.clip_id), image_px) for i in chosen])
    times = torch.tensor([strip.times_s[i] for i in chosen], dtype=torch.float32)  # [T]
    return torch.from_numpy(frames).permute(0, 3, 1, 2), times  # [T, 3, S, S]


def decode_jpeg(data: bytes, clip_id: str) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except OSError as error:
        raise MediaError(f"clip {clip_id}: a filmstrip frame is not an image: {error}") from error


def letterbox(image: Image.Image, side_px: int) -> NDArray[np.uint8]:
    """The whole image, centred in a square of mid-grey: uint8 [S, S, 3]."""
    scale = side_px / max(image.size)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    canvas = np.full((side_px, side_px, 3), PAD_GREY, np.uint8)
    top, left = (side_px - height) // 2, (side_px - width) // 2
    canvas[top : top + height, left : left + width] = np.asarray(
        image.resize((width, height), Image.Resampling.BILINEAR)
    )
    return canvas


# -- the filmstrips of a corpus ---------------------------------------------------------------------------


SPAN_COLUMNS = ["clip_id", "source_id", "kind", "start_s", "end_s"]
MISSING = Failure(reason="the corpus holds no filmstrip of this clip; run framemill analyze again")


def strip_tasks(
    corpus: Corpus,
    clips: pa.Table,
    done: pa.ChunkedArray,
    stage_fingerprint: str,
    per_task: int,
) -> TaskList:
    """Tasks for the clips whose ids are not `done` yet, each within one analyze part, so that it reads the
    filmstrips of that part only. `clips` are the rows to work on, sorted by clip_id, with SPAN_COLUMNS and
    others at will. A clip without a filmstrip is among them, in no part."""
    todo = clips.filter(pc.invert(pc.is_in(clips["clip_id"], value_set=done)))
    if not todo.num_rows:
        return TaskList([], todo.slice)
    todo = todo.append_column("part", corpus.strip_parts(todo["clip_id"]))
    todo = todo.sort_by([("part", "ascending"), ("clip_id", "ascending")]).combine_chunks()
    starts = _task_starts(todo["part"].combine_chunks(), per_task)
    ends = [*starts[1:], todo.num_rows]
    ids = todo["clip_id"].to_pylist()
    keys = [part_key(stage_fingerprint, ids[a:b]) for a, b in zip(starts, ends, strict=True)]
    return TaskList(keys, lambda number: todo.slice(starts[number], ends[number] - starts[number]))


def _task_starts(parts: pa.Array, per_task: int) -> list[int]:
    """Where tasks begin in rows sorted by part: with every part, and every `per_task` rows within it."""
    lengths = pc.run_end_encode(parts).run_ends.to_numpy()
    return [
        start
        for first, end in zip([0, *lengths[:-1].tolist()], lengths.tolist(), strict=True)
        for start in range(first, end, per_task)
    ]


def read_strips(corpus: Corpus, clips: pa.Table) -> dict[str, Filmstrip]:
    """clip_id → filmstrip of a task's clips (SPAN_COLUMNS and their part), as far as there are any."""
    strips = corpus.strips_part(clips["part"][0].as_py())
    rows = {
        row["clip_id"]: row
        for row in strips.filter(pc.is_in(strips["clip_id"], clips["clip_id"])).to_pylist()
    }
    return {
        clip["clip_id"]: Filmstrip(
            **{name: clip[name] for name in SPAN_COLUMNS},
            times_s=tuple(rows[clip["clip_id"]]["times_s"]),
            frames=tuple(rows[clip["clip_id"]]["frames"]),
        )
        for clip in clips.to_pylist()
        if clip["clip_id"] in rows
    }


def answers_of(
    corpus: Corpus, task: Task, ask: Callable[[Sequence[Filmstrip]], Sequence[T | Failure]]
) -> list[tuple[str, T | Failure]]:
    """(clip_id, answer) for every clip of a task, in its order: what `ask` says of those with a filmstrip, or
    why there is no answer. Clips that killed their worker are not asked about."""
    killers = task.killers("clip_id")
    strips = [s for s in read_strips(corpus, task.inputs).values() if s.clip_id not in killers]
    answers: dict[str, T | Failure] = dict(zip((s.clip_id for s in strips), ask(strips), strict=True))
    answers |= dict.fromkeys(killers, KILLED)
    return [(clip_id, answers.get(clip_id, MISSING)) for clip_id in task.inputs["clip_id"].to_pylist()]


def part_of(path: str, rows: pa.Table, clips: pa.Table) -> TaskResult:
    """One part with a row a clip, of which those `failed` are counted apart. `clips` (SPAN_COLUMNS) are those
    of the task."""
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    footage_s = pc.sum(pc.subtract(clips["end_s"], clips["start_s"])).as_py()
    return TaskResult(
        outputs=(Output(path=path, data=tables.to_parquet(rows)),),
        counts={"ok": rows.num_rows - failed.num_rows, "failed": failed.num_rows},
        amounts={"footage_s": footage_s or 0.0},
        failures=failures_of(failed["reason"].to_pylist()),
    )
