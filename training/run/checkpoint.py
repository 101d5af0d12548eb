"""Checkpoints: a folder that appears at once and whole; and the bundled weights.

In: the model, its average, the optimiser's state and what it was trained on. Out:
RUN/checkpoints/step-00001000/{model,ema,optimizer}.safetensors + state.json, written under another name and
renamed when complete. The same loader reads `builtin:` (training/weights). Only safetensors, never pickles.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.errors import FormatError
from training.ema import Ema
from training.optim import Optimizers

FORMAT_VERSION = 1


def save_checkpoint(
    run: Path, step: int, model: nn.Module, ema: Ema, optimizers: Optimizers, state: dict[str, Any], keep: int
) -> Path:
    """Commits step `step`, then forgets all but the newest `keep`."""
    final = run / "checkpoints" / f"step-{step:08d}"
    building = final.with_name(f".{final.name}.tmp")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    save_file(model.state_dict(), building / "model.safetensors")
    save_file(ema.model.state_dict(), building / "ema.safetensors")
    save_file(optimizers.state(), building / "optimizer.safetensors")
    (building / "state.json").write_text(
        json.dumps({"format_version": FORMAT_VERSION, "step": step, **state})
    )
    for path in building.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(final, ignore_errors=True)
    building.rename(final)
    for old in finished(run)[:-keep]:
        shutil.rmtree(old)
    return final


def finished(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def read_state(folder: Path) -> dict[str, Any]:
    """state.json, refused when it is of another format."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    if state.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{folder} has checkpoint format {state.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
        )
    return state


def restore(folder: Path, model: nn.Module, ema: Ema, optimizers: Optimizers) -> None:
    """Puts a checkpoint's tensors into place."""
    model.load_state_dict(load_file(folder / "model.safetensors"))
    ema.model.load_state_dict(load_file(folder / "ema.safetensors"))
    optimizers.load_state(load_file(folder / "optimizer.safetensors"))
