"""Videos as the shot models see them: descriptors of every frame, computed once, beside their exact truth.

In: a folder of videos and its truth (cuts.json or a toy world's truth.jsonl). Out: `Described`s; their
descriptors are kept in the folder as descriptors-NAME.npy. Never: pixels kept.
"""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from pipeline.bench.shots import Truth, read_truth
from pipeline.config import AnalyzeConfig
from pipeline.media.decode import decode, probe
from pipeline.media.frames import Damage
from pipeline.onepass.watch import fit as fitting_size
from pipeline.shots.descriptor import descriptors

BATCH_FRAMES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One video. `kinds` tells those of `truth.gradual`: dissolve, wipe, or one that begins with "fade"."""

    frames: np.ndarray  # uint8 [N, DIMENSIONS]
    fps: float
    truth: Truth
    kinds: tuple[str, ...]
    end_fades: tuple[tuple[int, int], ...] = ()  # [first, last] frame of the fade in or out of the video


def read_described(media: Path, truth_file: Path, cache: Path) -> list[Described]:
    """Every video of a truth file that lies in `media`."""
    cache.mkdir(parents=True, exist_ok=True)
    kinds, end_fades = _details(truth_file)
    videos = []
    for truth in read_truth(truth_file):
        path = media / truth.file
        if not path.exists():
            continue
        kept = cache / f"descriptors-{truth.file.replace('/', '-')}.npy"
        if not kept.exists():
            np.save(kept, describe(path))
        video = Described(
            frames=np.load(kept),
            fps=probe(path).fps,
            truth=truth,
            kinds=kinds[truth.file],
            end_fades=end_fades.get(truth.file, ()),
        )
        videos.append(video)
    return videos


def describe(path: Path) -> np.ndarray:
    """uint8 [N, DIMENSIONS], as the one-pass analysis computes them."""
    config, info = AnalyzeConfig(), probe(path)
    size = fitting_size(info.width, info.height, config.thumb_long_px, least=16)
    frames = decode(path, Damage(), max_pixels=config.max_pixels)
    blocks = []
    while planes := [frame.yuv(*size) for frame in islice(frames, BATCH_FRAMES)]:
        blocks.append(descriptors(*(np.stack(plane) for plane in zip(*planes, strict=True))))
    return np.concatenate(blocks)


def _details(
    truth_file: Path,
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[tuple[int, int], ...]]]:
    """File → the kinds of its gradual transitions, in order; file → its fades at the ends."""
    if truth_file.suffix == ".jsonl":
        rows = [json.loads(line) for line in truth_file.read_text().splitlines()]
        return {
            row["file"]: tuple(b["kind"] for b in row.get("boundaries", ()) if b["kind"] != "cut")
            for row in rows
        }, {}
    table = json.loads(truth_file.read_text())
    kinds = {file: tuple(row.get("gradual_kinds", ())) for file, row in table.items()}
    ends = {
        file: tuple((row[key][0], row[key][1]) for key in ("fade_in", "fade_out") if key in row)
        for file, row in table.items()
    }
    return kinds, ends
