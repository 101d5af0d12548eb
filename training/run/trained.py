"""A trained model to sample from: `builtin:`, `builtin:<folder>`, or a run's newest checkpoint.

In: a name. Out: averaged weights and where they come from, checked.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load

from pipeline import bundle
from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import FormatError, ModelError, UsageError
from pipeline.settings import build
from training.config import FlowConfig, ModelConfig
from training.model import VideoDiT
from training.run.checkpoint import EMA_NAME, finished, read_state, whole
from training.text import TextEncoder

BUILTIN_FOLDER = Path(__file__).parents[1] / "weights"
MADE_BY = "framemill train CORPUS --out RUN, then python -m training.run.shipped RUN DIR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """What a model was trained on; latents or texts of another origin would be noise to it."""

    latents: LatentsInfo
    text_encoder: str
    text_sha256: str
    set_sha256: str = ""  # of the samples and their split; of older runs it is not known

    def check_set(self, other: str, where: str) -> None:
        """Refuses to go on with other samples: another plan, and held-out clips that were trained on."""
        if self.set_sha256 and self.set_sha256 != other:
            raise UsageError(
                f"the latent set is not the one that {where} was begun with",
                expected="the same samples: clips were encoded, taken down or judged otherwise since",
                fix="a new --out with --init of this run, or --changed-set to go on all the same",
            )

    def check(self, latents: LatentsInfo, text: TextEncoder, where: str) -> None:
        """Refuses latents of another VAE (other weights, wherever they lie) or format, and another text
        encoder."""
        for name in ("format_version", "vae_sha256", "channels", "mean", "std"):
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
    """`builtin:`, `builtin:<folder>` or a run folder (its newest checkpoint): the averaged weights.

    Raises:
        ModelError: there are none, a file of them is missing or damaged, or one of them is not finite.
    """
    folder = bundle_folder(name)
    if folder is not None:
        saved = bundle.read(folder, MADE_BY)
        with saved.fitting():
            return _build(saved.description, saved.weights, str(folder), bundle.WEIGHTS_NAME)
    folders = finished(Path(name))
    if not folders:
        raise ModelError(
            f"no checkpoint in {name}",
            expected="builtin: or a run folder",
            fix="framemill train CORPUS --out RUN",
        )
    with whole(folders[-1]):
        weights = (folders[-1] / EMA_NAME).read_bytes()
        return _build(read_state(folders[-1]), weights, str(folders[-1]), EMA_NAME)


def bundle_folder(name: str) -> Path | None:
    """The folder of `builtin:` or `builtin:<folder>`; None for the name of a run folder."""
    if not name.startswith("builtin:"):
        return None
    return Path(name.removeprefix("builtin:") or BUILTIN_FOLDER)


def _build(description: dict[str, Any], weights: bytes, where: str, file: str) -> Trained:
    model = VideoDiT(build(ModelConfig, description["model"]))
    tensors = {name: value.float() for name, value in load(weights).items()}
    bundle.require_finite({n: bool(v.isfinite().all()) for n, v in tensors.items()}, f"{where}/{file}")
    model.load_state_dict(tensors)
    return Trained(
        model=model.eval().requires_grad_(False),
        flow=build(FlowConfig, description["flow"]),
        lineage=build(Lineage, description["lineage"]),
        step=description["step"],
        where=where,
    )
