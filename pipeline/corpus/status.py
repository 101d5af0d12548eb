"""What a corpus holds: counts by status and class of reason for sources, clips, captions and shards.

In: a corpus. Out: plain numbers that add up: sources = ok + salvaged + failed; clips = kept +
rejected + failed + unjudged. Reads tables only.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus, kept
from pipeline.corpus.failures import FailureLimit
from pipeline.corpus.latent_set import LatentSet
from pipeline.operation.reasons import of_column
from pipeline.progress import said


def status(corpus: Corpus) -> dict[str, Any]:
    """Counts of every table of the corpus, as `framemill status --json` prints them."""
    inputs, judged = corpus.inputs(), corpus.judged()
    sources = corpus.sources(["source_id", "status", "reason", "duration_s"])
    clips = corpus.clips(["clip_id"])
    judged = judged.filter(pc.is_in(judged["clip_id"], value_set=clips["clip_id"]))
    contents = sources["source_id"].drop_null()
    return {
        "sources": {
            "total": inputs.num_rows,
            "pending": inputs.num_rows - sources.num_rows,
            "status": _counts(sources["status"]),
            **of_column(sources.filter(pc.equal(sources["status"], "failed"))["reason"]),
            "copies": len(contents) - pc.count_distinct(contents).as_py(),
            "duration_s": round(pc.sum(sources["duration_s"]).as_py() or 0.0, 3),
        },
        "clips": {
            "total": clips.num_rows,
            "pending": clips.num_rows - judged.num_rows,
            "status": _counts(judged["status"]),
            **of_column(pc.list_flatten(judged["reasons"])),
            "kept_s": round(pc.sum(kept(judged)["duration_s"]).as_py() or 0.0, 3),
        },
        "captions": {name: _captions(corpus, name) for name in corpus.sets("captions")},
        "latents": {name: _latents(corpus, name) for name in corpus.sets("latents")},
    }


def failures_above(limit: FailureLimit, counts: dict[str, Any], stages: Sequence[str]) -> list[str]:
    """A line for each table with more failed items than the limit: the sources, always, and the captions
    and latents when their stage was among `stages`."""
    groups = {"sources": counts["sources"]}
    if "caption" in stages:
        groups |= {f"captions {name}": group for name, group in counts["captions"].items()}
    if "encode" in stages:
        groups |= {f"latents {name}": group for name, group in counts["latents"].items()}
    lines = []
    for name, group in groups.items():
        failed, total = group["status"].get("failed", 0), sum(group["status"].values())
        if limit.exceeded(failed, total):
            lines.append(f"{failed} of {total} {name} failed")
    return lines


def stage_lines(stages: Sequence[dict[str, Any]], counts: dict[str, Any]) -> list[str]:
    """A table of what each stage did, then the status, for people."""
    lines = [f"{'stage':<10}{'tasks':>7}{'seconds':>9}  result"]
    for row in stages:
        told = {k: v for k, v in row.items() if k not in ("stage", "tasks", "seconds") and v != 0}
        facts = ", ".join(said(told))
        lines.append(f"{row['stage']:<10}{row['tasks']:>7}{row['seconds']:>9.1f}  {facts or 'nothing to do'}")
    return [*lines, "", *status_lines(counts)]


def status_lines(counts: dict[str, Any]) -> list[str]:
    """The status for people: a line a table, its reasons below."""
    sources, clips = counts["sources"], counts["clips"]
    groups = [
        (
            "sources",
            f"{sources['total']} ({sources['duration_s']:.1f} s, {sources['copies']} copies)",
            sources,
        ),
        ("clips", f"{clips['total']} ({clips['kept_s']:.1f} s kept)", clips),
    ]
    groups += [(f"captions {name}", f"{c['total']}", c) for name, c in counts["captions"].items()]
    for name, latents in counts["latents"].items():
        groups.append((f"latents {name}", f"{latents['samples']} in {latents['shards']} shards", latents))
    lines = []
    for name, head, group in groups:
        facts = [*group["status"].items(), *(("pending", n) for n in [group.get("pending", 0)] if n)]
        lines.append(f"{name:<18}{head}: " + ", ".join(f"{k} {v}" for k, v in facts))
        lines += [f"{'':<20}{reason} × {n:,}" for reason, n in group["reasons"].items()]
    return lines


def _captions(corpus: Corpus, name: str) -> dict[str, Any]:
    rows = corpus.captions(name, ["status", "reason"])
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    return {"total": rows.num_rows, "status": _counts(rows["status"]), **of_column(failed["reason"])}


def _latents(corpus: Corpus, name: str) -> dict[str, Any]:
    latents = LatentSet(corpus.storage, name)
    rows = latents.index()
    failed = rows.filter(pc.equal(rows["status"], "failed"))
    return {
        "shards": len(latents.shards()),
        "samples": rows.num_rows,
        "status": _counts(rows["status"]),
        **of_column(failed["reason"]),
        "tokens": pc.sum(rows["tokens"]).as_py() or 0,
    }


def _counts(values: pa.ChunkedArray) -> dict[str, int]:
    """How often each text stands there; null and empty ones are not counted."""
    counted = pc.value_counts(values).to_pylist()
    return dict(sorted((row["values"], row["counts"]) for row in counted if row["values"]))
