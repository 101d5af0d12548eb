"""What the report speaks of: the tables of a corpus, joined once.

In: a corpus. Out: Arrow tables and columns of numbers as long as they are: no row is a Python value before a
section has chosen it. Judges nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import LatentSet
from pipeline.corpus.status import status

Row = Mapping[str, Any]
STATES = ("kept", "rejected", "failed")
CLIP_COLUMNS = tuple(name for name in tables.CLIPS.names if name != "phash")
CAPTION_COLUMNS = tuple(name for name in tables.CAPTIONS.names if name != "original")
SOURCE_COLUMNS = (
    "source_id",
    "uri",
    "kind",
    "status",
    "reason",
    "duration_s",
    "transfer",
    "has_audio",
    "original",
    "licence",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """`counts` are those of `framemill status --json`; `sources` (SOURCE_COLUMNS) are sorted by uri; `clips`
    and `judged` by clip id, `judged` without rows of clips that are gone; `clip_of` int64 [N] is the row of
    each judged clip among the clips. `captions` and `encoded` (index rows) are those of clips that are kept
    now, by captioner and by latent set."""

    corpus: Corpus
    counts: Row
    sources: pa.Table
    clips: pa.Table
    judged: pa.Table
    clip_of: np.ndarray
    captions: Mapping[str, pa.Table]
    encoded: Mapping[str, pa.Table]

    @classmethod
    def of(cls, corpus: Corpus) -> "Contents":
        counts, clips, judged = status(corpus), corpus.clips(CLIP_COLUMNS), corpus.judged()
        at = pc.index_in(judged["clip_id"], value_set=clips["clip_id"])
        there = pc.is_valid(at)
        judged = judged.filter(there)
        kept = judged.filter(pc.equal(judged["status"], "kept"))["clip_id"]

        def of_kept(rows: pa.Table) -> pa.Table:  # judging anew leaves those of others behind
            return rows.filter(pc.is_in(rows["clip_id"], value_set=kept))

        return cls(
            corpus=corpus,
            counts=counts,
            sources=corpus.sources(SOURCE_COLUMNS),
            clips=clips,
            judged=judged,
            clip_of=at.filter(there).to_numpy().astype(np.int64),
            captions={name: of_kept(corpus.captions(name, CAPTION_COLUMNS)) for name in counts["captions"]},
            encoded={name: of_kept(LatentSet(corpus.storage, name).index()) for name in counts["latents"]},
        )

    def is_judged(self, state: str) -> np.ndarray:
        """bool [N] of the judged rows: which have this status."""
        return equals(self.judged["status"], state)


def equals(column: pa.ChunkedArray, value: str) -> np.ndarray:
    """bool [N]; null is no value."""
    return pc.fill_null(pc.equal(column, value), False).to_numpy(zero_copy_only=False)


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    """float64 [N], NaN where there is no value."""
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def duration_s(clips: pa.Table) -> np.ndarray:
    """Length of each clip, float64 [N]; an image has none."""
    start_s, end_s = (np.nan_to_num(numbers(clips[name])) for name in ("start_s", "end_s"))
    return np.where(equals(clips["kind"], "image"), 0.0, np.maximum(end_s - start_s, 0.0))


def tally(values: pa.ChunkedArray | pa.Array) -> dict[str, int]:
    """Text → how often it stands there, nulls left out."""
    counted = pc.value_counts(values.drop_null())
    return dict(zip(*(counted.field(n).to_pylist() for n in (0, 1)), strict=True))


def ranked(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The most frequent first."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
