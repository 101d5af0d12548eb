"""Hashes of like pictures are near, of other pictures far."""

import numpy as np

from pipeline.media.phash import block_mean, hamming, perceptual_hash


def picture(seed: int) -> np.ndarray:
    """uint8 [90, 160, 3]: smooth random shapes."""
    small = np.random.default_rng(seed).uniform(0, 255, (9, 16, 3))
    return np.kron(small, np.ones((10, 10, 1))).astype(np.uint8)


def test_a_hash_survives_scaling_and_brightness_and_tells_pictures_apart() -> None:
    a = picture(1)
    assert hamming(perceptual_hash(a), perceptual_hash(a[::2, ::2])) <= 6
    assert hamming(perceptual_hash(a), perceptual_hash((a * 0.8 + 20).astype(np.uint8))) <= 2
    assert 18 <= hamming(perceptual_hash(a), perceptual_hash(picture(2))) <= 46
    assert hamming(perceptual_hash(a), perceptual_hash(a[:, ::-1])) >= 14


def test_block_means_keep_the_mean() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (64, 96))
    assert np.isclose(block_mean(plane, 16, 16).mean(), plane.mean())
