"""Sources of the run before that this one does not ask for: named before their clips leave the corpus.

In: the inputs of both runs. Out: the rows that are missing now, and words for them. Uris are compared: a file
that changed under its name is there, one that was taken down is not missed. Never: a look at storage.
"""

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import StorageError

NAMED = 5  # in the line on stderr and in the result


def absent_inputs(
    before: pa.Table, now: pa.Table, taken_down: Iterable[str] = (), closed: Iterable[str] = ()
) -> pa.Table:
    """Rows of `before` (tables.INPUTS) whose uri is not among those of `now`, in their order, but not those
    whose source_key is `taken_down`.

    Raises:
        StorageError: some lie below a folder that could not be listed, `closed`: whether they are there still
            nobody knows.
    """
    uris, gone = now["uri"].combine_chunks(), pa.array(sorted(taken_down), pa.string())
    there = pc.or_(pc.is_in(before["uri"], value_set=uris), pc.is_in(before["source_key"], value_set=gone))
    absent = before.filter(pc.invert(there))
    for folder in closed:
        unseen = pc.sum(pc.starts_with(absent["uri"], f"{folder}/")).as_py()
        if unseen:
            raise StorageError(
                f"cannot list {folder}, where {unseen} sources of the last run lie",
                fix="check its permissions; --keep-absent keeps them",
            )
    return absent


def absent_line(absent: pa.Table, before: int, *, keep: bool) -> str:
    """One line for people; "" where nothing is absent."""
    if not absent.num_rows:
        return ""
    uris = absent["uri"].to_pylist()
    named = ", ".join(uris[:NAMED]) + (", …" if len(uris) > NAMED else "")
    fate = (
        "they are kept"
        if keep
        else "their clips leave the corpus, unless they were moved; --keep-absent keeps them"
    )
    return f"{len(uris)} of {before} sources of the last run are not asked for now ({named}): {fate}"


def absent_remark(absent: pa.Table, *, keep: bool) -> dict[str, Any]:
    """The same for machines: how many, the first uris, whether they stay."""
    return {"sources": absent.num_rows, "first": absent["uri"].to_pylist()[:NAMED], "kept": keep}


def with_absent(now: pa.Table, absent: pa.Table) -> pa.Table:
    """The inputs of a run that keeps what it does not ask for, sorted by uri."""
    return pa.concat_tables([now, absent]).sort_by("uri").combine_chunks()
