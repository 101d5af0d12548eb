"""Randomness as a pure function of a key.

In: (seed, epoch, sample id, purpose, ...). Out: a numpy generator whose stream depends on nothing else: not
on the rank, the batch, the device or what was drawn before. That is what makes a resumed, a re-packed and a
re-sharded run draw the same noise for the same sample. Never touches a global random state.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor

SHARES = 2**64  # so many numbers has a hash; the group of a latent's index row is one


def keyed(*key: int | str) -> np.random.Generator:
    """The generator of `key`; keys that differ in any part give independent streams."""
    digest = hashlib.blake2b("\x1f".join(str(part) for part in key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64)))


def keyed_normal(shape: tuple[int, ...], *key: int | str) -> Tensor:
    """Standard normal float32 `shape`, drawn from the stream of `key`."""
    return torch.from_numpy(keyed(*key).standard_normal(shape, dtype=np.float32))


def hashed_share(text: str) -> float:
    """`text` → a fixed number in [0, 1): the same on every machine, for splits that never move."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / SHARES
