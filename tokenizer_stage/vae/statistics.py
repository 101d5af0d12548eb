"""Mean and deviation of a VAE's latents, channel by channel: as published with it, or measured over a set.

In: what a VAE's config and buffers say; latents. Out: `Statistics`, or None where nothing is said: 0 and 1
are never assumed, since latents normalised with them look sound and train badly. Numbers only: no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.corpus.shards import ChannelSums
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


def measured(sums: ChannelSums) -> Statistics:
    """Those of latents; a channel that never changes keeps its scale."""
    mean, std = sums.mean_and_std()
    return Statistics(mean=tuple(mean), std=tuple(value or 1.0 for value in std))
