"""Stills: many small ones at a time, or one of any size. Runs in the sandbox's child.

In: local paths or the bytes of files, and the analyze config. Out: the rows of each, as rows.py gives them
of a video. What is small for all of them (thumbnails, grids, prints) is computed for many at once, because
at this size calls cost more than arithmetic. A still's rows are the same alone and among others. Never: the
reason why one of many cannot be read.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.dedup.prints import still_prints
from pipeline.engine.stage import guard
from pipeline.media import stills, strips
from pipeline.media.frames import MediaInfo
from pipeline.media.heif import Source
from pipeline.media.phash import perceptual_hash
from pipeline.onepass.columns import Row, Timing, clip_row, source_row
from pipeline.onepass.watch import CLOSE_LONG_PX
from pipeline.shots.boundaries import Shot
from pipeline.shots.descriptor import LUMA_CELLS, descriptors
from pipeline.signals import measure as signals

GRID_PX = 2 * LUMA_CELLS  # a side of the picture that a descriptor is made of: two pixels a cell
WHOLE = Shot(start=0, end=1, boundary_in="start", boundary_out="end", confidence=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is kept of a still when its pixels are gone."""

    source: Row
    phash: int
    jpeg: stills.JpegBytes  # of its filmstrip
    thumb: np.ndarray  # uint8 [H, W, 3] YCbCr
    grid: np.ndarray  # uint8 [GRID_PX, GRID_PX, 3] YCbCr
    close: np.ndarray  # signals.CLOSE [1]


def analyze_still(source: Source, config: AnalyzeConfig) -> SourceAnalysis:
    """Rows of one still; MediaError for what cannot be read."""
    return _rows([_look(source, config)])[0]


def analyze_stills(contents: Sequence[bytes], config: AnalyzeConfig) -> list[SourceAnalysis | None]:
    """Rows of each file that is a good still; None for any other, which `rows.analyze_file` is to be asked
    about."""
    looks = [guard(partial(_look_at_still, data, config)) for data in contents]
    good = [look for look in looks if isinstance(look, Look)]
    rows = iter(_rows(good))
    return [next(rows) if isinstance(look, Look) else None for look in looks]


def _look_at_still(data: bytes, config: AnalyzeConfig) -> Look | None:
    return _look(data, config) if stills.is_still(data) else None


def _look(source: Source, config: AnalyzeConfig) -> Look:
    """All that is taken from the pixels of one still."""
    pixels, codec, rotation = stills.read_still(source, config.max_pixels)  # uint8 [H, W, 3]
    high, wide, _ = pixels.shape
    info = MediaInfo(
        container=codec,
        codec=codec,
        width=wide,
        height=high,
        rotation=rotation,
        fps=0.0,
        stream_duration_s=0.0,
        container_duration_s=0.0,
        has_audio=False,
        transfer=stills.transfer(source),
    )
    picture = strips.strip_picture(pixels, config.strip_long_px)
    coloured = Image.fromarray(picture).convert("YCbCr")
    luma = Image.fromarray(pixels).convert("L")
    small = luma.resize(strips.fit(wide, high, CLOSE_LONG_PX, least=1))
    return Look(
        source=source_row("image", info, Timing(fps=0.0, is_vfr=False, frames=1, duration_s=0.0)),
        phash=perceptual_hash(picture),
        jpeg=stills.encode_jpeg(picture, config.strip_quality),
        thumb=np.asarray(coloured.resize(strips.fit(wide, high, config.thumb_long_px, least=1))),
        grid=np.asarray(coloured.resize((GRID_PX, GRID_PX), Image.Resampling.BOX)),
        close=signals.inspect(np.asarray(small), np.asarray(luma), full_range=True),
    )


def _rows(looks: Sequence[Look]) -> list[SourceAnalysis]:
    """The rows of each of them."""
    if not looks:
        return []
    numbers = signals.still_signals(_measured(looks), np.concatenate([look.close for look in looks]))
    prints = still_prints(descriptors(*_planes([look.grid for look in looks])))  # [N, PRINT_SIZE]
    analyses = []
    for look, of_still, tiny in zip(looks, numbers, prints, strict=True):
        crop = (0, 0, look.source["width"], look.source["height"])
        clip = clip_row(look.source, WHOLE, (0.0, 0.0), crop, of_still, [look.phash])
        strip = {"times_s": [0.0], "frames": [look.jpeg], "print": tiny.tobytes()}
        analyses.append(SourceAnalysis(source=look.source, clips=[clip], strips=[strip]))
    return analyses


def _measured(looks: Sequence[Look]) -> np.ndarray:
    """signals.FRAME [N] of their thumbnails, those of one size together."""
    by_size: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, look in enumerate(looks):
        by_size[look.thumb.shape].append(number)
    rows = np.zeros(len(looks), signals.FRAME)
    for at in by_size.values():
        rows[at] = signals.measure(*_planes([looks[number].thumb for number in at]), None)
    return rows


def _planes(pictures: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Luma and the two chroma planes of N YCbCr pictures of one size: uint8 [N, H, W] each."""
    y, u, v = np.ascontiguousarray(np.moveaxis(np.stack(pictures), 3, 0))
    return y, u, v
