"""The closed-form stage of the built-in VAE: principal components of 4×8×8 pixel blocks.

In: video `[B, 3, T, H, W]` in [-1, 1], T = 1 + 4k. Out: latents `[B, C, 1 + k, H/8, W/8]`, and back.
The first frame is coded alone, as an image; each later latent codes four frames. The image basis is
rotated (orthogonal Procrustes) so that a still image and the same image held for four frames get
nearly equal latents; a rotation changes no reconstruction. Blocks do not overlap, so this stage is
exact under tiling, cropping and chunking. Never looks at more than one block at a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tokenizer_stage.vae.description import STRIDE_S, STRIDE_T

VIDEO_DIM = 3 * STRIDE_T * STRIDE_S * STRIDE_S
IMAGE_DIM = 3 * STRIDE_S * STRIDE_S
IMAGE_GAIN = STRIDE_T**0.5  # four equal frames have twice the norm of one


def to_blocks(video: Tensor, *, starts: bool) -> Tensor:
    """Cuts video `[B, 3, T, H, W]` into blocks `[B, T', 768, H/8, W/8]`. When the video `starts` here,
    its first frame is repeated to fill a block of its own; otherwise T must be a multiple of 4."""
    if starts:
        video = torch.cat([video[:, :, :1].expand(-1, -1, STRIDE_T - 1, -1, -1), video], dim=2)
    b, c, t, h, w = video.shape
    blocks = video.reshape(
        b, c, t // STRIDE_T, STRIDE_T, h // STRIDE_S, STRIDE_S, w // STRIDE_S, STRIDE_S
    )  # [B, 3, T', 4, h, 8, w, 8]
    blocks = blocks.permute(0, 2, 1, 3, 5, 7, 4, 6)  # [B, T', 3, 4, 8, 8, h, w]
    return blocks.reshape(b, t // STRIDE_T, VIDEO_DIM, h // STRIDE_S, w // STRIDE_S)


def from_blocks(blocks: Tensor, *, starts: bool) -> Tensor:
    """The inverse of `to_blocks`; a starting image is the mean of its four copies."""
    b, t, _, h, w = blocks.shape
    video = blocks.reshape(b, t, 3, STRIDE_T, STRIDE_S, STRIDE_S, h, w)
    video = video.permute(0, 2, 1, 3, 6, 4, 7, 5)  # [B, 3, T', 4, h, 8, w, 8]
    video = video.reshape(b, 3, t * STRIDE_T, h * STRIDE_S, w * STRIDE_S)
    if starts:
        image = video[:, :, :STRIDE_T].mean(dim=2, keepdim=True)
        video = torch.cat([image, video[:, :, STRIDE_T:]], dim=2)
    return video


def image_part(blocks: Tensor) -> Tensor:
    """One frame `[..., 192, h, w]` of blocks `[..., 768, h, w]` whose four frames are equal."""
    *lead, _, h, w = blocks.shape
    frames = blocks.reshape(*lead, 3, STRIDE_T, STRIDE_S * STRIDE_S, h, w)
    return frames[..., 0, :, :, :].flatten(-4, -3)


def image_block(image: Tensor) -> Tensor:
    """The inverse of `image_part`: a block that holds the frame four times."""
    *lead, _, h, w = image.shape
    frame = image.reshape(*lead, 3, 1, STRIDE_S * STRIDE_S, h, w)
    return frame.expand(*lead, 3, STRIDE_T, STRIDE_S * STRIDE_S, h, w).flatten(-5, -3)


class LinearCodec(nn.Module):
    """Projects blocks on an orthonormal basis and back. Buffers only: nothing here is trained."""

    video_mean: Tensor
    video_basis: Tensor
    image_mean: Tensor
    image_basis: Tensor
    scale: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("video_mean", torch.zeros(VIDEO_DIM))
        self.register_buffer("video_basis", torch.zeros(channels, VIDEO_DIM))  # orthonormal rows
        self.register_buffer("image_mean", torch.zeros(IMAGE_DIM))
        self.register_buffer("image_basis", torch.zeros(channels, IMAGE_DIM))  # orthonormal rows
        self.register_buffer("scale", torch.ones(channels))  # standard deviation of each latent channel

    def encode(self, blocks: Tensor, *, starts: bool) -> Tensor:
        """Blocks `[B, T', 768, h, w]` → latents `[B, T', C, h, w]`."""
        centred = blocks - self.video_mean[:, None, None]
        latents = torch.einsum("btkhw,ck->btchw", centred, self.video_basis)
        if starts:
            image = image_part(blocks[:, 0]) - self.image_mean[:, None, None]  # [B, 192, h, w]
            first = IMAGE_GAIN * torch.einsum("bkhw,ck->bchw", image, self.image_basis)
            latents = torch.cat([first[:, None], latents[:, 1:]], dim=1)
        return latents

    def decode(self, latents: Tensor, *, starts: bool) -> Tensor:
        """Latents `[B, T', C, h, w]` → blocks `[B, T', 768, h, w]`."""
        blocks = torch.einsum("btchw,ck->btkhw", latents, self.video_basis)
        blocks = blocks + self.video_mean[:, None, None]
        if starts:
            image = torch.einsum("bchw,ck->bkhw", latents[:, 0] / IMAGE_GAIN, self.image_basis)
            first = image_block(image + self.image_mean[:, None, None])
            blocks = torch.cat([first[:, None], blocks[:, 1:]], dim=1)
        return blocks


@dataclass(slots=True)
class _Moments:
    """Running sum and outer product of vectors, in float64."""

    count: float
    total: Tensor
    outer: Tensor

    @classmethod
    def empty(cls, dim: int) -> "_Moments":
        return cls(0.0, torch.zeros(dim, dtype=torch.float64), torch.zeros(dim, dim, dtype=torch.float64))

    def add(self, rows: Tensor, weight: float) -> None:
        rows = rows.double()  # [N, D]
        self.count += weight * len(rows)
        self.total += weight * rows.sum(0)
        self.outer += weight * rows.T @ rows

    def mean(self) -> Tensor:
        return self.total / self.count

    def components(self, count: int) -> Tensor:
        """The leading eigenvectors of the covariance as rows; each one's largest entry is positive."""
        mean = self.mean()
        _, vectors = torch.linalg.eigh(self.outer / self.count - torch.outer(mean, mean))
        rows = vectors.T.flip(0)[:count]
        peak = rows.gather(1, rows.abs().argmax(1, keepdim=True))
        return rows * peak.sign()


def fit_linear(videos: Iterable[tuple[Tensor, float]], channels: int) -> LinearCodec:
    """The codec of least squared error over videos `[3, T, H, W]` in [-1, 1], each with its weight."""
    video_moments, image_moments = _Moments.empty(VIDEO_DIM), _Moments.empty(IMAGE_DIM)
    for video, weight in videos:
        blocks = to_blocks(video[None, :, 1:], starts=False)[0]  # [k, 768, h, w]
        video_moments.add(blocks.permute(0, 2, 3, 1).reshape(-1, VIDEO_DIM), weight)
        frames = image_part(to_blocks(video[None, :, :1], starts=True)[0])  # [1, 192, h, w]
        image_moments.add(frames.permute(0, 2, 3, 1).reshape(-1, IMAGE_DIM), weight)
    codec = LinearCodec(channels)
    video_basis, image_basis = video_moments.components(channels), image_moments.components(channels)
    image_basis = _align(image_basis, image_moments, video_basis)
    centred = video_moments.outer / video_moments.count - torch.outer(
        video_moments.mean(), video_moments.mean()
    )
    codec.video_mean.copy_(video_moments.mean())
    codec.image_mean.copy_(image_moments.mean())
    codec.video_basis.copy_(video_basis)
    codec.image_basis.copy_(image_basis)
    codec.scale.copy_((video_basis @ centred @ video_basis.T).diagonal().sqrt())
    return codec


def _align(image_basis: Tensor, image_moments: _Moments, video_basis: Tensor) -> Tensor:
    """The image basis rotated so that a frame's latent is nearest to that of the frame held for four
    (orthogonal Procrustes, Schönemann 1966): R = U Vᵀ of the cross-covariance of the two latents."""
    mean = image_moments.mean()
    covariance = image_moments.outer / image_moments.count - torch.outer(mean, mean)
    held = (
        video_basis.reshape(-1, 3, STRIDE_T, STRIDE_S * STRIDE_S).sum(2).flatten(1)
    )  # [C, 192]: held frames
    u, _, vh = torch.linalg.svd(held @ covariance @ image_basis.T)
    return (u @ vh) @ image_basis
