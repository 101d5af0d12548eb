"""Shot boundaries against exact truth: framemill's beside other detectors' on the same files.

In: a folder of media and its truth (a toy world's truth.jsonl, or a cuts.json: file → hard_cuts, gradual,
jump_cuts, optional_cuts). Out: precision, recall and F1 a detector. A hard cut is found by a cut within
one frame; a gradual transition by any boundary that touches it within two frames; a boundary at an edit
that is neither right nor wrong (jump_cuts, optional_cuts) counts for nothing. What touches no gradual
transition is a false alarm: of the gradual ones if it is said to be gradual, else of the cuts. So a detector
that reports nothing but cuts has a gradual precision of 1.
"""

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import AnalyzeConfig
from pipeline.errors import ModelError, UsageError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.shots import detectors
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX

HARD_TOLERANCE, GRADUAL_TOLERANCE = 1, 2  # frames
Detection = tuple[int, int, str]  # first frame touched, first frame of the new shot, kind


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
    hard_said: int = 0
    hard_true: int = 0
    gradual_right: int = 0
    gradual_true: int = 0
    gradual_false: int = 0
    gradual_typed: int = 0  # found by a boundary that says it is gradual

    def add(self, detections: Sequence[Detection], truth: Truth) -> None:
        """Counts one file's boundaries."""
        reach = [(a - GRADUAL_TOLERANCE, b + GRADUAL_TOLERANCE) for a, b in truth.gradual]
        self.gradual_true += len(reach)
        kinds = [{kind for f, t, kind in detections if f <= b and a <= t} for a, b in reach]
        self.gradual_right += sum(bool(k) for k in kinds)
        self.gradual_typed += sum(bool(k - {"cut"}) for k in kinds)
        self.hard_true += len(truth.hard)
        left = list(truth.hard)
        for first, frame, kind in detections:
            near = [h for h in left if abs(h - frame) <= HARD_TOLERANCE]
            soft = any(first <= b and a <= frame for a, b in reach)
            excused = any(first - GRADUAL_TOLERANCE <= i <= frame + GRADUAL_TOLERANCE for i in truth.ignored)
            if kind == "cut" and near:
                left.remove(min(near, key=lambda h: abs(h - frame)))
                self.hard_right += 1
                self.hard_said += 1
            elif soft or excused:
                continue
            elif kind == "cut":
                self.hard_said += 1
            else:
                self.gradual_false += 1

    def figures(self) -> dict[str, float]:
        hard = _ratio(self.hard_right, self.hard_said), _ratio(self.hard_right, self.hard_true)
        gradual_said = self.gradual_right + self.gradual_false
        gradual = (
            _ratio(self.gradual_right, gradual_said),
            _ratio(self.gradual_right, self.gradual_true),
        )
        return {
            "hard_f1": _f1(*hard),
            "hard_precision": round(hard[0], 4),
            "hard_recall": round(hard[1], 4),
            "gradual_f1": _f1(*gradual),
            "gradual_precision": round(gradual[0], 4),
            "gradual_recall": round(gradual[1], 4),
            "gradual_typed": round(_ratio(self.gradual_typed, self.gradual_right), 4),
            "gradual_false": self.gradual_false,
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


def _f1(precision: float, recall: float) -> float:
    return round(2 * precision * recall / (precision + recall), 4) if precision + recall else 0.0


def bench_shots(media: str, truth_file: str) -> dict[str, Any]:
    """`ratio`: hard-cut F1 of framemill over that of the best other detector at its defaults."""
    truths = [t for t in read_truth(Path(truth_file)) if (Path(media) / t.file).exists()]
    if not truths:
        raise UsageError(
            f"no file of {truth_file} lies in {media}", expected="the folder the truth file speaks of"
        )
    details: dict[str, Any] = {"files": len(truths)}
    with Sandbox() as box:
        details["framemill"] = _score(truths, lambda file: _framemill(box, Path(media) / file))
        for name in detectors.SCENEDETECT:
            detect = partial(_scenedetect, name)
            details[name] = _attempt(name, truths, lambda file, detect=detect: detect(Path(media) / file))  # type: ignore[misc]
        with contextlib.ExitStack() as stack:
            net: list[detectors.TransNet] = []  # started with the first file

            def transnet(file: str) -> list[Detection]:
                if not net:
                    net.append(stack.enter_context(detectors.TransNet(box.limits.deadline_s)))
                return _transnet(net[0], box, Path(media) / file)

            details["transnetv2"] = _attempt("transnetv2", truths, transnet)
    others = [n for n in detectors.NAMES if "hard_f1" in details.get(n, {})]
    best = max(others, key=lambda n: details[n]["hard_f1"], default=None)
    ratio = details["framemill"]["hard_f1"] / max(details[best]["hard_f1"], 1e-9) if best else None
    return {
        "name": "shots",
        "ratio": ratio and round(ratio, 4),
        "against": best and f"{best} at its defaults",
        "details": details,
    }


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


def _score(truths: Sequence[Truth], detect: Callable[[str], Sequence[Detection]]) -> dict[str, Any]:
    score = Score()
    for truth in truths:
        score.add(detect(truth.file), truth)
    return score.figures()


def _attempt(
    name: str, truths: Sequence[Truth], detect: Callable[[str], Sequence[Detection]]
) -> dict[str, Any]:
    """The score, or why there is none: a detector that is not installed, or that died."""
    try:
        detectors.check(name)
        return _score(truths, detect)
    except ModelError as error:
        return {"skipped": str(error)}


def _framemill(box: Sandbox, path: Path) -> list[Detection]:
    clips = sorted(box.analyze(path, AnalyzeConfig()).clips, key=lambda c: int(c["start_frame"]))
    pairs = [(a, b) for a, b in itertools.pairwise(clips) if b["boundary_in"] != "stride"]
    return [(a["end_frame"], b["start_frame"], b["boundary_in"]) for a, b in pairs]


def _scenedetect(name: str, path: Path) -> list[Detection]:
    """As its users call it: its own reader, its own defaults."""
    import scenedetect

    scenes = scenedetect.detect(str(path), getattr(scenedetect, f"{name.capitalize()}Detector")())
    return [(start.frame_num, start.frame_num, "cut") for start, _ in scenes[1:]]


def _transnet(net: detectors.TransNet, box: Sandbox, path: Path) -> list[Detection]:
    frames = box.thumbnails(path, width_px=WIDTH_PX, height_px=HEIGHT_PX)
    return [(b.first, b.frame, b.kind) for b in net.boundaries(frames)]
