"""A source of hours: how much memory a worker needs, and whether its parts give the rows of one pass.

In: a video to loop. Out: peak memory (resident, GB) of each decoding child, of the join (this process, which
holds the parts, and its child) and of one pass; wall seconds; whether sources, clips and filmstrips are
equal. The parts are decoded all at once, a child each; one pass follows.
"""

import re
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
from pipeline.sandbox import Sandbox

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
            peaks_gb = list(pool.map(partial(_watch, path, config, parts), range(parts)))
        parts_s = time.monotonic() - began
        files = [_part(path, part) for part in range(parts)]
        Path("/proc/self/clear_refs").write_text("5")  # the peak of this process counts from here
        with Sandbox(deadline_s=DEADLINE_S) as box:
            sizes = [file.stat().st_size for file in files]
            joined = box.join_parts(path, config, sizes, (file.read_bytes() for file in files))
            join_gb = [_peak_gb("self"), _peak_gb(box.pid)]
        began = time.monotonic()
        with Sandbox(deadline_s=DEADLINE_S) as box:
            whole = box.analyze(path, config)
            whole_gb = _peak_gb(box.pid)
    details = {
        "frames": whole.source["frames"],
        "duration_s": round(whole.source["duration_s"], 1),
        "clips": len(whole.clips),
        "equal": joined == whole,
        "parts_peak_gb": peaks_gb,
        "join_peaks_gb": join_gb,  # of this process and of its child
        "one_pass_peak_gb": whole_gb,
        "parts_s": round(parts_s, 1),
        "one_pass_s": round(time.monotonic() - began, 1),
    }
    ratio = round(max(*peaks_gb, sum(join_gb), whole_gb) / LIMIT_GB, 3)
    return {"name": "long", "ratio": ratio, "against": f"{LIMIT_GB} GB a worker", "details": details}


def _watch(path: Path, config: AnalyzeConfig, parts: int, part: int) -> float:
    with Sandbox(deadline_s=DEADLINE_S) as box:
        _part(path, part).write_bytes(box.watch_part(path, config, part, parts))
        return _peak_gb(box.pid)


def _part(path: Path, part: int) -> Path:
    return path.with_suffix(f".{part}")


def _peak_gb(process: int | str) -> float:
    """The most memory that a process has had resident (VmHWM)."""
    status = Path(f"/proc/{process}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return round(int(found[1]) / 2**20, 3) if found else float("nan")


if __name__ == "__main__":  # in a process of its own: it touches a codec
    from pipeline.media import loop_video

    loop_video(sys.argv[1], sys.argv[2], float(sys.argv[3]))
