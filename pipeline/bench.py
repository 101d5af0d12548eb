"""Shot boundaries against exact truth, framemill's beside PySceneDetect's on the same files.

In: a folder of media and its truth (a toy world's truth.jsonl, or a cuts.json: file → hard_cuts, gradual,
jump_cuts, optional_cuts). Out: precision, recall and F1 a detector. A hard cut is found by a cut within
one frame; a gradual transition by any boundary that touches it within two frames; a boundary at an edit
that is neither right nor wrong (jump_cuts, optional_cuts) counts for nothing.
"""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config import AnalyzeConfig
from pipeline.errors import ModelError, UsageError
from pipeline.sandbox import Sandbox

HARD_TOLERANCE, GRADUAL_TOLERANCE = 1, 2  # frames
Found = tuple[int, int, str]  # first frame touched, first frame of the new shot, kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """Frame numbers: hard cuts (first frame of the new shot), gradual [first, last] and what to ignore."""

    file: str
    hard: tuple[int, ...]
    gradual: tuple[tuple[int, int], ...]
    ignored: tuple[int, ...]


@dataclass(slots=True)
class Score:
    """Counts over files; the ratios of nothing are 1."""

    hard_right: int = 0
    hard_found: int = 0
    hard_true: int = 0
    gradual_right: int = 0
    gradual_true: int = 0
    gradual_false: int = 0

    def add(self, found: Sequence[Found], truth: Truth) -> None:
        """Counts one file's boundaries."""
        reach = [(a - GRADUAL_TOLERANCE, b + GRADUAL_TOLERANCE) for a, b in truth.gradual]
        self.gradual_true += len(reach)
        self.gradual_right += sum(any(f <= b and a <= t for f, t, _ in found) for a, b in reach)
        self.hard_true += len(truth.hard)
        left = list(truth.hard)
        for first, frame, kind in found:
            near = [h for h in left if abs(h - frame) <= HARD_TOLERANCE]
            soft = any(first <= b and a <= frame for a, b in reach)
            excused = any(first - GRADUAL_TOLERANCE <= i <= frame + GRADUAL_TOLERANCE for i in truth.ignored)
            if kind == "cut" and near:
                left.remove(min(near, key=lambda h: abs(h - frame)))
                self.hard_right += 1
                self.hard_found += 1
            elif soft or excused:
                continue
            elif kind == "cut":
                self.hard_found += 1
            else:
                self.gradual_false += 1

    def figures(self) -> dict[str, float]:
        precision = self.hard_right / self.hard_found if self.hard_found else 1.0
        recall = self.hard_right / self.hard_true if self.hard_true else 1.0
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
        return {
            "hard_f1": round(f1, 4),
            "hard_precision": round(precision, 4),
            "hard_recall": round(recall, 4),
            "gradual_recall": round(self.gradual_right / self.gradual_true if self.gradual_true else 1.0, 4),
            "gradual_false": self.gradual_false,
        }


def bench_shots(media: str, truth_file: str) -> dict[str, Any]:
    """`ratio`: hard-cut F1 of framemill over that of the best PySceneDetect detector at its defaults."""
    truths = [t for t in read_truth(Path(truth_file)) if (Path(media) / t.file).exists()]
    if not truths:
        raise UsageError(
            f"no file of {truth_file} lies in {media}", expected="the folder the truth file speaks of"
        )
    details: dict[str, Any] = {"files": len(truths)}
    with Sandbox() as box:
        details["framemill"] = _score(truths, lambda file: _framemill(box, Path(media) / file))
    for name in ("content", "adaptive", "hash", "histogram"):
        details[name] = _score(truths, lambda file, name=name: _scenedetect(name, Path(media) / file))  # type: ignore[misc]
    best = max(("content", "adaptive", "hash", "histogram"), key=lambda n: details[n]["hard_f1"])
    ratio = details["framemill"]["hard_f1"] / max(details[best]["hard_f1"], 1e-9)
    return {"name": "shots", "ratio": round(ratio, 4), "against": f"scenedetect {best}", "details": details}


def read_truth(path: Path) -> Iterator[Truth]:
    """The truth of each video: from truth.jsonl of a toy world, or from cuts.json."""
    if path.suffix == ".jsonl":
        for line in path.read_text().splitlines():
            row = json.loads(line)
            if row["kind"] == "video":
                spans = [(b["kind"], b["first_frame"], b["last_frame"]) for b in row["boundaries"]]
                yield Truth(
                    file=row["file"],
                    hard=tuple(first for kind, first, _ in spans if kind == "cut"),
                    gradual=tuple((first, last) for kind, first, last in spans if kind != "cut"),
                    ignored=(),
                )
        return
    for file, row in sorted(json.loads(path.read_text()).items()):
        yield Truth(
            file=file,
            hard=tuple(row["hard_cuts"]),
            gradual=tuple((a, b) for a, b in row["gradual"]),
            ignored=(*row.get("jump_cuts", ()), *row.get("optional_cuts", ())),
        )


def _score(truths: Sequence[Truth], detect: Callable[[str], Sequence[Found]]) -> dict[str, float]:
    score = Score()
    for truth in truths:
        score.add(detect(truth.file), truth)
    return score.figures()


def _framemill(box: Sandbox, path: Path) -> list[Found]:
    clips = sorted(box.analyze(path, AnalyzeConfig()).clips, key=lambda c: int(c["start_frame"]))
    pairs = itertools.pairwise(clips)
    return [(a["end_frame"], b["start_frame"], b["boundary_in"]) for a, b in pairs]


def _scenedetect(name: str, path: Path) -> list[Found]:
    try:
        import scenedetect
    except ImportError as error:
        raise ModelError(
            "PySceneDetect is not installed", fix="pip install 'framemill[scenedetect]'"
        ) from error
    detector = getattr(scenedetect, f"{name.capitalize()}Detector")()
    scenes = scenedetect.detect(str(path), detector)
    return [(start.frame_num, start.frame_num, "cut") for start, _ in scenes[1:]]
