"""A trained model to sample from: `builtin:`, `builtin:<folder>`, or a run's newest checkpoint.

In: a name. Out: averaged weights and where they come from, checked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load

from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import FormatError, ModelError
from pipeline.settings import build
from training.config import FlowConfig, ModelConfig
from training.model import VideoDiT
from training.run.checkpoint import finished, read_state
from training.text import TextEncoder

BUILTIN_FOLDER = Path(__file__).parents[1] / "weights"


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
