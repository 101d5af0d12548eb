"""What judging and deduplicating costs as a corpus grows.

In: a number of clips. Out: seconds, processor seconds and peak memory of `judge_corpus` on a synthetic corpus
of that many and of a tenth of that many. The clips lie on disk as after analysis: clips with signals, strips
with prints of three seconds and no pictures, parts of 10,000 clips. Every twentieth is a copy of another,
brighter and trimmed. Each size is judged in a process of its own, from reading the tables to writing them.
"""

import multiprocessing
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from pipeline.dedup.prints import PRINT_CHROMA, PRINT_LUMA, PRINT_SIZE
from pipeline.errors import UsageError
from pipeline.stages.judge import judge_corpus

PART = 10_000
SAMPLES, COPY_EVERY, TRIMMED = 12, 20, 2  # samples a print; one clip in this many is a copy; samples it lacks
FINGERPRINT = "0123456789abcdef"


def bench_judge(rows: int) -> dict[str, Any]:
    """`ratio`: seconds over those of a tenth of the rows."""
    if rows < 10 * COPY_EVERY:
        raise UsageError(f"--rows {rows}", expected=f"at least {10 * COPY_EVERY}")
    small, large = (_measured(n) for n in (rows // 10, rows))
    ratio = large["seconds"] / small["seconds"]
    return {
        "name": "judge",
        "ratio": round(ratio, 2),
        "against": "a tenth of the rows",
        "details": {f"{r['rows']}": r for r in (small, large)},
    }


def _measured(rows: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as root:
        make_corpus(Corpus(root), rows)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_judge, (root, rows))


def _judge(root: str, rows: int) -> dict[str, Any]:
    started, cpu = time.monotonic(), time.process_time()
    summary = judge_corpus(Corpus(root), Config())
    copies = summary.counts.get("rejected", 0)
    return {
        "rows": rows,
        "seconds": round(time.monotonic() - started, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "peak_mb": _peak_mb(),
        "copies_found": round(copies / (rows // COPY_EVERY), 4),
        **summary.counts,
    }


def _peak_mb() -> int:
    """Most memory that this process has held. (ru_maxrss would begin with its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return round(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)  # type: ignore[index]


def make_corpus(corpus: Corpus, rows: int) -> None:
    """A corpus of `rows` one-clip sources without files."""
    keys = [f"{n:016x}" for n in range(rows)]
    zeros = np.zeros(rows, np.int64)
    inputs = {"source_key": keys, "uri": keys, "size_bytes": zeros, "mtime_ns": zeros}
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(_filled(inputs, tables.INPUTS)))
    corpus.record(Config(), "analyze", FINGERPRINT)
    for start in range(0, rows, PART):
        some = keys[start : start + PART]
        rng = np.random.default_rng([0, start])
        key = f"{FINGERPRINT[:8]}-{start:08x}"
        ids = [f"{k}-0-3000" for k in some]
        prints = _prints(len(some), rng)
        strips = {"clip_id": ids, "print": [p.tobytes() for p in prints]}
        sources = {"source_key": some, "source_id": some, "uri": some, "status": ["ok"] * len(some)}
        parts = (("strips", strips), ("clips", _clips(some, ids, rng)), ("sources", sources))
        for folder, columns in parts:
            table = _filled(columns, getattr(tables, folder.upper()))
            corpus.storage.write_bytes(f"{folder}/{key}.parquet", tables.to_parquet(table))


def _filled(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A table with null in the columns that are not given."""
    count = len(next(iter(columns.values())))
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema
    ]
    return pa.table(arrays, schema=schema)


def _clips(keys: list[str], ids: list[str], rng: np.random.Generator) -> dict[str, Any]:
    count = len(ids)
    sizes = rng.choice([360, 720, 1080], count)
    crops = np.stack([np.zeros(count), np.zeros(count), sizes * 16 // 9, sizes], axis=1).astype(np.int32)
    signals = {f.name: rng.uniform(0.1, 0.5, count).astype(np.float32) for f in tables.SIGNALS}
    signals["black_ratio"] = signals["flicker"] = np.zeros(count, np.float32)
    fields = [pa.array(signals[f.name]).cast(f.type) for f in tables.SIGNALS]
    return {
        "clip_id": ids,
        "source_id": keys,
        "kind": ["video"] * count,
        "start_s": np.zeros(count),
        "end_s": np.full(count, 3.0),
        "fps": np.full(count, 24.0),
        "crop": list(crops),
        "signals": pa.StructArray.from_arrays(fields, fields=list(tables.SIGNALS)),
        "status": ["ok"] * count,
    }


def _prints(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Pictures with the 1/f spectrum of photographs, over each a pattern that comes and goes; every
    COPY_EVERY-th a copy of the one before."""
    wave = np.cos(np.pi * np.outer(np.arange(8), np.arange(PRINT_LUMA) + 0.5) / PRINT_LUMA)  # [8, PRINT_LUMA]
    falling = 1 / np.maximum(np.hypot(*np.mgrid[:8, :8]), 1)
    still, pattern = (
        np.einsum("nuv,ui,vj->nij", rng.normal(0, strength, (count, 8, 8)) * falling, wave, wave)
        for strength in (26, 13)
    )
    speed, phase = rng.uniform(0.3, 1.0, (2, count, 1))
    beat = np.sin(speed * np.arange(SAMPLES) + 6.3 * phase)  # [count, SAMPLES]
    luma = still[:, None] + beat[:, :, None, None] * pattern[:, None]
    chroma = np.repeat(rng.normal(128, 12, (count, 1, 2 * PRINT_CHROMA**2)), SAMPLES, axis=1)
    films = np.concatenate([128 + luma.reshape(count, SAMPLES, -1), chroma], axis=2)
    copies = np.arange(COPY_EVERY - 1, count, COPY_EVERY)
    films[copies] = films[copies - 1] + rng.normal(0, 1, (len(copies), SAMPLES, PRINT_SIZE))
    films[copies, :, : PRINT_LUMA**2] *= 1.1
    films = np.rint(films).clip(0, 255).astype(np.uint8)
    return [film[TRIMMED:] if n % COPY_EVERY == COPY_EVERY - 1 else film for n, film in enumerate(films)]
