"""Which inputs are small stills, and how many of them go to the decoding child at a time.

In: rows of the inputs table. Out: the same rows in runs. Never: a file.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.sources.discover import is_image

# A call costs more than a millisecond whatever it holds (a thread, its confinement, a message each way), a
# still of 1 MB some 100 ms of decoding.
SMALL_BYTES = 1 << 20
RUN_FILES, RUN_BYTES = 256, 8 << 20  # of one call

Row = dict[str, Any]


def is_small_still(row: Row) -> bool:
    """Whether an input is one, by its name and size; its content may tell otherwise."""
    return 0 < row["size_bytes"] <= SMALL_BYTES and is_image(row["uri"])


def runs(rows: Iterable[Row], is_small: Callable[[Row], bool]) -> Iterator[list[Row]]:
    """All rows in order: small ones that follow each other, up to RUN_FILES and RUN_BYTES, and each other row
    alone."""
    run: list[Row] = []
    held_bytes = 0
    for row in rows:
        fits = len(run) < RUN_FILES and held_bytes + row["size_bytes"] <= RUN_BYTES
        if run and not (fits and is_small(row)):
            yield run
            run, held_bytes = [], 0
        if is_small(row):
            run.append(row)
            held_bytes += row["size_bytes"]
        else:
            yield [row]
    if run:
        yield run
