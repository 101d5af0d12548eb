"""A finished run → the weights that ship: `python -m training.bundle RUN [FOLDER]`.

In: a run folder. Out: FOLDER/builtin.safetensors (averaged weights, float16) and builtin.json with the recipe
and the measured curve of this run and of the one it started from. FOLDER is training/weights unless given.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from training.checkpoint import BUILTIN_FOLDER, load_trained, save_bundle

CURVE_STEPS = 100  # one point of the curve


def bundle(run: Path, folder: Path = BUILTIN_FOLDER) -> None:
    """Writes the newest checkpoint of `run` to `folder`."""
    trained = load_trained(str(run))
    config = json.loads((run / "config.json").read_text())["train"]
    history = {"train": config, "curve": curve(run / "metrics.jsonl", trained.step)}
    save_bundle(trained, folder, history | {"parent": _parent(config["init"])})


def curve(metrics: Path, last_step: int) -> list[dict[str, float]]:
    """Mean training loss, seconds and latest held-out loss of every hundred steps."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
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
    folder = init.removeprefix("builtin:")
    if not init.startswith("builtin:") or not folder:
        return None
    made: dict[str, Any] = json.loads((Path(folder) / "builtin.json").read_text())["training"]
    return made


if __name__ == "__main__":
    bundle(Path(sys.argv[1]), *(Path(folder) for folder in sys.argv[2:3]))
