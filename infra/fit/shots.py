"""Fits the shot models and holds them to those in the code.

    python -m infra.fit.shots WORK --media DIR           print the weights and the figures of both
    python -m infra.fit.shots WORK --media DIR --check   exit 1 unless the code has these very weights
    python -m infra.fit.shots WORK --media DIR --write   write them to pipeline/shots/weights.py

In: real footage (files.toml), a work folder: montages, toy worlds and descriptors are made there once and
used again (half an hour on two cores, then two minutes). Out: one JSON object: `weights` and, of every
set, the figures of the code's weights (`code`) and of the fitted ones (`fitted`). Never: held-out montages
or worlds in the fit.
"""

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from infra.fit.described import Described, read_described
from infra.fit.labelled import CUT, DISSOLVE, WIPE, Table, cut_table, span_table
from infra.fit.logistic import fit_logistic
from infra.fit.montages import write
from pipeline.bench.shots import Score
from pipeline.config import ShotConfig
from pipeline.shots import gradual, weights
from pipeline.shots.boundaries import find_boundaries
from pipeline.shots.logistic import probability
from pipeline.shots.weights import MODELS, Models
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

FIT_WORLDS = (31001, 31002, 31003, 31004, 31005, 31006, 31007, 31008)  # seeds
HELD_OUT_WORLDS = (88001, 88002, 88003, 515253, 60601, 60602, 60603)
WORLD_VIDEOS = 60
# L2. Of 0.01 to 3 those of the least log loss in five folds of the fit's own videos: cuts 15.2 (16.9 at
# 0.03, 17.2 at 0.3), dissolves and wipes together 702 (708 at 0.3, 711 at 3).
CUT_PENALTY, SPAN_PENALTY = 0.1, 1.0


def fit(montages: Sequence[Described], worlds: Sequence[Described]) -> Models:
    """The models of these videos. Montages and toy worlds count by their candidates."""
    videos = [*montages, *worlds]
    known = cut_table(videos).known()
    cut = fit_logistic(known.evidence, known.label == CUT, np.ones(len(known.label)), CUT_PENALTY)
    models = replace(MODELS, cut=cut)
    spans = span_table(videos, models)
    return fit_spans(spans, models)


def fit_spans(spans: Table, models: Models) -> Models:
    """The models with dissolves, wipes and the screen fitted on `spans`."""
    known = spans.known()
    once = np.ones(len(known.label))
    dissolve, wipe = (
        fit_logistic(known.evidence, known.label == kind, once, SPAN_PENALTY) for kind in (DISSOLVE, WIPE)
    )
    best = np.maximum(probability(spans.evidence, dissolve), probability(spans.evidence, wipe))
    likely = best >= ShotConfig().gradual_probability
    screen = fit_logistic(screened(spans.evidence), likely, np.ones(len(likely)), SPAN_PENALTY)
    return replace(models, dissolve=dissolve, wipe=wipe, screen=screen)


def screened(evidence: np.ndarray) -> np.ndarray:
    """The part of EVIDENCE that is known before the costly look: CHANGES [K]."""
    changed = np.empty(len(evidence), gradual.CHANGES)
    for name in gradual.CHANGES.names or ():
        changed[name] = evidence[name]
    return changed


def figures(videos: Sequence[Described], models: Models) -> dict[str, float]:
    """Scores of what `models` find."""
    score = Score()
    for video in videos:
        boundaries = find_boundaries(video.frames, video.fps, ShotConfig(max_shot_s=0), models=models)
        score.add([(b.first, b.frame, b.kind) for b in boundaries], video.truth)
    return score.figures()


def work_videos(part: str, work: Path, media: Path, workers: int) -> list[Described]:
    """The montages of a part, made if they are not there."""
    folder = work / part
    if not (folder / "cuts.json").exists():
        write(part, folder, media, work / "footage", workers=workers)
    return read_described(folder, folder / "cuts.json", work / "descriptors" / part)


def work_worlds(seeds: Sequence[int], work: Path, workers: int) -> list[Described]:
    """The videos of these toy worlds, made if they are not there."""
    videos = []
    for seed in seeds:
        folder = work / "worlds" / str(seed)
        if not (folder / "truth.jsonl").exists():
            render_corpus(folder, ToyWorldConfig(videos=WORLD_VIDEOS, images=0, seed=seed), workers=workers)
        videos += read_described(folder, folder / "truth.jsonl", work / "descriptors" / str(seed))
    return videos


def source(models: Models) -> str:
    """pipeline/shots/weights.py with these weights in it."""
    text = Path(weights.__file__).read_text()
    lines = ["MODELS = Models("]
    for name, named in asdict(models).items():
        lines += [f"    {name}={{", *(f'        "{key}": {value},' for key, value in named.items()), "    },"]
    return text[: text.index("MODELS = ")] + "\n".join([*lines, ")"]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("work", type=Path)
    parser.add_argument("--media", type=Path, default=Path(os.environ.get("FRAMEMILL_MEDIA", "media")))
    parser.add_argument("--truth", type=Path, help="cuts.json of other files in --media: their figures too")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    montages = work_videos("fit", args.work, args.media, args.workers)
    worlds = work_worlds(FIT_WORLDS, args.work, args.workers)
    fitted = fit(montages, worlds)
    if args.check:
        sys.exit(0 if fitted == MODELS else f"the fit gives {json.dumps(asdict(fitted))}")
    if args.write:
        Path(weights.__file__).write_text(source(fitted))
    sets = {"fit montages": montages, "fit worlds": worlds}
    sets["held-out montages"] = work_videos("held-out", args.work, args.media, args.workers)
    sets |= {f"world {seed}": work_worlds([seed], args.work, args.workers) for seed in HELD_OUT_WORLDS}
    if args.truth:
        sets[args.truth.name] = read_described(args.media, args.truth, args.work / "descriptors" / "other")
    report: Mapping[str, object] = {
        name: {"code": figures(videos, MODELS), "fitted": figures(videos, fitted)}
        for name, videos in sets.items()
    }
    print(json.dumps({"weights": asdict(fitted), "figures": report}, indent=1))


if __name__ == "__main__":
    main()
