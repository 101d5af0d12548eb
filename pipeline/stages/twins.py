"""Sources that may have the content of a former input whose rows the corpus has: touched or moved files.

In: inputs to be analyzed, the corpus's rows of this analysis. Out: the same inputs, each beside the row of
its twin, or null. A twin is a guess by size and name that costs no look at the file: of the same uri if there
is one, else of one that ends alike (a whole tree was copied elsewhere), else of the same suffix. Whoever
reads the file compares contents, and a wrong guess costs a decode as before. Never: an input of now (which of
them have rows depends on where a run was killed, and the run that goes on makes the parts of one that was
not), a failed source (it is tried again), one whose clips are not in the corpus (a garbage collection may
have been killed half way).
"""

from collections.abc import Collection
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.ids import sources_of
from pipeline.corpus.manifest import ANALYZE, CLIPS, SOURCES

TWIN = "twin"  # a column beside those of the inputs table: a struct of a sources row, or null
DEPTHS = (4, 2, 1)  # names of a uri that must agree, the last of which is the file's
OF_THE_FILE = frozenset({"source_key", "source_id", "uri", "size_bytes"})  # the rest is of the content


def with_twins(corpus: Corpus, inputs: pa.Table, done: Collection[str]) -> pa.Table:
    """`inputs` and the column TWIN, which is null where the source_key is `done`."""
    keys = inputs["source_key"].combine_chunks()
    is_open = pc.invert(pc.is_in(keys, value_set=pa.array(done, pa.string())))
    known = _known(corpus, inputs.filter(is_open)["size_bytes"].combine_chunks())
    at = pa.nulls(inputs.num_rows, pa.int32())
    if known.num_rows:
        for ours, theirs in zip(_names(inputs), _names(known), strict=True):
            at = pc.coalesce(at, pc.index_in(ours, value_set=theirs))
        at = pc.if_else(is_open, at, None)
    columns = [column.combine_chunks() for column in known.take(at).columns]
    return inputs.append_column(
        TWIN, pa.StructArray.from_arrays(columns, fields=list(known.schema), mask=pc.is_null(at))
    )


def twin_id(row: dict[str, Any]) -> str:
    """The source_id of the twin of a row of the inputs table; "" where it has none."""
    twin = row.get(TWIN)
    return twin["source_id"] if twin else ""


def _known(corpus: Corpus, sizes_bytes: pa.Array) -> pa.Table:
    """Rows of former inputs with one of these sizes that were analyzed, and whose clips are all there."""
    good = pa.array(["ok", "salvaged"])
    rows = corpus.rows(SOURCES, ANALYZE, ["source_id", "status", "size_bytes"])
    fits = pc.and_(
        pc.is_in(rows["status"], value_set=good),
        pc.is_in(rows["size_bytes"], value_set=sizes_bytes),
    )
    now = corpus.inputs()["source_key"].combine_chunks()
    fits = pc.and_not(fits, pc.is_in(rows["source_key"], value_set=now))
    if not pc.any(fits).as_py():
        return tables.SOURCES.empty_table()
    of_clips = sources_of(corpus.rows(CLIPS, ANALYZE)["clip_id"]).unique()
    rows = corpus.rows(SOURCES, ANALYZE, tables.SOURCES.names).filter(fits).select(tables.SOURCES.names)
    return rows.filter(pc.is_in(rows["source_id"], value_set=of_clips))


def _names(rows: pa.Table) -> tuple[pa.Array, ...]:
    """string [N] each: what twins have in common, the surest first."""
    sizes, uris = pc.cast(rows["size_bytes"], pa.string()), rows["uri"]
    ends = [
        pc.replace_substring_regex(uris, rf"(?s)^.*[/#]((?:[^/#]*[/#]){{{depth - 1}}}[^/#]*)$", r"\1")
        for depth in DEPTHS
    ]
    suffixes = pc.utf8_lower(pc.replace_substring_regex(ends[-1], r"(?s)^.*\.", ""))
    return tuple(
        pc.binary_join_element_wise(sizes, what, " ").combine_chunks() for what in (uris, *ends, suffixes)
    )
