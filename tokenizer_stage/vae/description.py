"""What planning needs of a VAE: its weights' hash, its strides and channels, what a worker with it uses.

In: a name (tokenizer_stage/vae/names.py). Out: a `VaeDescription`. Of the built-in VAE, and of one of your
own training, it is read from their folder without torch; one of diffusers says it only when it is loaded.
"""

from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import load

from pipeline import bundle
from pipeline.bundle import parse_name
from pipeline.engine.stage import Resources

BUILTIN_FOLDER = Path(__file__).parents[1] / "weights"
MADE_BY = "framemill vae train --out DIR"
FORMS = ("builtin:", "builtin:<folder>", "diffusers:<repo>")
STRIDE_T = 4  # frames a latent of the built-in VAE, after the first
STRIDE_S = 8  # pixels a latent, each side
BUILTIN_RESOURCES = Resources(cpus=1, memory_gb=3)


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeDescription:
    """`mean` and `std` are those of its latents' channels over its training data; `resources` are of a worker
    that encodes with it, GPUs where there are any."""

    weights_sha256: str
    channels: int
    stride_t: int
    stride_s: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resources: Resources


def builtin_folder(argument: str) -> Path:
    """Where the VAE `builtin:ARGUMENT` lies."""
    return Path(argument) if argument else BUILTIN_FOLDER


def describe_vae(name: str) -> VaeDescription:
    """The description of the VAE of that name.

    Raises:
        ModelError: there is none, or its files are missing or damaged.
    """
    scheme, argument = parse_name(name, "VAE", FORMS)
    if scheme == "builtin":
        return _describe_builtin(builtin_folder(argument))
    from tokenizer_stage.vae.diffusers import load_diffusers

    vae = load_diffusers(argument)
    return VaeDescription(
        weights_sha256=vae.weights_sha256,
        channels=vae.channels,
        stride_t=vae.stride_t,
        stride_s=vae.stride_s,
        mean=tuple(vae.mean.tolist()),
        std=tuple(vae.std.tolist()),
        resources=vae.resources,
    )


def _describe_builtin(folder: Path) -> VaeDescription:
    saved = bundle.read(folder, MADE_BY)
    with saved.fitting():
        tensors = load(saved.weights)
        return VaeDescription(
            weights_sha256=saved.weights_sha256,
            channels=int(saved.description["spec"]["channels"]),
            stride_t=STRIDE_T,
            stride_s=STRIDE_S,
            mean=tuple(tensors["mean"].tolist()),
            std=tuple(tensors["std"].tolist()),
            resources=BUILTIN_RESOURCES,
        )
