"""One sequential pass over one file: everything the tables want to know about it. Runs in the sandbox's child.

In: a local path and the analyze config. Out: plain rows (a source, its clips, their filmstrips). Never: a second
decode (except to salvage a damaged file), a table, a corpus.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline import media, stills


def read_crop(
    path: str | Path,
    kind: str,
    times_s: Sequence[float],
    crop: Sequence[int],
    width_px: int,
    height_px: int,
    expected_phash: int | None,
    max_pixels: int,
) -> np.ndarray:
    """uint8 [T, H, W, 3] RGB of [x, y, w, h] (display pixels) at each time, from a video or a still."""
    if kind == "image":
        pixels, _, _ = stills.read_still(path, max_pixels)
        x, y, w, h = crop
        still = stills.resize(pixels[y : y + h, x : x + w], width_px, height_px)  # [H, W, 3]
        return np.repeat(still[None], len(times_s), axis=0)  # [T, H, W, 3]
    return media.read_span(
        path, times_s, crop, width_px, height_px, max_pixels=max_pixels, expected_phash=expected_phash
    )
