"""What must not be split between training and validation: connected groups of sources.

In: a corpus, a column of its manifests. Out: a number for each source id. Two sources are connected when a
clip of one is a copy of a clip of the other, or when their manifests say the same in that column (video_id,
say, of clips cut from one film). A group's number is a hash of its first source id: of a source that is
connected with none it depends on nothing else, and never changes.
"""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.ids import sources_of

DUPLICATES_PATH = "duplicates.parquet"
OWN_COLUMNS = ("licence", "original")  # of the manifests; every other one is in `attributes`


def groups_of(corpus: Corpus, source_ids: pa.ChunkedArray, split_by: str) -> pa.Array:
    """uint64 [N]: the group of each of these source ids."""
    pairs = [_copies(corpus)] + ([_agreeing(corpus, split_by)] if split_by else [])
    joined = pa.concat_tables(pairs)
    every = pc.unique(
        pa.chunked_array([*source_ids.chunks, *joined["a"].chunks, *joined["b"].chunks], pa.string())
    )
    every = every.take(pc.sort_indices(every))
    one, other = (pc.index_in(joined[name], value_set=every).to_numpy() for name in ("a", "b"))
    first = connected(len(every), one, other)  # of each source the smallest of its group, by number
    wanted = first[pc.index_in(source_ids, value_set=every).to_numpy()]
    heads, at = np.unique(wanted, return_inverse=True)
    hashes = [_hashed(head) for head in every.take(pa.array(heads)).to_pylist()]
    return pa.array(np.array(hashes, np.uint64)[at], pa.uint64())


def connected(count: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """int64 [count]: the smallest number that each is connected with, by pairs of numbers [P]."""
    first = np.arange(count)
    while True:
        before = first
        smaller = np.minimum(first[one], first[other])
        first = first.copy()
        np.minimum.at(first, one, smaller)
        np.minimum.at(first, other, smaller)
        first = first[first]
        if (first == before).all():
            return first


def _hashed(source_id: str) -> int:
    """64 bits; training/rng.py makes shares of the same."""
    return int.from_bytes(hashlib.blake2b(source_id.encode(), digest_size=8).digest(), "big")


def _copies(corpus: Corpus) -> pa.Table:
    """Pairs of sources of which clips are in one group of copies."""
    data = corpus.storage.read_if_there(DUPLICATES_PATH)
    if data is None:
        return pa.table({"a": pa.chunked_array([], pa.string()), "b": pa.chunked_array([], pa.string())})
    rows = tables.from_parquet(data, tables.DUPLICATES, ["group_id", "clip_id"])
    return pa.table({"a": sources_of(rows["group_id"]), "b": sources_of(rows["clip_id"])})


def _agreeing(corpus: Corpus, column: str) -> pa.Table:
    """Pairs of sources whose manifests say the same in a column: each with the first that says so."""
    own = column in OWN_COLUMNS
    rows = corpus.contents([column if own else "attributes"])
    values = (
        rows[column].to_pylist() if own else [_said(text, column) for text in rows["attributes"].to_pylist()]
    )
    first: dict[str, str] = {}
    pairs = [
        (source_id, first.setdefault(value, source_id))
        for source_id, value in zip(rows["source_id"].to_pylist(), values, strict=True)
        if value is not None
    ]
    return pa.table(
        {"a": pa.array([a for a, _ in pairs], pa.string()), "b": pa.array([b for _, b in pairs], pa.string())}
    )


def _said(attributes: str | None, column: str) -> str | None:
    value = json.loads(attributes or "{}").get(column)
    return None if value is None else json.dumps(value, sort_keys=True)
