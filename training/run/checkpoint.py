"""Checkpoints: a folder that appears at once and whole.

In: the model, its average, the optimiser's state and what it was trained on. Out:
RUN/checkpoints/step-00001000/{model,ema,optimizer}.safetensors + state.json, written under another name and
renamed when complete. Only safetensors, never pickles; never weights that are not finite.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline import bundle
from pipeline.errors import FormatError, ModelError
from pipeline.storage import storage_errors
from training.ema import Ema
from training.optim import Optimizers

FORMAT_VERSION = 1
TEMP_SUFFIX = ".tmp"
EMA_NAME = "ema.safetensors"


def save_checkpoint(
    run: Path,
    step: int,
    model: nn.Module,
    ema: Ema,
    optimizers: Optimizers,
    state: dict[str, Any],
    keep: int,
    *,
    write: Callable[[dict[str, Tensor], Path], None] = save_file,
) -> Path:
    """Commits step `step`, then forgets all but the newest `keep`. ModelError, with nothing written and
    nothing forgotten, for weights that are not finite; StorageError for a disk that is full."""
    tensors = {"model": model.state_dict(), "ema": ema.model.state_dict(), "optimizer": optimizers.state()}
    bundle.refuse_non_finite(
        {
            f"{file}/{name}": bool(value.isfinite().all())
            for file, values in tensors.items()
            for name, value in values.items()
        },
        f"the checkpoint of step {step}",
    )
    final = run / "checkpoints" / f"step-{step:08d}"
    building = _hidden(final)
    with storage_errors("write", str(final)):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        for file, values in tensors.items():
            write(values, building / f"{file}.safetensors")
        (building / "state.json").write_text(
            json.dumps({"format_version": FORMAT_VERSION, "step": step, **state})
        )
        for path in building.iterdir():
            with open(path, "rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(final, ignore_errors=True)
        building.rename(final)
    for old in finished(run)[:-keep]:
        shutil.rmtree(old.rename(_hidden(old)))  # half of a checkpoint never bears its name
    return final


def _hidden(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{TEMP_SUFFIX}")


def finished(run: Path) -> list[Path]:
    """The run's whole checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def read_state(folder: Path) -> dict[str, Any]:
    """state.json, refused when it is of another format."""
    with whole(folder):
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    if state.get("format_version") != FORMAT_VERSION:
        raise FormatError(
            f"{folder} has checkpoint format {state.get('format_version')}",
            expected=f"format {FORMAT_VERSION}",
        )
    return state


def restore(folder: Path, model: nn.Module, ema: Ema, optimizers: Optimizers) -> None:
    """Puts a checkpoint's tensors into place; ModelError when they are damaged or not finite."""
    with whole(folder):
        model.load_state_dict(_finite(folder / "model.safetensors"))
        ema.model.load_state_dict(_finite(folder / EMA_NAME))
        optimizers.load_state(_finite(folder / "optimizer.safetensors"))


def _finite(path: Path) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = load_file(path)
    bundle.require_finite({name: bool(value.isfinite().all()) for name, value in tensors.items()}, path)
    return tensors


def sweep(run: Path) -> None:
    """Deletes what a stopped save or rotation left unfinished."""
    for left in (run / "checkpoints").glob(f".step-*{TEMP_SUFFIX}"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def whole(folder: Path) -> Iterator[None]:
    """ModelError for a checkpoint that is damaged or lacks a file."""
    try:
        yield
    except (OSError, *bundle.MISFITS) as error:
        raise ModelError(
            f"the checkpoint {folder} is damaged: {bundle.reason_of(error)}",
            fix=f"delete {folder}, and the run goes on from the checkpoint before",
        ) from error
