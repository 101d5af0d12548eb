"""A long source in pieces: how many, one of them, and all of them joined. Runs in the sandbox's child.

In: a local path, the analyze config, a piece's number. Out: bytes of a piece, or the same rows as one pass
over the whole. Never: a guess: whatever could make the rows differ (damage, times that do not rise, a joint
that does not fit) is a MediaError, and the caller decodes in one pass.

Piece k is the time from k to k + 1 times `segment_s`. Decoding begins at the keyframe LOOK_BACK_S or more
before it, so that each frame is judged with what came before (pipeline/onepass/candidates.py), and goes on
past its end. The frames that two neighbours both decoded must be equal: some streams give garbage after a
seek, without any error.
"""

import io
import math
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.errors import MediaError
from pipeline.media import decode as media
from pipeline.media import stills, strips
from pipeline.media.frames import Damage, Frame, MediaInfo
from pipeline.onepass.candidates import LOOK_BACK_S
from pipeline.onepass.rows import describe
from pipeline.onepass.watch import PassRecord, between, join, watch
from pipeline.storage import Buffer

LAST_LONGER = 0.1  # of a piece: headers round up, and a sliver is not worth a seek
LENGTH = struct.Struct("<q")
SHARED = 12  # frames on each side of a joint that are compared


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A pass over one piece, and the times and descriptors of the frames around it."""

    record: PassRecord
    lead_times_s: np.ndarray  # float64 [<= SHARED], before its first frame
    lead: np.ndarray  # uint8 [<= SHARED, DIMENSIONS]
    tail_times_s: np.ndarray  # after its last
    tail: np.ndarray


def header(path: Path) -> dict[str, str | float | bool]:
    """What a file says of itself without being decoded: its `kind` (image or video), `width` and `height`;
    of a video `length_s` and `fps` (0 where it does not say) and whether it `may_be_cut` into pieces."""
    if stills.is_still(path):
        _, width, height, _ = stills.animation_header(path)
        return {"kind": "image", "width": width, "height": height}
    info = media.probe(path)
    return {
        "kind": "video",
        "width": info.width,
        "height": info.height,
        "length_s": _stated_s(info),
        "fps": info.fps,
        "may_be_cut": not info.clock_may_jump,
    }


def count_pieces(path: Path, config: AnalyzeConfig) -> int:
    """Into how many pieces the file is cut, from what its header says; one where nothing can be sought."""
    if config.segment_s <= 0 or config.shots.detector != "default" or stills.is_still(path):
        return 1
    info = media.probe(path)
    return 1 if info.clock_may_jump else max(1, math.ceil(_stated_s(info) / config.segment_s - LAST_LONGER))


def watch_piece(path: Path, config: AnalyzeConfig, piece: int, pieces: int) -> bytes:
    """The pass over piece `piece` of `pieces`, packed."""
    info, damage = media.probe(path), Damage()
    start_s, end_s = piece * config.segment_s, (piece + 1) * config.segment_s
    opens, ends = piece == 0, piece == pieces - 1
    if opens:
        frames = media.decode(path, damage, max_pixels=config.max_pixels)
    else:
        frames = media.decode_from(path, start_s - LOOK_BACK_S, max_pixels=config.max_pixels)
    if not ends:
        frames = _until(frames, end_s)
    record = watch(frames, info, config, opens=opens, ends=ends)
    if record is None or damage != Damage():
        raise MediaError("this piece is damaged or empty, or the clock jumps in it")
    count = len(record.times_s)
    first = int(np.searchsorted(record.times_s, start_s))
    last = count if ends else int(np.searchsorted(record.times_s, end_s))
    if first == last or (last == count) != ends:
        raise MediaError("the source is shorter than its header says")
    before, after = slice(max(0, first - SHARED), first), slice(last, count)
    return pack(
        Piece(
            record=between(record, first, last),
            lead_times_s=record.times_s[before],
            lead=record.descriptors[before],
            tail_times_s=record.times_s[after],
            tail=record.descriptors[after],
        ),
        config.strip_quality,
    )


def join_pieces(path: Path, config: AnalyzeConfig, packed: Sequence[Buffer]) -> SourceAnalysis:
    """The rows that one pass over the whole file would give."""
    pieces = [unpack(data) for data in packed]
    for a, b in pairwise(pieces):
        _check(b.lead_times_s, b.lead, a.record.times_s[-len(b.lead) :], a.record.descriptors[-len(b.lead) :])
        _check(a.tail_times_s, a.tail, b.record.times_s[: len(a.tail)], b.record.descriptors[: len(a.tail)])
    whole = join([piece.record for piece in pieces])
    del pieces  # half of what lies in memory by now
    return describe(media.probe(path), whole, config, Damage())


def pack(piece: Piece, quality: int) -> bytes:
    """The length of NumPy's own archive, the archive, the JPEGs."""
    record = piece.record
    arrays = {f.name: getattr(record, f.name) for f in fields(PassRecord) if f.name != "pictures"}
    arrays |= {f.name: getattr(piece, f.name) for f in fields(Piece) if f.name != "record"}
    jpegs = strips.encode_pictures(record.pictures, quality)
    arrays["jpeg_bytes"] = np.array([len(data) for data in jpegs], np.int64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return b"".join([LENGTH.pack(buffer.tell()), buffer.getbuffer(), *jpegs])


def unpack(data: Buffer) -> Piece:
    """The pictures stay where they lie."""
    whole = memoryview(data)
    archive_end = LENGTH.size + LENGTH.unpack_from(whole)[0]
    with np.load(io.BytesIO(whole[LENGTH.size : archive_end]), allow_pickle=False) as archive:
        arrays = dict(archive)
    ends = (archive_end + np.cumsum(arrays.pop("jpeg_bytes"))).tolist()
    jpegs = [whole[a:b] for a, b in pairwise([archive_end, *ends])]
    around = {f.name: arrays.pop(f.name) for f in fields(Piece) if f.name != "record"}
    return Piece(record=PassRecord(**(arrays | {"pictures": jpegs})), **around)


def _stated_s(info: MediaInfo) -> float:
    return info.stream_duration_s or info.container_duration_s


def _until(frames: Iterable[Frame], end_s: float) -> Iterator[Frame]:
    """Frames up to the SHARED-th at or after `end_s`."""
    left = SHARED
    for frame in frames:
        yield frame
        left -= frame.time_s >= end_s
        if left == 0:
            return


def _check(times_s: np.ndarray, frames: np.ndarray, same_times_s: np.ndarray, same: np.ndarray) -> None:
    if not (len(frames) and np.array_equal(times_s, same_times_s) and np.array_equal(frames, same)):
        raise MediaError("decoding from a keyframe gives other frames than decoding from the start")
