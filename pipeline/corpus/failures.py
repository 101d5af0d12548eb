"""What a run does about failed items: how many it forgives, and how they are tried again.

In: counts, or the parts of a stage. Out: a verdict, or parts without their failed rows, whose items the
next planning finds undone. Never: work on an item, or a change to a row that did not fail.
"""

import re
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureLimit:
    """The most failed items that a run forgives: a share of all, or a count."""

    share: float | None = None
    count: int = 0

    @classmethod
    def parse(cls, text: str) -> "FailureLimit":
        """`5%` and `0.05` are shares, `10` is a count."""
        if percent := re.fullmatch(r"(\d+(?:\.\d+)?)%", text):
            return cls(share=float(percent[1]) / 100)
        if text.isdecimal():
            return cls(count=int(text))
        share = float(text)
        if not 0 <= share <= 1:
            raise ValueError(text)
        return cls(share=share)

    def exceeded(self, failed: int, total: int) -> bool:
        return failed > (self.count if self.share is None else self.share * total)

    def __str__(self) -> str:
        return str(self.count) if self.share is None else f"{100 * self.share:g}%"


def forget_failed(corpus: Corpus, folder: str, stage: str, schema: pa.Schema) -> int:
    """Drops the failed rows from a stage's current parts; the number dropped. Only these items are done
    again: a part that keeps rows keeps its name. Killed half way, it has forgotten fewer."""
    dropped = 0
    for key in corpus.part_keys(folder, stage):
        path = f"{folder}/{key}.parquet"
        rows = tables.from_parquet(corpus.storage.read_bytes(path), schema)
        good = rows.filter(pc.not_equal(rows["status"], "failed"))
        dropped += rows.num_rows - good.num_rows
        if good.num_rows == 0 < rows.num_rows:
            corpus.storage.delete(path)
        elif good.num_rows < rows.num_rows:
            corpus.storage.write_bytes(path, tables.to_parquet(good))
    return dropped
