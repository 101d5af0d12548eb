"""The pass itself: every frame of a file once, in order; cheap numbers of all, small pictures of some.

In: frames of a local file. Out: a `Seen`, plain arrays; those of the parts of a long source join to that of
the whole. Never: a shot, a verdict, a second look at a frame.

The decoder's luma is read where it lies; each frame is scaled once, to a thumbnail; what thumbnails tell is
computed for a batch of frames at a time, because at this size calls cost more than arithmetic. How frames
fall into batches changes no value.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import AnalyzeConfig
from pipeline.errors import MediaError
from pipeline.media.frames import Damage, Frame, MediaInfo
from pipeline.onepass.candidates import Chooser
from pipeline.shots.descriptor import descriptors
from pipeline.signals import measure as signals
from pipeline.signals.flow import Follower

RAW_BYTES = 64 << 20  # of pictures not yet encoded; most never need to be
BATCH_FRAMES = 8, 32  # least and most; calls cost, and so do pictures that have left the processor's cache
BATCH_PIXELS = 8_000_000
CLOSE_LONG_PX = 640


JpegBytes = bytes | memoryview
Picture = JpegBytes | np.ndarray  # uint8 RGB [H, W, 3] on the way to JPEG


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What is kept of N consecutive frames, K of them candidates, M of these looked at closely."""

    times_s: np.ndarray  # float64 [N], strictly increasing
    descriptors: np.ndarray  # uint8 [N, descriptor.DIMENSIONS]
    rows: np.ndarray  # signals.FRAME [N]
    shown: np.ndarray  # int32 [K], indices of the candidates
    pictures: list[Picture]  # [K], upright, long side at most strip_long_px
    close_at: np.ndarray  # int32 [M], indices of the close-ups
    close: np.ndarray  # signals.CLOSE [M]
    bright_rows: np.ndarray  # uint8 [M, H], the brightest luma of each row, upright, full range
    bright_columns: np.ndarray  # uint8 [M, W]


def watch(
    frames: Iterable[Frame],
    info: MediaInfo,
    config: AnalyzeConfig,
    damage: Damage,
    *,
    opens: bool = True,
    ends: bool = True,
) -> Seen | None:
    """The pass over these frames; None when there is none. `opens`, `ends`: they begin, end the video."""
    size = fit(info.width, info.height, config.thumb_long_px, least=16)
    chooser, follower = Chooser(opens=opens), Follower()
    times_s: list[float] = []
    measured: list[tuple[np.ndarray, np.ndarray]] = []  # descriptors and rows, a batch each
    looks: dict[int, dict[str, Any]] = {}  # index → what is kept of a candidate
    raw: list[int] = []  # those whose picture is not encoded
    last: tuple[Frame, np.ndarray] | None = None  # the frame before the batch, its thumbnail's luma
    for batch, (y, u, v) in _batches(frames, size):
        grids = descriptors(y, u, v)
        measured.append((grids, signals.measure(y, u, v, last[1] if last else None)))
        cuts = [k for k, frame in enumerate(batch) if frame.index in damage.gaps[-len(batch) :]]
        chosen = chooser.choose([frame.time_s for frame in batch], grids, cuts)
        follower.follow([frame.time_s for frame in batch], y)
        first = len(times_s)
        for k, close in sorted(chosen.items()):
            if first + k not in looks and (k >= 0 or last):
                frame = last[0] if k < 0 and last else batch[k]
                looks[first + k] = _look(frame, info, config, close=close)
                raw.append(first + k)
        if sum(looks[i]["picture"].nbytes for i in raw) > RAW_BYTES:
            for i in raw:
                looks[i]["picture"] = jpeg(looks[i]["picture"], config.strip_quality)
            raw = []
        times_s += [frame.time_s for frame in batch]
        if len(times_s) > config.max_frames:
            raise MediaError(f"more than {config.max_frames} frames", fix="--set analyze.max_frames=…")
        last = batch[-1], y[-1]
    if last is None:
        return None
    if ends and len(times_s) - 1 not in looks:
        looks[len(times_s) - 1] = _look(last[0], info, config, close=False)
    seen = _seen(times_s, measured, looks)
    follower.fill(seen.rows)
    return seen


def join(parts: list[Seen]) -> Seen:
    """One pass from those over consecutive parts."""
    starts = np.cumsum([0, *(len(p.times_s) for p in parts[:-1])]).astype(np.int32)
    return Seen(
        times_s=np.concatenate([p.times_s for p in parts]),
        descriptors=np.concatenate([p.descriptors for p in parts]),
        rows=np.concatenate([p.rows for p in parts]),
        shown=np.concatenate([p.shown + s for p, s in zip(parts, starts, strict=True)]),
        pictures=[picture for p in parts for picture in p.pictures],
        bright_rows=np.concatenate([p.bright_rows for p in parts]),
        bright_columns=np.concatenate([p.bright_columns for p in parts]),
        close_at=np.concatenate([p.close_at + s for p, s in zip(parts, starts, strict=True)]).astype(
            np.int32
        ),
        close=np.concatenate([p.close for p in parts]),
    )


def between(seen: Seen, start: int, end: int) -> Seen:
    """The part of a pass from frame `start` to `end` - 1."""
    k = slice(*np.searchsorted(seen.shown, (start, end)).tolist())
    m = slice(*np.searchsorted(seen.close_at, (start, end)).tolist())
    return Seen(
        times_s=seen.times_s[start:end],
        descriptors=seen.descriptors[start:end],
        rows=seen.rows[start:end],
        shown=seen.shown[k] - np.int32(start),
        pictures=seen.pictures[k],
        bright_rows=seen.bright_rows[m],
        bright_columns=seen.bright_columns[m],
        close_at=seen.close_at[m] - np.int32(start),
        close=seen.close[m],
    )


def fit(width: int, height: int, long_px: int, least: int) -> tuple[int, int]:
    """(width, height) with the long side at most `long_px`, the short one at least `least`; never larger."""
    scale = min(1.0, long_px / max(width, height))
    return max(least, round(width * scale)), max(least, round(height * scale))


def jpeg(picture: Picture, quality: int) -> JpegBytes:
    """The picture as JPEG, chroma at full size."""
    if not isinstance(picture, np.ndarray):
        return picture
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def _batches(
    frames: Iterable[Frame], size: tuple[int, int]
) -> Iterator[tuple[list[Frame], list[np.ndarray]]]:
    """Batches of frames and their thumbnails' planes, uint8 [B, H, W], [B, H/2, W/2] twice. Each thumbnail
    is made at once, while the picture is in the processor's cache."""
    batch: list[Frame] = []
    count = BATCH_FRAMES[0]
    planes: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for frame in frames:
        if frame.index == 0:
            fitting = BATCH_PIXELS // (frame.picture.width * frame.picture.height)
            count = min(max(fitting, BATCH_FRAMES[0]), BATCH_FRAMES[1])
        batch.append(frame)
        planes.append(frame.yuv(*size))
        if len(batch) == count:
            yield batch, [np.stack(plane) for plane in zip(*planes, strict=True)]
            batch, planes = [], []
    if batch:
        yield batch, [np.stack(plane) for plane in zip(*planes, strict=True)]


def _look(frame: Frame, info: MediaInfo, config: AnalyzeConfig, *, close: bool) -> dict[str, Any]:
    """What is kept of a candidate."""
    picture = frame.small_rgb(*fit(info.width, info.height, config.strip_long_px, least=2))
    look: dict[str, Any] = {"picture": picture}
    if close:
        luma, full_range = frame.coded_luma()  # uint8 [H, W]
        small = frame.luma(*fit(info.width, info.height, CLOSE_LONG_PX, least=2))
        rows, columns = frame.upright_profile(luma.max(axis=1), luma[::4].max(axis=0))
        if not full_range:
            rows, columns = FULL_RANGE[rows], FULL_RANGE[columns]
        look |= {"rows": rows, "columns": columns}
        look["close"] = signals.inspect(small, luma, full_range=full_range)
    return look


def _seen(
    times_s: list[float], measured: list[tuple[np.ndarray, np.ndarray]], looks: dict[int, dict[str, Any]]
) -> Seen:
    shown = sorted(looks)
    close_at = [i for i in shown if "close" in looks[i]]
    return Seen(
        times_s=np.array(times_s),
        descriptors=np.concatenate([grids for grids, _ in measured]),
        rows=np.concatenate([rows for _, rows in measured]),
        shown=np.array(shown, np.int32),
        pictures=[looks[i]["picture"] for i in shown],
        bright_rows=np.stack([looks[i]["rows"] for i in close_at]),
        bright_columns=np.stack([looks[i]["columns"] for i in close_at]),
        close_at=np.array(close_at, np.int32),
        close=np.concatenate([looks[i]["close"] for i in close_at]),
    )


FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)
