"""A source of hours: how much memory a worker needs, and whether its parts give the rows of one pass.

In: a video to loop. Out: peak memory (resident, GB) of each decoding child, of the join (this process, which
holds the parts, and its child) and of one pass; wall seconds; whether sources, clips and filmstrips are
equal. The parts are decoded all at once, a child each; one pass follows.
"""

import re
import resource
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.config import AnalyzeConfig
from pipeline.errors import UsageError
from pipeline.sandbox import Buffer, Sandbox

LIMIT_GB = 1.5
DEADLINE_S = 6 * 3600.0


def bench_long(media: str, *, hours: float, parts: int) -> dict[str, Any]:
    """`ratio`: the largest worker's peak memory over LIMIT_GB."""
    if not Path(media).is_file():
        raise UsageError(f"no file {media}", expected="a video to loop")
    with tempfile.TemporaryDirectory(prefix="framemill-long-") as folder:
        path = Path(folder) / "long.mkv"
        command = [sys.executable, "-m", "pipeline.bench_long", media, str(path), str(hours * 3600)]
        subprocess.run(command, check=True, cwd=Path(__file__).resolve().parent.parent)
        config = replace(AnalyzeConfig(), segment_s=hours * 3600 / parts, deadline_s=DEADLINE_S)
        began = time.monotonic()
        with ThreadPoolExecutor(parts) as pool:
            watched = list(pool.map(partial(_watch, path, config, parts), range(parts)))
        parts_s = time.monotonic() - began
        with Sandbox(deadline_s=DEADLINE_S) as box:
            joined = box.join_parts(path, config, [packed for packed, _ in watched])
            join_gb = round(_peak_gb(box) + resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)
        began = time.monotonic()
        with Sandbox(deadline_s=DEADLINE_S) as box:
            whole = box.analyze(path, config)
            whole_gb = _peak_gb(box)
    peaks_gb = [peak for _, peak in watched]
    details = {
        "frames": whole.source["frames"],
        "duration_s": round(whole.source["duration_s"], 1),
        "clips": len(whole.clips),
        "equal": joined == whole,
        "parts_peak_gb": peaks_gb,
        "join_peak_gb": join_gb,
        "one_pass_peak_gb": whole_gb,
        "parts_s": round(parts_s, 1),
        "one_pass_s": round(time.monotonic() - began, 1),
    }
    ratio = round(max(*peaks_gb, join_gb, whole_gb) / LIMIT_GB, 3)
    return {"name": "long", "ratio": ratio, "against": f"{LIMIT_GB} GB a worker", "details": details}


def _watch(path: Path, config: AnalyzeConfig, parts: int, part: int) -> tuple[Buffer, float]:
    with Sandbox(deadline_s=DEADLINE_S) as box:
        return box.watch_part(path, config, part, parts), _peak_gb(box)


def _peak_gb(box: Sandbox) -> float:
    status = Path(f"/proc/{box.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return round(int(found[1]) / 2**20, 3) if found else float("nan")


if __name__ == "__main__":  # in a process of its own: it touches a codec
    from pipeline.media import loop_video

    loop_video(sys.argv[1], sys.argv[2], float(sys.argv[3]))
