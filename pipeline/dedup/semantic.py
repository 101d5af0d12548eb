"""Clips of like content: pairs whose embeddings are near, found without comparing all pairs.

In: unit vectors. Out: pairs (pipeline/dedup/groups.py PAIRS, kind semantic; distance 1 - cosine).
Neighbours come from a graph index (HNSW, Malkov and Yashunin 2016) of the usearch library, built by one
thread so that the same vectors give the same pairs. Never: a model; the vectors are captioner/embed.py's.
"""

import numpy as np
import pyarrow as pa

from pipeline.dedup.groups import PAIRS
from pipeline.errors import ModelError

NEIGHBOURS = 16  # looked at around each clip; larger groups join through each other


def semantic_pairs(vectors: np.ndarray, rows: np.ndarray, max_distance: float) -> pa.Table:
    """Pairs of `rows` [N] whose vectors, float32 [N, D], lie within `max_distance`."""
    if len(rows) < 2 or max_distance <= 0:
        return PAIRS.empty_table()
    try:
        from usearch.index import Index
    except ImportError as error:
        raise ModelError("usearch is not installed", fix="pip install 'framemill[dedup]'") from error
    index = Index(ndim=vectors.shape[1], metric="cos", dtype="f32")
    index.add(np.arange(len(rows)), vectors, threads=1)
    nearest = index.search(vectors, min(NEIGHBOURS + 1, len(rows)), threads=1)
    keys, distances = nearest.keys.astype(np.int64), nearest.distances  # [N, NEIGHBOURS + 1] each
    one = np.repeat(np.arange(len(rows)), keys.shape[1]).reshape(keys.shape)
    near = (distances <= max_distance) & (keys != one)
    a, b = np.minimum(one, keys)[near], np.maximum(one, keys)[near]
    _, first = np.unique(a << 32 | b, return_index=True)
    columns = [
        pa.array(rows[a[first]], pa.int64()),
        pa.array(rows[b[first]], pa.int64()),
        pa.array(["semantic"] * len(first), pa.string()),
        pa.array([False] * len(first), pa.bool_()),
        pa.array(np.maximum(distances[near][first], 0), pa.float32()),
    ]
    return pa.table(columns, schema=PAIRS)
