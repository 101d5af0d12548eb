"""What a run over some sources would take, from a sample of them: `framemill plan`.

In: the inputs table, the config. Out: expected hours of footage, clips, funnel, worker hours and storage;
None for what depends on a model or a size that nobody has measured.
Never: a file outside a temporary folder, a random number that is not seeded.

The sample is the same every time: the sources in the order of the hash of their keys. PROBED of them are
asked for their length (header only), and of these as many are analysed, in that order, as fit into a budget
of footage. Footage is extrapolated by bytes (videos) and by number (stills), all else by footage.
"""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import CaptionConfig, Config, EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.engine.stage import Failure, guard
from pipeline.progress import Progress, silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import find_pairs, judge
from pipeline.uris import local_path

PROBED = 64
PROBE_S = 60.0  # a header that takes longer is unreadable
DRAWS = 400  # of the bootstrap behind the range of hours
# Worker seconds a kept clip, of the built-in models at their default sizes on one CPU core, loading included:
# the demo of infra/bench/RESULTS.md captioned 46 clips in 6.9 s with two workers and encoded them in 4.9 s
# with one. The analysis is measured in the run itself.
CAPTION_S, ENCODE_S = 2 * 6.9 / 46, 4.9 / 46
LATENT_CHANNELS, STRIDE_T, STRIDE_S = 16, 4, 8  # of the built-in VAE: tokenizer_stage/weights/builtin.json
SAMPLE_BYTES = 3200  # of a sample's JSON and the tar's headers and padding


def forecast(
    inputs: pa.Table,
    config: Config,
    *,
    budget_s: float = 120.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """What to expect of a run over `inputs`; analyses about `budget_s` seconds of their footage."""
    rows = sorted(inputs.to_pylist(), key=lambda r: hashlib.sha256(r["source_key"].encode()).digest())
    with Sandbox(replace(config.analyze.limits(), deadline_s=PROBE_S)) as box:
        probed = [row | {"length_s": _length_s(row["uri"], box)} for row in rows[:PROBED]]
    good = [row for row in probed if row["length_s"] is not None]
    chosen = _chosen(good, budget_s)
    total_bytes = sum(row["size_bytes"] or 0 for row in rows)
    share = len(rows) / max(1, len(probed))
    sample = _analysed(chosen, inputs.schema, config, progress) if chosen else None
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
    if sample is None:
        return plan | {"analysed": 0}
    looked_s = sum(row["length_s"] for row in chosen)
    scale = 3600 * hours / looked_s if looked_s else share * len(good) / len(chosen)
    return plan | {"analysed": len(chosen), "analysed_s": round(looked_s, 1)} | _scaled(sample, scale, config)


def forecast_lines(plan: dict[str, Any]) -> list[str]:
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
    for unit, figures in (("worker hours", plan["worker_hours"]), ("GB", plan["storage_gb"])):
        for name, figure in figures.items():
            number = "unknown" if figure is None else f"{figure:.3f}"
            lines.append(f"  {name:<14}{number:>9} {unit}")
    if None in (*plan["worker_hours"].values(), *plan["storage_gb"].values()):
        lines.append("unknown: only the built-in models at their default sizes were measured")
    return lines


def _scaled(sample: dict[str, Any], scale: float, config: Config) -> dict[str, Any]:
    """The sample's figures for the whole."""
    kept = sample["funnel"].get("kept", 0) * scale
    caption_s, encode_s = _seconds_a_clip(config)
    sample_bytes = _sample_bytes(config)
    return {
        "clips": round(sample["clips"] * scale),
        "funnel": {name: round(count * scale) for name, count in sample["funnel"].items()},
        "worker_hours": {
            "analyze": round(sample["seconds"] * scale / 3600, 4),
            "caption": None if caption_s is None else round(kept * caption_s / 3600, 4),
            "encode": None if encode_s is None else round(kept * encode_s / 3600, 4),
        },
        "storage_gb": {
            "tables": round(sample["bytes"] * scale / 1e9, 4),
            "latents": None if sample_bytes is None else round(kept * sample_bytes / 1e9, 4),
        },
    }


def _seconds_a_clip(config: Config) -> tuple[float | None, float | None]:
    """Worker seconds to caption and to encode a kept clip; None for what was not measured."""
    caption, encode = CaptionConfig(), EncodeConfig()
    caption = replace(caption, clips_per_task=config.caption.clips_per_task)
    encode = replace(encode, name=config.encode.name, samples_per_shard=config.encode.samples_per_shard)
    return (
        CAPTION_S if config.caption == caption else None,
        ENCODE_S if config.encode == encode else None,
    )


def _sample_bytes(config: Config) -> int | None:
    """Of a clip that has as many frames as a sample may; None where the latent's shape is not known."""
    if config.encode.vae != "builtin:":
        return None
    frames = 1 + (config.encode.max_frames - 1) // STRIDE_T
    return 2 * LATENT_CHANNELS * frames * (config.encode.area_px // STRIDE_S**2) + SAMPLE_BYTES


def _length_s(uri: str, box: Sandbox) -> float | None:
    """Seconds of a video, 0 of a still, None of what cannot be opened."""

    def ask() -> float:
        with local_path(uri) as path:
            return box.length_s(path)

    length_s = guard(ask)
    return None if isinstance(length_s, Failure) else length_s


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
    rows: Sequence[dict[str, Any]], schema: pa.Schema, config: Config, progress: Progress
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
