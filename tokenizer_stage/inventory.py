"""What a latent set says it holds, against the clips that are kept and the tars that are there.

In: a corpus and the name of a latent set. Out: errors, empty when index, judgement and listing agree. Reads
the index, the judged table and one listing; never a byte of a tar.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import ShardReader, not_dead

MAX_ERRORS = 100  # that a report names
STALE = "run framemill encode"


def verify_quick(corpus: Corpus, name: str) -> dict[str, Any]:
    """The report of one latent set whose samples are not looked at."""
    reader = ShardReader(f"{corpus.root}/latents/{name}")
    return head(reader, name) | listed_errors(inventory(corpus, reader))


def head(reader: ShardReader, name: str) -> dict[str, Any]:
    """What the set holds, in numbers."""
    return {
        "latents": name,
        "vae": reader.info.vae,
        "shards": pc.count_distinct(reader.index["shard"]).as_py(),
        "samples": reader.index.num_rows,
        "tokens": pc.sum(reader.index["tokens"]).as_py() or 0,
    }


def listed_errors(errors: list[str]) -> dict[str, Any]:
    """The first errors, and how many there are."""
    return {"errors": errors[:MAX_ERRORS], "error_count": len(errors)}


def inventory(corpus: Corpus, reader: ShardReader) -> list[str]:
    """Every kept clip is in the index once, encoded or failed, and nothing else is; every tar of the index is
    there, and no other."""
    kept, held = corpus.kept()["clip_id"], not_dead(reader.everything)["clip_id"]
    counted = pc.value_counts(held)
    times = pa.table({"clip_id": counted.field(0), "count": counted.field(1)})
    repeated = times.filter(pc.greater(times["count"], 1)).sort_by("clip_id").to_pylist()
    indexed, there = (
        set(pc.unique(reader.everything["shard"].drop_null()).to_pylist()),
        set(reader.storage.list("", ".tar")),
    )
    return [
        *(f"{clip_id}: kept, but not in the index; {STALE}" for clip_id in _without(kept, held)),
        *(f"{clip_id}: in the index, but not kept; {STALE}" for clip_id in _without(held, kept)),
        *(f"{row['clip_id']}: {row['count']} times in the index" for row in repeated),
        *(f"{shard}: not in the index" for shard in sorted(there - indexed)),
        *(f"{shard}: missing" for shard in sorted(indexed - there)),
    ]


def _without(ids: pa.ChunkedArray, others: pa.ChunkedArray) -> list[str]:
    """The ids that are not among the others, sorted, each once."""
    missing = ids.filter(pc.invert(pc.is_in(ids, value_set=others)))
    return sorted(pc.unique(missing).to_pylist())
