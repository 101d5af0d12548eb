"""What a run does about failed items: how many it forgives, and how they are tried again.

In: counts, or the place of a stage. Out: a verdict, or the stage's table without its failed rows, whose items
the next planning finds undone. Never: work on an item, or a change to a row that did not fail.
"""

import re
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.manifest import tables_of


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


def forget_failed(corpus: Corpus, place: str) -> int:
    """Drops the failed rows of a stage; the number dropped. Only these items are done again."""
    table = tables_of(place)[-1]  # of the analysis, the sources
    rows = corpus.rows(table, place, ["status"])
    failed = rows.filter(pc.equal(rows["status"], "failed"))[table.id].combine_chunks()
    corpus.edit(table.folder, failed)
    return len(failed)
