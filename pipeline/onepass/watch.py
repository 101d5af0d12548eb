"""The pass itself: every frame of a file once, in order; cheap numbers of all, small pictures of some.

In: frames of a local file. Out: a `PassRecord`, plain arrays; those of the pieces of a long source join to
that of the whole. Never: a shot, a verdict, a second look at a frame.

The decoder's luma is read where it lies; each frame is scaled once, to a thumbnail; what thumbnails tell is
computed for a batch of frames at a time, because at this size calls cost more than arithmetic. How frames
fall into batches changes no value.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config import AnalyzeConfig
from pipeline.media.decode import within
from pipeline.media.frames import Frame, MediaInfo
from pipeline.media.stills import encode_jpeg
from pipeline.media.strips import Picture, fit
from pipeline.onepass.candidates import Chooser
from pipeline.shots.descriptor import descriptors
from pipeline.signals import measure as signals
from pipeline.signals.flow import Follower

RAW_BYTES = 64 << 20  # of pictures not yet encoded; most never need to be
BATCH_FRAMES = 8, 32  # least and most; calls cost, and so do pictures that have left the processor's cache
BATCH_PIXELS = 8_000_000
CLOSE_LONG_PX = 640
FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * 255 / 219), 0, 255).astype(np.uint8)  # of 16 to 235


@dataclass(frozen=True, slots=True, kw_only=True)
class PassRecord:
    """What is kept of N consecutive frames, K of them candidates, M of these looked at closely."""

    times_s: np.ndarray  # float64 [N], strictly increasing
    descriptors: np.ndarray  # uint8 [N, descriptor.DIMENSIONS]
    rows: np.ndarray  # signals.FRAME [N]
    gaps: np.ndarray  # int32 [G], indices of the frames before which others were left out
    picture_at: np.ndarray  # int32 [K], indices of the candidates
    pictures: list[Picture]  # [K], upright, long side at most strip_long_px
    close_at: np.ndarray  # int32 [M], indices of the close-ups
    close: np.ndarray  # signals.CLOSE [M]
    bright_rows: np.ndarray  # uint8 [M, H], the brightest luma of each row, upright, full range
    bright_columns: np.ndarray  # uint8 [M, W]

    def __post_init__(self) -> None:
        counts = (len(self.times_s), len(self.picture_at), len(self.close_at))
        held = (
            {len(self.descriptors), len(self.rows)},
            {len(self.pictures)},
            {len(self.close), len(self.bright_rows), len(self.bright_columns)},
        )
        if any(of_part != {count} for count, of_part in zip(counts, held, strict=True)):
            raise ValueError(f"frames, candidates, close-ups: {counts}, but what is kept of them: {held}")


def watch(
    frames: Iterable[Frame], info: MediaInfo, config: AnalyzeConfig, *, opens: bool = True, ends: bool = True
) -> PassRecord | None:
    """The pass over these frames; None when there is none. `opens`, `ends`: they begin, end the video."""
    size = fit(info.width, info.height, config.thumb_long_px, least=16)
    chooser, follower = Chooser(opens=opens), Follower()
    times_s: list[float] = []
    gaps: list[int] = []
    measured: list[tuple[np.ndarray, np.ndarray]] = []  # descriptors and rows, a batch each
    looks: dict[int, dict[str, Any]] = {}  # index → what is kept of a candidate
    raw: list[int] = []  # those whose picture is not encoded
    before: tuple[Frame, np.ndarray] | None = None  # the frame before the batch, its thumbnail's luma
    for batch, (y, u, v) in _batches(within(iter(frames), config.max_frames), size):
        grids = descriptors(y, u, v)
        measured.append((grids, signals.measure(y, u, v, before[1] if before else None)))
        at_hand = dict(enumerate(batch, len(times_s)))  # index → frame
        if before:
            at_hand[len(times_s) - 1] = before[0]
        batch_s = [frame.time_s for frame in batch]
        batch_gaps = [index for index, frame in enumerate(batch, len(times_s)) if frame.after_gap]
        follower.follow(batch_s, y)
        for index, close in sorted(chooser.choose(batch_s, grids, batch_gaps).items()):
            if index not in looks and index in at_hand:
                looks[index] = _look(at_hand[index], info, config, close=close)
                raw.append(index)
        if sum(looks[i]["picture"].nbytes for i in raw) > RAW_BYTES:
            for i in raw:
                looks[i]["picture"] = encode_jpeg(looks[i]["picture"], config.strip_quality)
            raw = []
        times_s += batch_s
        gaps += batch_gaps
        before = batch[-1], y[-1]
    if before is None:
        return None
    if ends and len(times_s) - 1 not in looks:
        looks[len(times_s) - 1] = _look(before[0], info, config, close=False)
    record = _record(times_s, gaps, measured, looks)
    follower.fill(record.rows)
    return record


def join(pieces: list[PassRecord]) -> PassRecord:
    """One pass from those over consecutive pieces."""
    starts = np.cumsum([0, *(len(p.times_s) for p in pieces[:-1])]).astype(np.int32)

    def moved(name: str) -> np.ndarray:
        indices = [getattr(p, name) + start for p, start in zip(pieces, starts, strict=True)]
        return np.concatenate(indices).astype(np.int32)

    return PassRecord(
        times_s=np.concatenate([p.times_s for p in pieces]),
        descriptors=np.concatenate([p.descriptors for p in pieces]),
        rows=np.concatenate([p.rows for p in pieces]),
        gaps=moved("gaps"),
        picture_at=moved("picture_at"),
        pictures=[picture for p in pieces for picture in p.pictures],
        bright_rows=np.concatenate([p.bright_rows for p in pieces]),
        bright_columns=np.concatenate([p.bright_columns for p in pieces]),
        close_at=moved("close_at"),
        close=np.concatenate([p.close for p in pieces]),
    )


def between(record: PassRecord, start: int, end: int) -> PassRecord:
    """A pass from frame `start` to `end` - 1 only."""
    g, k, m = (
        slice(*np.searchsorted(at, (start, end)).tolist())
        for at in (record.gaps, record.picture_at, record.close_at)
    )
    return PassRecord(
        times_s=record.times_s[start:end],
        descriptors=record.descriptors[start:end],
        rows=record.rows[start:end],
        gaps=record.gaps[g] - np.int32(start),
        picture_at=record.picture_at[k] - np.int32(start),
        pictures=record.pictures[k],
        bright_rows=record.bright_rows[m],
        bright_columns=record.bright_columns[m],
        close_at=record.close_at[m] - np.int32(start),
        close=record.close[m],
    )


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


def _record(
    times_s: list[float],
    gaps: list[int],
    measured: list[tuple[np.ndarray, np.ndarray]],
    looks: dict[int, dict[str, Any]],
) -> PassRecord:
    picture_at = sorted(looks)
    close_at = [i for i in picture_at if "close" in looks[i]]
    return PassRecord(
        times_s=np.array(times_s),
        descriptors=np.concatenate([grids for grids, _ in measured]),
        rows=np.concatenate([rows for _, rows in measured]),
        gaps=np.array(gaps, np.int32),
        picture_at=np.array(picture_at, np.int32),
        pictures=[looks[i]["picture"] for i in picture_at],
        bright_rows=np.stack([looks[i]["rows"] for i in close_at]),
        bright_columns=np.stack([looks[i]["columns"] for i in close_at]),
        close_at=np.array(close_at, np.int32),
        close=np.concatenate([looks[i]["close"] for i in close_at]),
    )
