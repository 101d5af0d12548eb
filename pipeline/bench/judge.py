"""What judging and deduplicating costs as a corpus grows.

In: a number of clips. Out: seconds, processor seconds and peak memory of `judge_corpus` on a synthetic
corpus of that many and of a tenth of that many, as analysis leaves it at default settings (bench/corpus.py).
Every twentieth clip is a copy of another, brighter and trimmed. Each size is judged in a process of its own,
from reading the tables to writing them.
"""

import multiprocessing
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline.bench.corpus import COPY_EVERY, CORPUS, make_analyzed
from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.errors import UsageError
from pipeline.stages.judge import judge_corpus


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
        make_analyzed(Path(root), rows)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.apply(_judge, (f"{root}/{CORPUS}", rows))


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
