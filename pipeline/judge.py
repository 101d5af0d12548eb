"""Verdicts from a table: which clips are kept, which are rejected, and every reason why.

In: the clips table and the rules. Out: the judged table. Never: a file is decoded, or a rule applied to
what was not measured (null). *failed* (nothing is known) and *rejected* (known, and not wanted) stay
apart.

Reasons: short, long, small, aspect, static, still, blurred, dark, flat, black, flicker, duplicate.
"""

import time
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import tables
from pipeline.config import Config, JudgeConfig, fingerprint
from pipeline.corpus import JUDGED_PATH, Corpus
from pipeline.dedup import duplicate_groups
from pipeline.runner import RunSummary

VERSION = 1  # raised when the same rules give other verdicts


def judge(clips: pa.Table, config: JudgeConfig) -> pa.Table:
    """One row a clip (schema JUDGED), in the order of `clips`."""
    ids = clips["clip_id"].to_pylist()
    failed = pc.equal(clips["status"], "failed").to_numpy(zero_copy_only=False)
    reasons: list[list[str]] = [[] for _ in ids]
    for reason, broken in _rules(clips, config).items():
        for i in np.flatnonzero(broken & ~failed).tolist():
            reasons[i].append(reason)
    copy_of: dict[int, int] = {}
    if config.dedup:
        good = [i for i in range(len(ids)) if not reasons[i] and not failed[i]]
        copy_of = duplicates(clips, good, config.phash_distance)
    for i in copy_of:
        reasons[i].append("duplicate")
    rows: list[dict[str, Any]] = []
    for i, (source_id, kind, seconds) in enumerate(
        zip(clips["source_id"].to_pylist(), clips["kind"].to_pylist(), _seconds(clips), strict=True)
    ):
        verdict = "failed" if failed[i] else "rejected" if reasons[i] else "kept"
        rows.append(
            {
                "clip_id": ids[i],
                "source_id": source_id,
                "kind": kind,
                "duration_s": float(seconds),
                "status": verdict,
                "reasons": reasons[i] or ([clips["reason"][i].as_py() or "unknown"] if failed[i] else []),
                "duplicate_of": ids[copy_of[i]] if i in copy_of else None,
            }
        )
    return tables.from_rows(rows, tables.JUDGED)


def duplicates(clips: pa.Table, rows: list[int], max_distance: float) -> dict[int, int]:
    """Row → row it is a duplicate of, among these rows. Of each group the best stays: the largest
    picture, then the
    longest, then the sharpest, then the first id. Stills and videos are compared apart."""
    area, seconds = _area(clips), _seconds(clips)
    sharp = np.nan_to_num(_signal(clips, "sharpness"))
    ids, kinds, hashes, colours = (clips[c].to_pylist() for c in ("clip_id", "kind", "phash", "colour"))
    found: dict[int, int] = {}
    for kind in ("video", "image"):
        some = [i for i in rows if kinds[i] == kind and hashes[i]]
        some_hashes = [np.array(hashes[i], np.uint64) for i in some]
        for group in duplicate_groups(some_hashes, [colours[i] or () for i in some], max_distance):
            members = [some[m] for m in group]
            best = min(members, key=lambda i: (-area[i], -seconds[i], -sharp[i], ids[i]))
            found |= {i: best for i in members if i != best}
    return found


def judge_corpus(corpus: Corpus, config: Config) -> RunSummary:
    """Judges all current clips and writes judged.parquet, unless clips and rules are as they were."""
    started = time.monotonic()
    current = fingerprint(config.judge, VERSION, corpus.analyzed_fingerprint())
    if corpus.fingerprints().get("judge") == current and corpus.storage.exists(JUDGED_PATH):
        corpus.record(config, "judge", current)
        return RunSummary(stage="judge", tasks=0, lost=(), counts={}, seconds=time.monotonic() - started)
    verdicts = judge(corpus.clips(), config.judge)
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(verdicts))
    corpus.record(config, "judge", current)
    counts = {v["values"]: v["counts"] for v in pc.value_counts(verdicts["status"]).to_pylist()}
    spent_s = time.monotonic() - started
    return RunSummary(stage="judge", tasks=1, lost=(), counts=dict(sorted(counts.items())), seconds=spent_s)


def _rules(clips: pa.Table, config: JudgeConfig) -> dict[str, np.ndarray]:
    """Reason → bool [N]: which clips break the rule. A comparison with null (NaN) is false."""
    seconds, crop = _seconds(clips), _crop(clips)
    width, height = crop[:, 2], crop[:, 3]
    video = pc.equal(clips["kind"], "video").to_numpy(zero_copy_only=False)
    short_side, long_side = np.minimum(width, height), np.maximum(width, height)
    return {
        "short": video & (seconds < config.min_s),
        "long": video & (seconds > config.max_s),
        "small": short_side < config.min_side_px,
        "aspect": long_side > config.max_aspect * np.maximum(short_side, 1),
        "static": video & (_signal(clips, "static_ratio") > config.max_static_ratio),
        "still": video & (_signal(clips, "motion") < config.min_motion),
        "blurred": _signal(clips, "sharpness") < config.min_sharpness,
        "dark": _signal(clips, "luma") < config.min_luma,
        "flat": _signal(clips, "contrast") < config.min_contrast,
        "black": _signal(clips, "black_ratio") > config.max_black_ratio,
        "flicker": _signal(clips, "flicker") > config.max_flicker,
    }


def _seconds(clips: pa.Table) -> np.ndarray:
    return pc.subtract(clips["end_s"], clips["start_s"]).to_numpy(zero_copy_only=False)


def _crop(clips: pa.Table) -> np.ndarray:
    """float [N, 4]; NaN where there is none."""
    none = [float("nan")] * 4
    rows = [c if c and len(c) == 4 else none for c in clips["crop"].to_pylist()]
    return np.array(rows, np.float64).reshape(-1, 4)


def _area(clips: pa.Table) -> np.ndarray:
    crop = _crop(clips)
    return np.nan_to_num(crop[:, 2] * crop[:, 3])


def _signal(clips: pa.Table, name: str) -> np.ndarray:
    """float64 [N]; NaN where it was not measured."""
    return pc.struct_field(clips["signals"], name).cast(pa.float64()).to_numpy(zero_copy_only=False)
