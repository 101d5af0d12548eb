"""Every knob of training and sampling, as frozen dataclasses of plain scalars; saved as RUN/config.json."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shape of a VideoDiT. `channels` and `text_dim` come from the latents and the text encoder."""

    channels: int = 16
    text_dim: int = 192
    width: int = 256
    depth: int = 6
    heads: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ConfigError(
                f"model.width {self.width} cannot be split over {self.heads} heads",
                expected="an even number of channels per head",
                fix="--set model.heads=… so that width / heads is even",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """t = sigmoid(mean + std·n), pushed towards noise by `shift`·sqrt(tokens / shift_tokens).

    Where things are and how they move is decided near t = 1: a wide distribution, so that training goes there
    often. With mean 0 and deviation 1 motion was not learned at all (infra/bench/RESULTS.md)."""

    logit_mean: float = 0.8
    logit_std: float = 1.5
    shift: float = 3.0  # much of a scene (its colours) is decided under noise that hides any one token
    shift_tokens: int = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. A step is one pack of at most `tokens_per_pack` tokens."""

    model: ModelConfig = field(default_factory=ModelConfig)
    flow: FlowConfig = field(default_factory=FlowConfig)
    text_encoder: str = "builtin:"
    init: str = ""  # "" = from scratch; "builtin:" or a run folder = start from its EMA weights
    seed: int = 0
    steps: int = 2000
    tokens_per_pack: int = 6144
    compute_dtype: str = "bfloat16"  # autocast; "float32" = none

    # optimiser
    lr: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    decay_share: float = 0.3  # the last share of the steps, over which the rate falls linearly to 0
    clip_norm: float = 1.0
    ema_sigma_rel: float = 0.10  # width of the averaged window as a share of the run (EDM2)

    # the loss of a latent channel weighs std^power: 0 = all alike, 2 = as it moves pixels (orthonormal VAE)
    channel_power: float = 0.5

    # captions: shares of the three texts (normalised over those that a clip has), and of none at all
    detailed_share: float = 0.6
    short_share: float = 0.35
    original_share: float = 0.05
    caption_dropout: float = 0.1

    # validation and checkpoints
    val_share: float = 0.03
    val_samples: int = 48
    val_every: int = 250
    checkpoint_every: int = 500
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        if self.compute_dtype not in ("bfloat16", "float32"):
            raise ConfigError(f"compute_dtype {self.compute_dtype!r}", expected="bfloat16 or float32")
        if not 0 <= self.val_share < 1 or not 0 <= self.caption_dropout <= 1:
            raise ConfigError(
                f"val_share {self.val_share}, caption_dropout {self.caption_dropout}", expected="0…1"
            )
