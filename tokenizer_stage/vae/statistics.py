"""Mean and deviation of a VAE's latents, channel by channel: as published with it, or measured over a set.

In: what a VAE's config and buffers say; latents. Out: `Statistics`, or None where nothing is said: 0 and 1
are never assumed, since latents normalised with them look sound and train badly. Numbers only: no torch.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ModelError

ROUNDING = 1e-12  # of a sum of squares in float64


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A normal latent is (raw - mean) / std. One value a channel; of a VAE whose authors normalise every
    latent step by its own, the steps of the first channel, then those of the second, and so on."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ModelError("statistics of latents", expected="as many deviations as means, all above 0")

    def steps(self, channels: int) -> int:
        """For how many latent steps there are values; 0 where they are of every step."""
        steps = len(self.mean) // channels
        return 0 if steps == 1 else steps


def published(
    channels: int,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    scale: float | None,
    shift: float | None,
) -> Statistics | None:
    """What a model says of its latents: means and deviations, which its pipelines divide by the scale, or one
    shift and scale for all channels. None where it says nothing: neither, or the placeholders 0 and 1.

    Raises:
        ModelError: there are values, and not as many as channels or a multiple of them.
    """
    factor = float(scale or 1.0)
    if mean is None or std is None:
        mean, std = [float(shift or 0.0)] * channels, [1.0] * channels
    if len(mean) % channels or len(mean) != len(std):
        raise ModelError(
            f"{len(mean)} means and {len(std)} deviations of latents",
            expected=f"{channels}, or so many a step",
        )
    if factor == 1.0 and not any(mean) and all(value == 1.0 for value in std):
        return None
    return Statistics(mean=tuple(map(float, mean)), std=tuple(float(value) / factor for value in std))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelSums:
    """What the statistics of many latents are made of; the same for the same latents in the same order."""

    count: int  # of values in each channel
    total: tuple[float, ...]
    square: tuple[float, ...]

    @classmethod
    def of(cls, latents: Iterable[np.ndarray]) -> "ChannelSums | None":
        """Of latents `[C, T, H, W]`; None of none."""
        sums: ChannelSums | None = None
        for latent in latents:
            values = latent.reshape(len(latent), -1).astype(np.float64)  # [C, N]
            one = cls(
                count=values.shape[1],
                total=tuple(values.sum(axis=1).tolist()),
                square=tuple(np.square(values).sum(axis=1).tolist()),
            )
            sums = one if sums is None else sums.plus(one)
        return sums

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ChannelSums":
        """The inverse of dataclasses.asdict, through JSON."""
        return cls(count=values["count"], total=tuple(values["total"]), square=tuple(values["square"]))

    def plus(self, other: "ChannelSums") -> "ChannelSums":
        return ChannelSums(
            count=self.count + other.count,
            total=tuple(a + b for a, b in zip(self.total, other.total, strict=True)),
            square=tuple(a + b for a, b in zip(self.square, other.square, strict=True)),
        )

    def statistics(self) -> Statistics:
        """Mean and deviation; a channel that never changes keeps its scale."""
        mean = np.array(self.total) / self.count
        variance = np.maximum(np.array(self.square) / self.count - mean**2, 0.0)
        std = np.where(variance > ROUNDING * (1.0 + mean**2), np.sqrt(variance), 1.0)
        return Statistics(mean=tuple(mean.tolist()), std=tuple(std.tolist()))
