"""What only a closer look at a frame tells: sharpness, noise, block edges, combing. Pure functions.

In: luma of single frames, uint8. Out: numbers whose units and ranges are below. Never: colour, time, files.

`sharpness` wants the picture at a long side of at most 640 px, so that it means the same at any resolution.
The others look for traces of sensors, scanning and codecs, which live on the pixel grid: they want luma as
the decoder holds it, in coded orientation, and read only a part of it.
"""

from functools import lru_cache

import numpy as np

SPARSE = 16  # block edges are read from one row and one column in so many
GRID = 8  # pixels between block edges: what JPEG, MPEG and H.264 transforms share
BANDS, BAND_PX, NOISE_BLOCK = 4, 18, 16  # noise is read from so many bands of so many rows, in such blocks
NOISE_QUANTILE = 0.25  # the quieter blocks: texture counts as noise elsewhere
COLUMNS, COMB_BLOCK = 64, 8  # combing is read from about so many columns
COMBED, COMB_CHANGE = (
    1.6,
    4.0,
)  # neighbouring rows differ so much more than rows of one field do; and on average by


def sharpness(luma: np.ndarray) -> float:
    """Variance of the Laplacian over the variance (so that exposure does not matter), of [H, W]; 0 to about
    2."""
    if min(luma.shape) < 3:
        return 0.0
    p = luma.astype(np.int16)
    edges = p[:-2, 1:-1] + p[2:, 1:-1]
    edges += p[1:-1, :-2]
    edges += p[1:-1, 2:]
    edges -= 4 * p[1:-1, 1:-1]
    return _variance(edges) / (_variance(p) + 4)  # the four: coding noise of a plain picture is no detail


def blockiness(luma: np.ndarray) -> float:
    """How much larger the steps across the edges of an 8 x 8 grid are than those inside it, as a share of
    these, mean of both directions, 0 to 1 (after Wang, Sheikh and Bovik 2002); 0.3 is plain to see. [H, W]"""
    excess = []
    for plane in (luma[::SPARSE], luma[:, ::SPARSE].T):
        if plane.shape[1] < 2 * GRID + 1:
            return 0.0
        steps = np.abs(np.diff(plane.astype(np.int16), axis=1)).mean(axis=0)  # [W - 1]
        phases = (
            steps[: len(steps) // GRID * GRID].reshape(-1, GRID).mean(axis=0)
        )  # the last crosses the edges
        excess.append(phases[-1] / (phases[:-1].mean() + 0.1) - 1)
    return min(max(0.0, float(np.mean(excess))), 1.0)


def noise(luma: np.ndarray) -> float:
    """Standard deviation of what varies from pixel to pixel in the quieter parts of [H, W], in steps of 255:
    the estimate of Immerkaer (1996) a block; 0 to about 30. Clean digital pictures have less than 0.5."""
    high, wide = luma.shape[0], luma.shape[1] // NOISE_BLOCK * NOISE_BLOCK
    if high < BAND_PX or wide < NOISE_BLOCK:
        return 0.0
    tops = _tops(high)
    bands = np.stack([luma[t : t + BAND_PX] for t in tops]).astype(np.int16)  # [BANDS, BAND_PX, W]
    bent = bands[:, :-2] - 2 * bands[:, 1:-1] + bands[:, 2:]
    bent = np.abs(bent[:, :, :-2] - 2 * bent[:, :, 1:-1] + bent[:, :, 2:])  # [BANDS, NOISE_BLOCK, W - 2]
    columns = np.zeros((len(tops), luma.shape[1]), np.int32)  # the last two stay
    bent.sum(axis=1, dtype=np.int32, out=columns[:, :-2])
    blocks = columns[:, :wide].reshape(len(tops), -1, NOISE_BLOCK).sum(axis=2) / NOISE_BLOCK**2
    return _quantile(blocks, NOISE_QUANTILE) * float(np.sqrt(np.pi / 2)) / 6


def combing(luma: np.ndarray) -> float:
    """Share of the parts of [H, W] in which neighbouring rows differ more than every second one does, as when
    two fields of a moving picture are woven together: 0 to 1; progressive pictures have less than 0.01."""
    plane = luma[:, :: max(1, luma.shape[1] // COLUMNS)].astype(np.int16)
    high, wide = (plane.shape[0] - 2) // COMB_BLOCK * COMB_BLOCK, plane.shape[1] // COMB_BLOCK * COMB_BLOCK
    if high <= 0 or wide <= 0:
        return 0.0
    next_row = np.abs(plane[1 : high + 1, :wide] - plane[:high, :wide])
    same_field = np.abs(plane[2 : high + 2, :wide] - plane[:high, :wide])
    shape = (high // COMB_BLOCK, COMB_BLOCK, wide // COMB_BLOCK, COMB_BLOCK)
    across, along = (p.reshape(shape).sum(axis=(1, 3), dtype=np.int32) for p in (next_row, same_field))
    combed = (across > COMBED * along) & (across > COMB_CHANGE * COMB_BLOCK**2)
    return float(combed.mean())


def technical_quality(sharpness: float, blockiness: float, noise: float) -> float:
    """One number of the three, 0 to 1: sharp pictures without block edges and noise are near 1. A rule of
    thumb for ordering versions of one picture, not a model of viewers."""
    return sharpness / (sharpness + 0.01) / (1 + blockiness) / (1 + noise)


@lru_cache(maxsize=256)
def _tops(high: int) -> list[int]:
    """The first rows of the bands of a picture with so many."""
    return sorted(set(np.linspace(0, high - BAND_PX, BANDS).astype(int).tolist()))


def _quantile(values: np.ndarray, share: float) -> float:
    """np.quantile of float64, bit for bit, in a tenth of its time."""
    ordered = np.sort(values, axis=None)
    below, part = divmod(share * (ordered.size - 1), 1.0)
    low, high = float(ordered[int(below)]), float(ordered[min(int(below) + 1, ordered.size - 1)])
    return high - (high - low) * (1 - part) if part >= 0.5 else low + (high - low) * part


def _variance(values: np.ndarray) -> float:
    """Of int16, in integers."""
    total = int(values.sum(dtype=np.int64))
    squares = int(np.square(values, dtype=np.int32).sum(dtype=np.int64))
    return squares / values.size - (total / values.size) ** 2
