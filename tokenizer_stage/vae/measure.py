"""Whether a VAE keeps what it says of itself, and what it does not say: measured on a short noisy video.

In: a VAE that was loaded. Out: what it came to, as it is recorded beside every set: is a latent blind to
later frames, is the latent of an image the first latent of a video that begins with it, what do its tiles,
its pieces and its number type change. All deviations are root mean squares in units of the latents' own
deviation, on some 10 frames of 64 to 128 pixels a side (of tiles: on one frame just larger). A VAE that does
not keep its own strides, or does not give back the frames that went in, is an error that names it.
"""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from pipeline.errors import ModelError
from tokenizer_stage.vae.diffusers import DiffusersVAE
from tokenizer_stage.vae.geometry import Counts

PROBE_WIDTH_PX, PROBE_HEIGHT_PX = 96, 64  # at least; unequal, so that sides cannot be mistaken
EQUAL = 1e-4  # up to here two latents are the same but for rounding


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was seen of a VAE. Deviations are in units of its latents' own; None: not had, or not asked."""

    causal: bool  # latents do not depend on later frames
    future_error: float  # how much they do
    variance: bool  # its posterior has one
    image_error: float | None  # an image's latent against the first of a video that begins with it
    pieces_error: float | None = None  # encoded in pieces with carried state, against one call
    tiles_error: float | None = None  # in the class's own tiles, against the whole frame
    dtype_error: float | None = None  # in the set's number type, against float32

    def known(self) -> dict[str, bool | float]:
        """What was seen, by name."""
        values = {key: value for key, value in asdict(self).items() if value is not None}
        return values | {"image_is_first_latent": self.image_error is not None and self.image_error <= EQUAL}


def measure_vae(vae: DiffusersVAE, *, dtype: str = "float32", tiles: bool = False) -> Measured:
    """Measures a VAE where it lies, in float32; leaves it set to `dtype` and `tiles`.

    Raises:
        ModelError: it gives other latents or other frames than it promises, or values that are not finite.
    """
    video = _probe(vae)
    whole, logvar = _whole(vae, video)
    _check_round_trip(vae, video, whole)
    later, steps = video.clone(), whole.shape[2] - 1
    later[:, :, -vae.shape.stride_t :].neg_()  # the frames of the last latent step
    future_error = deviation(vae.encode(later)[:, :, :steps], whole[:, :, :steps])
    image_error = None
    if 1 in vae.shape.frames:
        image_error = deviation(vae.encode(video[:, :, :1]), whole[:, :, :1])
    pieces_error = None
    if vae.streams:
        pieces = [video[:, :, :2], video[:, :, 2:]]
        pieces_error = deviation(torch.cat(list(vae.encode_pieces(pieces)), dim=2), whole)
    tiles_error = dtype_error = None
    if tiles:
        tiles_error = _tiles_error(vae)
    if dtype != "float32":
        vae.run_on("cpu", dtype, tiles=tiles)
        dtype_error = deviation(vae.encode(video), whole)
    return Measured(
        causal=future_error <= EQUAL,
        future_error=future_error,
        variance=logvar is not None,
        image_error=image_error,
        pieces_error=pieces_error,
        tiles_error=tiles_error,
        dtype_error=dtype_error,
    )


def deviation(latents: Tensor, truth: Tensor) -> float:
    """The root mean square difference of latents, in units of the true ones' standard deviation."""
    difference = (latents - truth).square().mean().sqrt()
    return float(f"{float(difference / truth.std().clamp_min(1e-12)):.3g}")


def noisy_video(frames: int, height_px: int, width_px: int) -> Tensor:
    """A drifting pattern with grain, `[1, 3, T, H, W]` in [-1, 1], always the same."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(1, 3, 2 + frames // 8, 4, 6, generator=generator)
    size = (frames, height_px, width_px)
    smooth = torch.nn.functional.interpolate(coarse, size, mode="trilinear", align_corners=True)
    return (smooth + 0.2 * torch.randn(1, 3, *size, generator=generator)).tanh()


def _probe(vae: DiffusersVAE) -> Tensor:
    """Two to three of its steps of frames, at the least size that it takes from 96×64 on."""
    frames = vae.shape.frames
    count = frames.first + 2 * frames.step if frames.first == 1 else frames.first
    return noisy_video(
        count,
        _at_least(vae.shape.sides.height, PROBE_HEIGHT_PX),
        _at_least(vae.shape.sides.width, PROBE_WIDTH_PX),
    )


def _at_least(counts: Counts, least: int) -> int:
    below = counts.at_most(least - 1)
    return below + counts.step if below else counts.first


def _whole(vae: DiffusersVAE, video: Tensor) -> tuple[Tensor, Tensor | None]:
    """The posterior of the probe, of the shape and of values that may be."""
    try:
        latents, logvar = vae.posterior(video)
    except (RuntimeError, ValueError, AttributeError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"{vae.id} ({vae.kind}) cannot encode {_words(video)}: {type(error).__name__}: {error}",
            fix="take another VAE, or report this one with its config.json",
        ) from error
    promised = vae.shape.latent(video.shape[2], video.shape[3], video.shape[4])
    if tuple(latents.shape[1:]) != promised:
        raise ModelError(
            f"{vae.id} ({vae.kind}) makes latents of {tuple(latents.shape[1:])} of {_words(video)}",
            expected=f"{promised}, by the strides in its config",
            fix="mend its config.json",
        )
    if not latents.isfinite().all():
        raise ModelError(f"{vae.id} ({vae.kind}) makes latents that are not finite", fix="check its weights")
    return latents, logvar


def _check_round_trip(vae: DiffusersVAE, video: Tensor, latents: Tensor) -> None:
    decoded = vae.decode(latents)
    if decoded.shape != video.shape:
        raise ModelError(
            f"{vae.id} ({vae.kind}) decodes {_words(decoded)}", expected=f"{_words(video)}, as went in"
        )


def _tiles_error(vae: DiffusersVAE) -> float:
    """On one frame just larger than a tile; leaves the tiles on."""
    side_px = vae.tile_px + _at_least(vae.shape.sides.width, PROBE_WIDTH_PX)
    frames = vae.shape.frames.first
    height_px, width_px = vae.shape.sides.height.at_most(side_px), vae.shape.sides.width.at_most(side_px)
    video = noisy_video(frames, height_px, width_px)
    whole = vae.encode(video)
    vae.run_on("cpu", tiles=True)
    return deviation(vae.encode(video), whole)


def _words(video: Tensor) -> str:
    _, _, frames, height, width = video.shape
    return f"{frames} frames of {width}×{height}"
