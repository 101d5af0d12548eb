"""What the receipts of one stage add up to, and what follows from their clocks.

In: a StageRun. Out: counts, amounts, and how busy its workers were. Pure. What the receipts do not say (those
of an executor that knows no clock) is None, never zero.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.operation.receipts import AMOUNTS, StageRun


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Sums over the receipts of a stage. `workers` is the most tasks that ever ran at once, and `busy_share`
    the part of `workers` × wall time in which they worked on tasks (0 to 1)."""

    ended: int
    lost: int
    retried: int
    nodes: tuple[str, ...]
    busy_s: float
    counts: dict[str, int]
    failures: dict[str, int]
    losses: dict[str, int]
    amounts: dict[str, float]  # those of AMOUNTS that the stage counts
    waiting_bytes: int | None
    workers: int | None
    busy_share: float | None


def totals(stage: StageRun) -> Totals:
    """Adds up one stage."""
    rows = stage.receipts
    workers = most_at_once(rows["started_s"], rows["seconds"])
    busy_s = float(pc.sum(rows["seconds"]).as_py() or 0.0)
    share = min(1.0, busy_s / (workers * stage.wall_s)) if workers and stage.wall_s > 0 else None
    input_bytes = pc.sum(rows["input_bytes"]).as_py() or 0
    sums = {name: pc.sum(rows[name]).as_py() for name in AMOUNTS}
    return Totals(
        ended=rows.num_rows,
        lost=rows.num_rows - rows["lost"].null_count,
        retried=pc.sum(pc.greater(rows["tries"], 1)).as_py() or 0,
        nodes=tuple(sorted(pc.unique(rows["node"].drop_null()).to_pylist())),
        busy_s=busy_s,
        counts=added(rows["counts"]),
        failures=added(rows["failures"]),
        losses=dict(Counter(rows["lost"].drop_null().to_pylist())),
        amounts={name: value for name, value in sums.items() if value is not None},
        waiting_bytes=None if stage.input_bytes is None else stage.input_bytes - input_bytes,
        workers=workers,
        busy_share=share,
    )


def most_at_once(started_s: pa.ChunkedArray, seconds: pa.ChunkedArray) -> int | None:
    """How many of these spans overlapped at the most; None where a clock is missing, or there is none."""
    known = pc.is_valid(started_s)
    if not len(started_s) or not pc.all(known).as_py():
        return None
    starts = started_s.to_numpy()
    ends = starts + seconds.to_numpy()
    times_s = np.concatenate([starts, ends])
    steps = np.concatenate([np.ones(len(starts), int), -np.ones(len(ends), int)])
    order = np.lexsort((steps, times_s))  # one that ends when another begins made room for it
    return max(1, int(np.cumsum(steps[order]).max()))


def added(maps: pa.ChunkedArray) -> dict[str, int]:
    """The values of maps, summed by key, in the order of the keys."""
    counts: Counter[str] = Counter()
    for chunk in maps.chunks:
        pairs = (
            pa.table({"key": chunk.keys, "value": chunk.items}).group_by("key").aggregate([("value", "sum")])
        )
        counts.update(dict(zip(pairs["key"].to_pylist(), pairs["value_sum"].to_pylist(), strict=True)))
    return dict(sorted(counts.items()))


def merged(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts by key, added; the largest first."""
    total: Counter[str] = Counter()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))
