"""What a run over some sources would take, from a sample of them: `framemill plan`.

In: the inputs table, the config. Out: expected hours of footage, clips, funnel, worker hours and storage.
Never: a file outside a temporary folder, a random number that is not seeded.

The sample is the same every time: the sources in the order of the hash of their keys. PROBED of them are
asked for their length (header only), and of these as many are analysed, in that order, as fit into a budget
of footage. Footage is extrapolated by bytes (videos) and by number (stills), all else by footage.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.engine.stage import Failure, guard
from pipeline.sandbox.sandbox import Sandbox
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import find_pairs, judge
from pipeline.uris import local_path

PROBED = 64
PROBE_S = 60.0  # a header that takes longer is unreadable
DRAWS = 400  # of the bootstrap behind the range of hours
# Worker seconds a kept clip, the built-in models on one CPU core (README, Figures); the analysis is measured.
CAPTION_S, ENCODE_S = 0.11, 0.085
LATENT_CHANNELS, STRIDE_T, STRIDE_S, SAMPLE_BYTES = 16, 4, 8, 5000  # a sample's JSON and tar headers


def plan_run(
    inputs: pa.Table,
    config: Config,
    *,
    budget_s: float = 120.0,
    progress: Callable[[int, int, dict[str, int]], None] = lambda *_: None,
) -> dict[str, Any]:
    """What to expect of a run over `inputs`; analyses about `budget_s` seconds of their footage."""
    rows = sorted(inputs.to_pylist(), key=lambda r: hashlib.sha256(r["source_key"].encode()).digest())
    with Sandbox(replace(config.analyze.limits(), deadline_s=PROBE_S)) as box:
        probed = [row | {"length_s": _length_s(row["uri"], box)} for row in rows[:PROBED]]
    good = [row for row in probed if row["length_s"] is not None]
    chosen = _chosen(good, budget_s)
    total_bytes = sum(row["size_bytes"] or 0 for row in rows)
    share = len(rows) / max(1, len(probed))
    found = _analysed(chosen, inputs.schema, config, progress) if chosen else None
    videos = [row for row in good if row["length_s"] > 0]
    video_bytes = sum(row["size_bytes"] for row in videos)
    scale_bytes = total_bytes / max(1, sum(row["size_bytes"] or 0 for row in probed))
    hours = sum(row["length_s"] for row in videos) * scale_bytes / 3600
    plan: dict[str, Any] = {
        "sources": len(rows),
        "gigabytes": round(total_bytes / 1e9, 3),
        "probed": len(probed),
        "unreadable": round(share * (len(probed) - len(good))),
        "hours": round(hours, 3),
        "hours_90": [round(h, 3) for h in _range(videos, hours)] if video_bytes else [0.0, 0.0],
    }
    if found is None:
        return plan | {"analysed": 0}
    looked_s = sum(row["length_s"] for row in chosen)
    scale = 3600 * hours / looked_s if looked_s else share * len(good) / len(chosen)
    return plan | {"analysed": len(chosen), "analysed_s": round(looked_s, 1)} | _scaled(found, scale, config)


def plan_lines(plan: dict[str, Any]) -> list[str]:
    """The plan for people."""
    low, high = plan["hours_90"]
    lines = [
        f"{plan['sources']} sources, {plan['gigabytes']:g} GB; "
        f"{plan['probed']} probed, {plan['analysed']} analysed ({plan.get('analysed_s', 0):g} s)",
        f"footage     {plan['hours']:g} h (90 %: {low:g} to {high:g})",
        f"unreadable  {plan['unreadable']} sources",
    ]
    if not plan["analysed"]:
        return [*lines, "nothing could be analysed"]
    lines.append(f"clips       {plan['clips']}")
    lines += [f"  {name:<22}{count:>10}" for name, count in plan["funnel"].items()]
    lines += [f"  {name:<14}{hours:>9.3f} worker hours" for name, hours in plan["worker_hours"].items()]
    lines += [f"  {name:<14}{size:>9.3f} GB" for name, size in plan["storage_gb"].items()]
    return lines


def _scaled(found: dict[str, Any], scale: float, config: Config) -> dict[str, Any]:
    """The sample's figures for the whole."""
    kept = found["funnel"].get("kept", 0) * scale
    encode = config.encode
    latent = LATENT_CHANNELS * (1 + (encode.max_frames - 1) // STRIDE_T) * encode.area_px // STRIDE_S**2 * 2
    return {
        "clips": round(found["clips"] * scale),
        "funnel": {name: round(count * scale) for name, count in found["funnel"].items()},
        "worker_hours": {
            "analyze": round(found["seconds"] * scale / 3600, 4),
            "caption": round(kept * CAPTION_S / 3600, 4),
            "encode": round(kept * ENCODE_S / 3600, 4),
        },
        "storage_gb": {
            "tables": round(found["bytes"] * scale / 1e9, 4),
            "latents": round(kept * (latent + SAMPLE_BYTES) / 1e9, 4),
        },
    }


def _length_s(uri: str, box: Sandbox) -> float | None:
    """Seconds of a video, 0 of a still, None of what cannot be opened."""

    def ask() -> float:
        with local_path(uri) as path:
            return box.length_s(path)

    found = guard(ask)
    return None if isinstance(found, Failure) else found


def _chosen(rows: Sequence[dict[str, Any]], budget_s: float) -> list[dict[str, Any]]:
    """Sources in order until the budget is spent, those that are longer than all of it left out; the
    shortest when nothing is left."""
    taken: list[dict[str, Any]] = []
    left_s = budget_s
    for row in rows:
        if left_s > 0 and row["length_s"] <= budget_s:
            taken.append(row)
            left_s -= row["length_s"]
    return taken or sorted(rows, key=lambda row: row["length_s"])[:1]


def _analysed(
    rows: Sequence[dict[str, Any]], schema: pa.Schema, config: Config, progress: Callable[..., None]
) -> dict[str, Any]:
    """Clips, funnel, seconds and bytes of the sample, by the stages themselves in a temporary corpus."""
    inputs = pa.Table.from_pylist([{name: row[name] for name in schema.names} for row in rows], schema=schema)
    with tempfile.TemporaryDirectory(prefix="framemill-plan-") as folder:
        corpus = Corpus(folder)
        summary = analyze_corpus(corpus, inputs.sort_by("uri"), config, LocalExecutor(), progress)
        clips = corpus.clips()
        pairs = find_pairs(corpus, clips, config.judge) if config.judge.dedup else None
        judged = judge(clips, config.judge, pairs).judged
        size = sum(file.size_bytes for file in corpus.storage.walk())
    funnel = Counter(judged["status"].to_pylist())
    for reasons in judged["reasons"].to_pylist():
        funnel.update(f"  {reason}" for reason in reasons or ())
    return {"clips": clips.num_rows, "funnel": dict(funnel), "seconds": summary.seconds, "bytes": size}


def _range(videos: Sequence[dict[str, Any]], hours: float) -> tuple[float, float]:
    """The middle 90 % of the estimate when the probed videos are drawn again with replacement."""
    seconds, sizes = (np.array([row[name] for row in videos], float) for name in ("length_s", "size_bytes"))
    drawn = np.random.default_rng(0).integers(0, len(videos), (DRAWS, len(videos)))
    rates = seconds[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(rates / (seconds.sum() / sizes.sum()), [0.05, 0.95])
    return float(low) * hours, float(high) * hours
