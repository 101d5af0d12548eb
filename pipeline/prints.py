"""The prints of many clips, read in passes so that a million of them need not lie in memory.

In: a corpus and the clips that matter, or arrays. Out: prints (pipeline/fingerprint.py) by clip number: all
of them chunk by chunk, or a few by name. Never: the filmstrips' pictures beside them (Parquet columns are
read apart), a decision.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import Corpus
from pipeline.fingerprint import PRINT_SIZE

Chunk = tuple[np.ndarray, list[np.ndarray]]  # clip numbers int64 [N], their prints uint8 [S, PRINT_SIZE]


class Prints(Protocol):
    """Prints by clip number, 0 to len - 1."""

    def __len__(self) -> int: ...

    def chunks(self) -> Iterator[Chunk]:
        """Every clip that has a print, once, in any order."""
        ...

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        """The prints of these clips."""
        ...


class PrintList:
    """Prints that lie in memory."""

    def __init__(self, prints: Sequence[np.ndarray]) -> None:
        self._prints = prints

    def __len__(self) -> int:
        return len(self._prints)

    def chunks(self) -> Iterator[Chunk]:
        yield np.arange(len(self._prints)), list(self._prints)

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        return {n: self._prints[n] for n in numbers}


class CorpusPrints:
    """Prints of clips of a corpus, numbered as in `clip_ids` (sorted). Parts are read one after another."""

    def __init__(self, corpus: Corpus, clip_ids: pa.Array) -> None:
        self._corpus, self._ids = corpus, clip_ids

    def __len__(self) -> int:
        return len(self._ids)

    def chunks(self) -> Iterator[Chunk]:
        return self._read(self._ids)

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        asked = self._ids.take(pa.array(sorted(numbers), pa.int64()))
        return {
            int(n): samples
            for found, prints in self._read(asked)
            for n, samples in zip(found, prints, strict=True)
        }

    def _read(self, clip_ids: pa.Array) -> Iterator[Chunk]:
        seen = np.zeros(len(self._ids), bool)  # files of equal content may lie in two parts
        for rows in self._corpus.prints():
            rows = rows.filter(pc.is_in(rows["clip_id"], value_set=clip_ids))
            numbers = pc.index_in(rows["clip_id"], value_set=self._ids).to_numpy()
            fresh = np.flatnonzero(~seen[numbers])
            seen[numbers] = True
            yield numbers[fresh], samples_of(rows["print"].take(pa.array(fresh)))


def samples_of(column: pa.ChunkedArray) -> list[np.ndarray]:
    """uint8 [S, PRINT_SIZE] of each value of a print column."""
    return [np.frombuffer(value.as_buffer(), np.uint8).reshape(-1, PRINT_SIZE) for value in column]
