"""What a corpus holds: counts by status and reason for sources, clips, captions and shards.

In: a corpus. Out: plain numbers that add up: sources = ok + salvaged + failed; clips = kept +
rejected + failed + unjudged. Reads tables only.
"""

from collections import Counter
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.corpus import Corpus


def status(corpus: Corpus) -> dict[str, Any]:
    """Counts of every table of the corpus, as `framemill status --json` prints them."""
    inputs, sources, clips, judged = corpus.inputs(), corpus.sources(), corpus.clips(), corpus.judged()
    known = pa.array(clips["clip_id"].to_pylist(), pa.string())
    judged = judged.filter(pc.is_in(judged["clip_id"], value_set=known))
    return {
        "sources": {
            "total": inputs.num_rows,
            "pending": inputs.num_rows - sources.num_rows,
            "status": _counts(sources["status"]),
            "reasons": _counts(sources.filter(pc.equal(sources["status"], "failed"))["reason"]),
            "copies": sources.num_rows - len(set(sources["source_id"].to_pylist())),
            "duration_s": round(pc.sum(sources["duration_s"]).as_py() or 0.0, 3),
        },
        "clips": {
            "total": clips.num_rows,
            "pending": clips.num_rows - judged.num_rows,
            "status": _counts(judged["status"]),
            "reasons": _counts(pc.list_flatten(judged["reasons"])),
            "kept_s": round(
                pc.sum(judged.filter(pc.equal(judged["status"], "kept"))["duration_s"]).as_py() or 0.0, 3
            ),
        },
        "captions": {name: _captions(corpus, name) for name in _names(corpus, "captions/")},
        "latents": {name: _latents(corpus, name) for name in _names(corpus, "latents/")},
    }


def _captions(corpus: Corpus, name: str) -> dict[str, Any]:
    rows = corpus.captions(name)
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    return {"total": rows.num_rows, "status": _counts(rows["status"]), "reasons": _counts(failed["reason"])}


def _latents(corpus: Corpus, name: str) -> dict[str, Any]:
    path = f"latents/{name}/index.parquet"
    rows = tables.INDEX.empty_table()
    if corpus.storage.exists(path):
        rows = tables.from_parquet(corpus.storage.read_bytes(path), tables.INDEX)
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    return {
        "shards": len(corpus.storage.list(f"latents/{name}", ".tar")),
        "samples": rows.num_rows,
        "status": _counts(rows["status"]),
        "reasons": _counts(failed["reason"]),
        "tokens": pc.sum(rows["tokens"]).as_py() or 0,
    }


def _names(corpus: Corpus, prefix: str) -> list[str]:
    return sorted(s.removeprefix(prefix) for s in corpus.fingerprints() if s.startswith(prefix))


def _counts(values: Any) -> dict[str, int]:
    return dict(sorted(Counter(v for v in values.to_pylist() if v).items()))
