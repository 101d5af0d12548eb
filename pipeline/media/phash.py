"""The perceptual hash of a picture (pHash, Zauner 2010): 64 bits that survive scaling, re-encoding and small
brightness changes.

In: uint8 pixels. Out: an int; the Hamming distance of two. Never: a codec, a verdict.
"""

import numpy as np

SIDE = 32  # the picture is averaged down to SIDE x SIDE before the transform
_K = np.arange(SIDE)
DCT = np.cos(np.pi * (2 * _K[None, :] + 1) * _K[:, None] / (2 * SIDE)).astype(
    np.float32
)  # [SIDE, SIDE], DCT-II
# The 64 lowest frequencies without the constant one, in zigzag order (ties by row).
LOWEST = sorted(
    ((u, v) for u in range(SIDE) for v in range(SIDE) if u + v), key=lambda f: (f[0] + f[1], f[0])
)[:64]
_ROWS, _COLUMNS = np.array(LOWEST).T


def perceptual_hash(pixels: np.ndarray) -> int:
    """64 bits of uint8 [H, W] or [H, W, 3]: which low frequencies lie above their median."""
    return _bits(_coefficients(pixels))


def hamming(a: int, b: int) -> int:
    """Bits that differ, 0 to 64."""
    return (a ^ b).bit_count()


def luma(pixels: np.ndarray) -> np.ndarray:
    """Float32 luma [H, W], 0 to 255, of uint8 [H, W] or RGB [H, W, 3] (Rec. 601 weights)."""
    if pixels.ndim == 2:
        return pixels.astype(np.float32)
    return pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def block_mean(plane: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Area average of [H, W] to float32 [rows, columns]; cells share no pixel and leave none out when H
    >= rows."""
    high, wide = plane.shape
    if high < rows or wide < columns:
        plane = np.repeat(np.repeat(plane, -(-rows // high), axis=0), -(-columns // wide), axis=1)
        high, wide = plane.shape
    top = np.arange(rows) * high // rows
    left = np.arange(columns) * wide // columns
    sums = np.add.reduceat(np.add.reduceat(plane, top, axis=0, dtype=np.float32), left, axis=1)
    counts = np.outer(np.diff(np.append(top, high)), np.diff(np.append(left, wide)))
    return sums / counts.astype(np.float32)  # [rows, columns]


def _coefficients(pixels: np.ndarray) -> np.ndarray:
    small = block_mean(luma(pixels), SIDE, SIDE)  # [SIDE, SIDE]
    return (DCT @ small @ DCT.T)[_ROWS, _COLUMNS]  # [64]


def _bits(coefficients: np.ndarray) -> int:
    low, high = np.sort(coefficients)[31:33]  # float32; their mean is np.median, in a tenth of its time
    above = coefficients > (low + high) / np.float32(2)
    return int.from_bytes(np.packbits(above).tobytes(), "big")
