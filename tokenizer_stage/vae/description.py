"""What planning needs of a VAE: its weights' hash, what it takes and gives, what a worker with it uses;
whether a config asks for what it takes; and what latents.toml says of it.

In: a name (tokenizer_stage/vae/names.py). Out: a `VaeDescription`. Of the built-in VAE, and of one of your
own training, it is read from their folder without torch; one of diffusers says it when it is loaded, and is
measured then, so that one that cannot be used stops a run before work begins.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load

from pipeline import bundle
from pipeline.bundle import parse_name
from pipeline.config import EncodeConfig
from pipeline.corpus.shards import LatentsInfo, VaeRecord
from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from tokenizer_stage.vae.geometry import VaeShape, causal_shape
from tokenizer_stage.vae.statistics import Statistics

BUILTIN_FOLDER = Path(__file__).parents[1] / "weights"
MADE_BY = "framemill vae train --out DIR"
FORMS = ("builtin:", "builtin:<folder>", "diffusers:<repo>")
STRIDE_T = 4  # frames a latent of the built-in VAE, after the first
STRIDE_S = 8  # pixels a latent, each side
_MEASURED: dict[Any, dict[str, bool | float]] = {}  # of a VAE's weights and how it runs: once a process
BUILTIN_RESOURCES = Resources(cpus=1, memory_gb=3)
BUILTIN_LICENCE = "apache-2.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeDescription:
    """`statistics` are those of its latents over its training data, None where its authors state none;
    `resources` are of a worker that encodes with it, GPUs where there are any; `measured` is what
    tokenizer_stage/vae/measure.py saw of it, by name, without what was not to be had."""

    kind: str
    licence: str
    weights_sha256: str
    shape: VaeShape
    statistics: Statistics | None
    resources: Resources
    measured: dict[str, bool | float] = field(default_factory=dict)


def builtin_shape(channels: int) -> VaeShape:
    return causal_shape(channels=channels, stride_t=STRIDE_T, stride_s=STRIDE_S)


def require_plain(dtype: str, *, tiles: bool) -> None:
    """ModelError for what the built-in VAE neither needs nor has: narrow numbers, tiles."""
    if dtype != "float32" or tiles:
        raise ModelError(
            f"the built-in VAE in {dtype}{' and in tiles' * tiles}",
            expected="float32 and whole frames",
            fix="--set encode.dtype=float32 --set encode.tiles=false",
        )


def builtin_folder(argument: str) -> Path:
    """Where the VAE `builtin:ARGUMENT` lies."""
    return Path(argument) if argument else BUILTIN_FOLDER


def usable(vae: VaeDescription, config: EncodeConfig) -> VaeDescription:
    """The VAE, as this config runs it.

    Raises:
        ModelError: it takes no clip as short or as small as the config's limits, or has no variance to store.
    """
    shape = vae.shape
    sides = shape.sides.on_grid(shape.stride_s * config.patch)
    least = {"max_frames": shape.frames.first, "area_px": sides.width.first * sides.height.first}
    for name, lowest in least.items():
        if (value := getattr(config, name)) < lowest:
            raise ModelError(
                f"encode.{name}={value} is less than {config.vae} ({vae.kind}) takes",
                expected=f"at least {lowest}",
                fix=f"--set encode.{name}={lowest}",
            )
    if config.moments and not vae.measured.get("variance"):
        raise ModelError(f"{config.vae} ({vae.kind}) gives no variance", fix="--set encode.moments=false")
    known = vae.statistics.steps(shape.channels) if vae.statistics else 0
    if known and shape.latent(shape.frames.at_most(config.max_frames), 0, 0)[1] > known:
        raise ModelError(
            f"{config.vae} ({vae.kind}) has statistics of {known} latent steps",
            expected=f"encode.max_frames up to {shape.frames_of(known)}",
            fix=f"--set encode.max_frames={shape.frames_of(known)}",
        )
    if config.device == "cpu":
        return replace(vae, resources=replace(vae.resources, gpus=0.0))
    return vae


def device_of(config: EncodeConfig, given: Resources) -> str:
    """The class of the device that a worker with these resources encodes on.

    Raises:
        ModelError: it should be a GPU, and the stage is given none.
    """
    if config.device == "cuda" and not given.gpus:
        raise ModelError(
            "encode.device=cuda, and the stage is given no GPU",
            fix="--set resources.encode.gpus=1, or --set encode.device=cpu",
        )
    return config.device or ("cuda" if given.gpus else "cpu")


def info_of(
    vae: VaeDescription, config: EncodeConfig, device: str, statistics: Statistics | None
) -> LatentsInfo:
    """latents.toml of a set. `statistics` are the VAE's, or of the set; None of an empty set."""
    shape, channels = vae.shape, vae.shape.channels
    values = statistics or Statistics(mean=(0.0,) * channels, std=(1.0,) * channels)
    return LatentsInfo(
        vae=config.vae,
        vae_sha256=vae.weights_sha256,
        channels=channels,
        stride_t=shape.stride_t,
        stride_s=shape.stride_s,
        mean=values.mean,
        std=values.std,
        fps=config.fps,
        max_frames=config.max_frames,
        area_px=config.area_px,
        model=VaeRecord(
            kind=vae.kind,
            licence=vae.licence,
            statistics="published" if vae.statistics else "measured" if statistics else "unknown",
            frames_first=shape.frames.first,
            frames_step=shape.frames.step,
            patch=config.patch,
            device=device,
            dtype=config.dtype,
            tiles=config.tiles,
            moments=config.moments,
            measured=vae.measured,
        ),
    )


def describe_vae(name: str, *, dtype: str = "float32", tiles: bool = False) -> VaeDescription:
    """The description of the VAE of that name, run in these numbers, in its own tiles or not.

    Raises:
        ModelError: there is none, its files are missing or damaged, or it does not keep what it says.
    """
    scheme, argument = parse_name(name, "VAE", FORMS)
    if scheme == "builtin":
        require_plain(dtype, tiles=tiles)
        return _describe_builtin(builtin_folder(argument))
    from tokenizer_stage.vae.diffusers import load_diffusers
    from tokenizer_stage.vae.measure import measure_vae

    vae = load_diffusers(argument)
    if (of := (vae.weights_sha256, vae.shape, dtype, tiles)) not in _MEASURED:
        _MEASURED[of] = measure_vae(vae, dtype=dtype, tiles=tiles).known()
    return VaeDescription(
        kind=vae.kind,
        licence=vae.licence,
        weights_sha256=vae.weights_sha256,
        shape=vae.shape,
        statistics=vae.statistics,
        resources=vae.resources,
        measured=_MEASURED[of],
    )


def _describe_builtin(folder: Path) -> VaeDescription:
    saved = bundle.read(folder, MADE_BY)
    with saved.fitting():
        tensors = load(saved.weights)
        return VaeDescription(
            kind="builtin",
            licence=BUILTIN_LICENCE,
            weights_sha256=saved.weights_sha256,
            shape=builtin_shape(int(saved.description["spec"]["channels"])),
            statistics=Statistics(mean=tuple(tensors["mean"].tolist()), std=tuple(tensors["std"].tolist())),
            resources=BUILTIN_RESOURCES,
            measured={"causal": True, "image_is_first_latent": True, "variance": False},  # by its making
        )
