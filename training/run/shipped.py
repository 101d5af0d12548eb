"""A finished run → the weights that ship: `python -m training.run.shipped RUN [FOLDER]`.

In: a run folder. Out: FOLDER/builtin.safetensors (averaged weights, float16) and builtin.json with the recipe
and the measured curve of this run and of the one it started from. FOLDER is training/weights unless given.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import save

from pipeline import bundle, runlog
from training.run.trained import BUILTIN_FOLDER, MADE_BY, Trained, bundle_folder, load_trained

CURVE_STEPS = 100  # one point of the curve


def ship(run: Path, folder: Path = BUILTIN_FOLDER) -> None:
    """Writes the newest checkpoint of `run` to `folder`."""
    trained = load_trained(str(run))
    config = json.loads((run / "config.json").read_text())["train"]
    history = {"train": config, "curve": curve(run / runlog.METRICS_NAME, trained.step)}
    save_bundle(trained, folder, history | {"parent": _parent(config["init"])})


def curve(metrics: Path, last_step: int) -> list[dict[str, float]]:
    """Mean training loss, seconds and latest held-out loss of every hundred steps."""
    lines = runlog.read(metrics)
    points = []
    for start in range(0, last_step, CURVE_STEPS):
        chunk = [line for line in lines if start < line["step"] <= min(start + CURVE_STEPS, last_step)]
        point = {
            "step": chunk[-1]["step"],
            "loss": round(statistics.fmean(line["loss"] for line in chunk), 4),
            "seconds": round(sum(line["seconds"] for line in chunk), 1),
        }
        measured = [line["val_loss"] for line in chunk if "val_loss" in line]
        points.append(point | ({"val_loss": round(measured[-1], 4)} if measured else {}))
    return points


def _parent(init: str) -> dict[str, Any] | None:
    """The recorded making of the bundle that a run started from."""
    folder = bundle_folder(init)
    if folder is None or folder == BUILTIN_FOLDER:
        return None
    training: dict[str, Any] = bundle.read_description(folder, MADE_BY)["training"]
    return training


def curve_of(name: str) -> list[dict[str, Any]]:
    """How the training of a trained model went, a line a logged step: a run's metrics, or the curve kept
    with a bundle, after that of the bundle it started from; the step counts on, and `resumed` marks where."""
    folder = bundle_folder(name)
    if folder is None:
        return runlog.read(Path(name) / runlog.METRICS_NAME)
    description = bundle.read_description(folder, MADE_BY)
    points: list[dict[str, Any]] = []
    for training in _ancestry(description["training"]):
        before = points[-1]["step"] if points else 0
        fresh = [point | {"step": before + point["step"]} for point in training["curve"]]
        points += [fresh[0] | {"resumed": True}, *fresh[1:]] if points else fresh
    return points


def _ancestry(training: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainings that led to a bundle, the first one first."""
    parent = training.get("parent")
    return [*(_ancestry(parent) if parent else []), training]


def save_bundle(trained: Trained, folder: Path, training: dict[str, Any]) -> None:
    """Writes a model as shipped: float16 weights, then the JSON that names their hash and their making."""
    state = {name: value.half().contiguous() for name, value in trained.model.state_dict().items()}
    bundle.refuse_non_finite({name: bool(value.isfinite().all()) for name, value in state.items()}, folder)
    description = {
        "step": trained.step,
        "model": dataclasses.asdict(trained.model.config),
        "flow": dataclasses.asdict(trained.flow),
        "lineage": dataclasses.asdict(trained.lineage),
        "training": training,
    }
    bundle.write(folder, save(state), {}, description)


if __name__ == "__main__":
    ship(Path(sys.argv[1]), *(Path(folder) for folder in sys.argv[2:3]))
