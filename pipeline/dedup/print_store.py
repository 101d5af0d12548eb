"""The prints of many clips, so that a million of them need not lie in memory.

In: a corpus and the clips that matter, or arrays. Out: prints (pipeline/dedup/prints.py) by clip number: all
of them chunk by chunk, then any by number. Never: the filmstrips' pictures beside them (Parquet columns are
read apart), a decision.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import pyarrow as pa

from pipeline.corpus.corpus import Corpus
from pipeline.dedup.prints import PRINT_SIZE
from pipeline.progress import Progress

CHUNK = 8192  # prints: of three seconds each, a hundred MB of vectors in the making
Chunk = tuple[np.ndarray, list[np.ndarray]]  # clip numbers int64 [N], their prints uint8 [S, PRINT_SIZE]


class Prints(Protocol):
    """Prints by clip number, 0 to len - 1."""

    def __len__(self) -> int: ...

    def chunks(self) -> Iterator[Chunk]:
        """Every clip that has a print, once, in any order."""
        ...

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        """The prints of these clips, once all chunks have been read."""
        ...


class JoinedPrints:
    """The prints of one set, then those of another, numbered on."""

    def __init__(self, first: Prints, second: Prints) -> None:
        self._first, self._second = first, second

    def __len__(self) -> int:
        return len(self._first) + len(self._second)

    def chunks(self) -> Iterator[Chunk]:
        yield from self._first.chunks()
        for numbers, prints in self._second.chunks():
            yield numbers + len(self._first), prints

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        numbers, first = list(numbers), len(self._first)
        earlier = self._first.load(n for n in numbers if n < first)
        later = self._second.load(n - first for n in numbers if n >= first)
        return earlier | {n + first: samples for n, samples in later.items()}


class CorpusPrints:
    """Prints of clips of a corpus, numbered as in `clip_ids` (sorted). The corpus is read once, by `chunks`,
    which copies the prints into a temporary file for `load`."""

    def __init__(self, corpus: Corpus, clip_ids: pa.Array) -> None:
        self._corpus = corpus
        self._ids = np.array(clip_ids.to_pylist(), "S")  # a search in it costs no table of all ids per part
        self._spool = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this object)
        self._start = np.full(len(clip_ids), -1, np.int64)  # byte offset in the file; -1: no print
        self._size = np.zeros(len(clip_ids), np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def chunks(self) -> Iterator[Chunk]:
        at = 0
        for rows in self._slices() if len(self._ids) else ():
            names = np.array(rows["clip_id"].to_pylist(), "S")
            numbers = np.searchsorted(self._ids, names).clip(max=len(self._ids) - 1)
            ours = self._ids[numbers] == names
            fresh = np.flatnonzero(ours & (self._start[numbers] < 0))  # equal files may lie in two parts
            numbers, prints = numbers[fresh], samples_of(rows["print"].take(pa.array(fresh)))
            sizes = np.array([p.nbytes for p in prints], np.int64)
            self._start[numbers], self._size[numbers] = at + np.cumsum(sizes) - sizes, sizes
            at += int(sizes.sum())
            self._spool.writelines(p.tobytes() for p in prints)
            yield numbers, prints

    def _slices(self) -> Iterator[pa.Table]:
        """The corpus's prints, CHUNK of them at a time: whoever reads them works on whole chunks."""
        for rows in self._corpus.prints():
            for start in range(0, rows.num_rows, CHUNK):
                yield rows.slice(start, CHUNK)

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        self._spool.flush()
        file, prints = self._spool.fileno(), {}
        for n in numbers:
            data = os.pread(file, int(self._size[n]), int(self._start[n]))
            prints[n] = np.frombuffer(data, np.uint8).reshape(-1, PRINT_SIZE)
        return prints


class WatchedPrints:
    """Other prints, with a report of who reads them: all of them first, then those that are compared."""

    def __init__(self, prints: Prints, progress: Progress) -> None:
        self._prints, self._progress, self._compared = prints, progress, 0

    def __len__(self) -> int:
        return len(self._prints)

    def chunks(self) -> Iterator[Chunk]:
        count = 0
        for numbers, prints in self._prints.chunks():
            count += len(numbers)
            self._progress(count, len(self), {"doing": "prints"})
            yield numbers, prints
        self._progress(count, len(self), {"doing": "candidate pairs"})

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        wanted = list(numbers)
        self._compared += len(wanted)
        self._progress(len(self), len(self), {"doing": "alignment", "compared": self._compared})
        return self._prints.load(wanted)


def samples_of(column: pa.ChunkedArray) -> list[np.ndarray]:
    """uint8 [S, PRINT_SIZE] of each value of a print column."""
    return [np.frombuffer(value.as_buffer(), np.uint8).reshape(-1, PRINT_SIZE) for value in column]
