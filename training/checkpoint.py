"""Checkpoints: a folder that appears at once and whole; and the bundled weights.

In: the model, its average, the optimiser's state and what it was trained on. Out:
RUN/checkpoints/step-00001000/{model,ema,optimizer}.safetensors + state.json, written under another name and
renamed when complete. The same loader reads `builtin:` (training/weights). Only safetensors, never pickles.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file
from torch import nn

from pipeline.config import build
from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import FormatError, ModelError
from training.config import FlowConfig, ModelConfig
from training.ema import Ema
from training.model import VideoDiT
from training.optim import Optimizers
from training.text import TextEncoder

FORMAT_VERSION = 1
BUILTIN_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a model was trained on; latents or texts of another origin would be noise to it."""

    latents: LatentsInfo
    text_encoder: str
    text_sha256: str

    def check(self, latents: LatentsInfo, text: TextEncoder, where: str) -> None:
        """Refuses latents of another VAE or format, and another text encoder."""
        for name in ("format_version", "vae", "vae_sha256", "channels", "mean", "std"):
            mine, theirs = getattr(self.latents, name), getattr(latents, name)
            if mine != theirs:
                raise FormatError(
                    f"the latents have {name} {theirs}",
                    expected=f"{mine}, as {where} was trained on",
                    fix="framemill encode with that VAE, or train from scratch with --init ''",
                )
        self.check_text(text, where)

    def check_text(self, text: TextEncoder, where: str) -> None:
        if (text.name, text.sha256) != (self.text_encoder, self.text_sha256):
            raise FormatError(
                f"the text encoder is {text.name} {text.sha256[:12]}",
                expected=f"{self.text_encoder} {self.text_sha256[:12]}, as {where} was trained with",
                fix="restore those weights, or train from scratch with --init ''",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A model to sample from: averaged weights, float32, and where they come from."""

    model: VideoDiT
    flow: FlowConfig
    lineage: Lineage
    step: int
    where: str


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


def lineage_to_json(lineage: Lineage) -> dict[str, Any]:
    return dataclasses.asdict(lineage)


def load_trained(name: str) -> Trained:
    """`builtin:`, `builtin:<folder>` or a run folder (its newest checkpoint): the averaged weights."""
    scheme, colon, rest = name.partition(":")
    if colon and scheme == "builtin":
        return _load_bundle(Path(rest) if rest else BUILTIN_FOLDER)
    folders = finished(Path(name))
    if not folders:
        raise ModelError(
            f"no checkpoint in {name}",
            expected="builtin: or a run folder",
            fix="framemill train CORPUS --out RUN",
        )
    weights = (folders[-1] / "ema.safetensors").read_bytes()
    return _build(read_state(folders[-1]), weights, str(folders[-1]))


def curve_of(name: str) -> list[dict[str, Any]]:
    """How the training of a trained model went, a line a logged step: a run's metrics, or the curve kept
    with a bundle, after that of the bundle it started from; the step counts on, and `resumed` marks where."""
    scheme, colon, rest = name.partition(":")
    if not (colon and scheme == "builtin"):
        metrics = Path(name) / "metrics.jsonl"
        return [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
    description = json.loads(((Path(rest) if rest else BUILTIN_FOLDER) / "builtin.json").read_text())
    points: list[dict[str, Any]] = []
    for made in _ancestry(description["training"]):
        before = points[-1]["step"] if points else 0
        fresh = [point | {"step": before + point["step"]} for point in made["curve"]]
        points += [fresh[0] | {"resumed": True}, *fresh[1:]] if points else fresh
    return points


def _ancestry(made: dict[str, Any]) -> list[dict[str, Any]]:
    """The trainings that led to a bundle, the first one first."""
    parent = made.get("parent")
    return [*(_ancestry(parent) if parent else []), made]


def _load_bundle(folder: Path) -> Trained:
    try:
        description = json.loads((folder / "builtin.json").read_text())
        weights = (folder / "builtin.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{error.filename} is missing", fix="framemill train CORPUS --out RUN") from error
    if hashlib.sha256(weights).hexdigest() != description["weights_sha256"]:
        raise ModelError(
            f"{folder / 'builtin.safetensors'} does not match builtin.json",
            expected=f"sha256 {description['weights_sha256']}",
            fix="restore the two files from one training run",
        )
    return _build(description, weights, str(folder))


def _build(description: dict[str, Any], weights: bytes, where: str) -> Trained:
    model = VideoDiT(build(ModelConfig, description["model"]))
    try:
        model.load_state_dict({name: value.float() for name, value in load(weights).items()})
    except (SafetensorError, RuntimeError) as error:
        raise ModelError(f"the weights in {where} do not fit their config: {error}") from error
    return Trained(
        model=model.eval().requires_grad_(False),
        flow=build(FlowConfig, description["flow"]),
        lineage=build(Lineage, description["lineage"]),
        step=description["step"],
        where=where,
    )


def save_bundle(trained: Trained, folder: Path, training: dict[str, Any]) -> None:
    """Writes a model as shipped: float16 weights, then the JSON that names their hash and their making."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({name: value.half().contiguous() for name, value in trained.model.state_dict().items()})
    description = {
        "format_version": FORMAT_VERSION,
        "step": trained.step,
        "model": dataclasses.asdict(trained.model.config),
        "flow": dataclasses.asdict(trained.flow),
        "lineage": lineage_to_json(trained.lineage),
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "training": training,
    }
    for name, data in (
        ("builtin.safetensors", weights),
        ("builtin.json", (json.dumps(description, indent=1) + "\n").encode()),
    ):
        temporary = folder / f".{name}.tmp"
        temporary.write_bytes(data)
        temporary.replace(folder / name)
