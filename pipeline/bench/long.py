"""A source of hours: how much memory a worker needs, and whether its pieces give the tables of one pass.

In: a video to loop. Out: peak memory (resident, GB) of each child that decodes a piece; of a worker of the
analyze stage and its child together, that joins the pieces and one that decodes the whole, tables included;
wall seconds; whether their tables are the same bytes. The pieces are decoded all at once, a child each; in
the figures they are `parts`, as in the command's --parts.
"""

import io
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import AnalyzeConfig
from pipeline.corpus.corpus import PIECES_FOLDER
from pipeline.engine.stage import Task
from pipeline.errors import UsageError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.content import content_id
from pipeline.stages.analyze import AnalyzeStage
from pipeline.stages.long_sources import Pieces
from pipeline.storage import Stream

LIMIT_GB = 1.5
DEADLINE_S = 6 * 3600.0
SOURCE_KEY = "0123456789abcdef"


def bench_long(media: str, *, hours: float, pieces: int) -> dict[str, Any]:
    """`ratio`: the largest worker's peak memory over LIMIT_GB."""
    if not Path(media).is_file():
        raise UsageError(f"no file {media}", expected="a video to loop")
    with tempfile.TemporaryDirectory(prefix="framemill-long-") as folder:
        root = Path(folder)
        command = [sys.executable, "-m", "pipeline.bench.long", media, _source(root), str(hours * 3600)]
        subprocess.run(command, check=True, cwd=Path(__file__).resolve().parents[2])
        config = replace(AnalyzeConfig(), segment_s=hours * 3600 / pieces, deadline_s=DEADLINE_S)
        (root / PIECES_FOLDER).mkdir()
        began = time.monotonic()
        with ThreadPoolExecutor(pieces) as pool:
            peaks_gb = list(pool.map(partial(_watch, root, config, pieces), range(pieces)))
        pieces_s = time.monotonic() - began
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
            joined, whole = (pool.apply(_work, (root, config, n)) for n in (pieces, 0))
    source, clips = (pq.read_table(io.BytesIO(whole["tables"][n])) for n in ("sources", "clips"))
    details = {
        "frames": source["frames"][0].as_py(),
        "duration_s": round(source["duration_s"][0].as_py(), 1),
        "clips": clips.num_rows,
        "equal": joined["tables"] == whole["tables"],
        "parts_peak_gb": peaks_gb,
        "join_peak_gb": joined["peak_gb"],
        "one_pass_peak_gb": whole["peak_gb"],
        "parts_s": round(pieces_s, 1),
        "join_s": joined["seconds"],
        "one_pass_s": whole["seconds"],
    }
    ratio = round(max(*peaks_gb, joined["peak_gb"], whole["peak_gb"]) / LIMIT_GB, 3)
    return {"name": "long", "ratio": ratio, "against": f"{LIMIT_GB} GB a worker", "details": details}


def _watch(root: Path, config: AnalyzeConfig, pieces: int, piece: int) -> float:
    with Sandbox(config.limits()) as box:
        (root / _piece(piece)).write_bytes(box.watch_piece(_source(root), config, piece, pieces))
        status = Path(f"/proc/{box.pid}/status").read_text()
        return round(_gb(status, "VmHWM"), 3)


def _work(root: Path, config: AnalyzeConfig, pieces: int) -> dict[str, Any]:
    """What one worker makes of the source, from `pieces` pieces or, when 0, in one pass."""
    paths, source_id = tuple(map(_piece, range(pieces))), content_id(Path(_source(root)))
    pieces_of = {SOURCE_KEY: Pieces(source_id=source_id, paths=paths)} if pieces else {}
    stage = AnalyzeStage(config, root=str(root), pieces=pieces_of)
    row = {"source_key": [SOURCE_KEY], "uri": [_source(root)], "size_bytes": [0], "mtime_ns": [0]}
    stage.setup()
    resident, began = _Resident(), time.monotonic()
    resident.start()
    outputs = stage.process(Task(key="long", inputs=pa.table(row))).outputs
    seconds = time.monotonic() - began
    return {
        "tables": {
            output.path.split("/")[0]: bytes(output.data)
            for output in outputs
            if not isinstance(output.data, Stream)
        },
        "peak_gb": resident.stop(),
        "seconds": round(seconds, 1),
    }


class _Resident(threading.Thread):
    """Watches the memory of this process and its children together."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._peak_gb, self._ended = 0.0, threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self._peak_gb = max(self._peak_gb, sum(map(_resident_gb, [os.getpid(), *_children()])))

    def stop(self) -> float:
        self._ended.set()
        self.join()
        return round(self._peak_gb, 3)


def _children() -> list[int]:
    tasks = Path("/proc/self/task").iterdir()
    return [int(child) for task in tasks for child in (task / "children").read_text().split()]


def _resident_gb(process: int) -> float:
    try:
        return _gb(Path(f"/proc/{process}/status").read_text(), "VmRSS")
    except OSError:  # it has just ended
        return 0.0


def _gb(status: str, name: str) -> float:
    line = re.search(rf"{name}:\s+(\d+) kB", status)
    return int(line[1]) / 2**20 if line else 0.0


def _source(root: Path) -> str:
    return str(root / "long.mkv")


def _piece(piece: int) -> str:
    return f"{PIECES_FOLDER}/{piece}"


if __name__ == "__main__":  # in a process of its own: it touches a codec
    from pipeline.media.encode import loop_video

    loop_video(sys.argv[1], sys.argv[2], float(sys.argv[3]))
