"""What the one pass costs: over bare decoding of the same files, and against the peer's way.

In: folders of videos. Out: CPU and wall seconds a file, side by side from one run: bare decoding (PyAV, the
same threads), the whole analysis, and PySceneDetect's command line; the ratios, and where the time goes. Each
is measured REPEATS times in turn, and the least counts: what other processes disturb only adds. Never: a
decoder in this process; each file is measured in a child of its own.

The peer's way is PySceneDetect for the shots and one separate decoding pass for each group of signals.
Counted for it: its command line less the time it takes to start, and of each other pass only the decoding,
not what it would compute.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pipeline.config import AnalyzeConfig
from pipeline.errors import UsageError
from pipeline.media.frames import Damage
from pipeline.sources.discover import discover

REPEATS = 3
STILLS = (".jpg", ".png", ".webp")
HIGH_PX = 720  # short side from which on a file counts as high
SIGNAL_GROUPS = ("motion", "exposure and flicker", "sharpness and artefacts", "black bars", "filmstrips")
PHASES = {  # function → what it is called in the profile; the rest is decoding and bookkeeping
    "yuv": "thumbnails",
    "descriptors": "shot descriptors",
    "measure": "signals of every frame",
    "choose": "choice of candidates",
    "small_rgb": "pictures of candidates",
    "encode_jpeg": "JPEG",
    "luma": "close-ups: scaling",
    "inspect": "close-ups: signals",
    "describe": "rows, hashes, filmstrips",
}
Cost = tuple[float, float]  # CPU seconds, wall seconds


def bench_analyze(folders: Sequence[str], *, peer: bool = True) -> dict[str, Any]:
    """`ratio`: CPU of the whole analysis over bare decoding, files of 720p and above; the rest in details."""
    inputs = [row["uri"] for row in discover(list(folders)).inputs.to_pylist()]
    files = [file for file in inputs if not file.lower().endswith(STILLS)]
    started = _scenedetect("version") if peer else (0.0, 0.0)
    rows: list[dict[str, Any]] = []
    left_out: list[dict[str, Any]] = []
    for file in files:
        row = _file(file, started if peer else None)
        (left_out if "reason" in row else rows).append(row)
    if not rows:
        raise UsageError(f"no video in {', '.join(folders)}", expected="folders of videos")
    groups = {
        "high": [row for row in rows if row["short_px"] >= HIGH_PX],
        "low": [row for row in rows if row["short_px"] < HIGH_PX],
    }
    totals = {name: _total(group) for name, group in groups.items() if group}
    first = totals.get("high") or totals["low"]
    details = totals | {"files": rows, "left_out": left_out}
    return {"name": "analyze", "ratio": first["ratio"], "against": "bare decoding, CPU", "details": details}


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    details = result["details"]
    table = [f"{'file':44s} {'frames':>6s} {'bare s':>7s} {'whole s':>7s} {'ratio':>6s} {'peer':>6s}"]
    for row in details["files"]:
        peer = f"{row['peer_ratio']:6.1f}" if "peer_ratio" in row else f"{'-':>6s}"
        numbers = f"{row['frames']:6d} {row['bare_cpu_s']:7.3f} {row['whole_cpu_s']:7.3f} {row['ratio']:6.2f}"
        table.append(f"{Path(row['file']).name[:44]:44s} {numbers} {peer}")
    for name, label in (("high", f"{HIGH_PX}p and above"), ("low", f"below {HIGH_PX}p")):
        if total := details.get(name):
            peer = f", the peer's way {total['peer_ratio']} times the whole" if "peer_ratio" in total else ""
            table.append(f"{label}: whole {total['ratio']} times bare (wall {total['wall_ratio']}){peer}")
            table += [f"  {share:6.1%}  {phase}" for phase, share in total["profile"].items()]
    table += [f"left out: {Path(row['file']).name}: {row['reason']}" for row in details["left_out"]]
    return table


def _total(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    def of(key: str) -> float:
        return float(sum(row[key] for row in rows))

    profile = {phase: sum(row["profile_s"].get(phase, 0.0) for row in rows) for phase in rows[0]["profile_s"]}
    total: dict[str, Any] = {
        "files": len(rows),
        "frames": int(of("frames")),
        "bare_cpu_s": round(of("bare_cpu_s"), 3),
        "whole_cpu_s": round(of("whole_cpu_s"), 3),
        "ratio": round(of("whole_cpu_s") / of("bare_cpu_s"), 3),
        "wall_ratio": round(of("whole_wall_s") / of("bare_wall_s"), 3),
        "profile": {phase: round(s / sum(profile.values()), 4) for phase, s in profile.items()},
    }
    if "peer_cpu_s" in rows[0]:
        total["peer_ratio"] = round(of("peer_cpu_s") / of("whole_cpu_s"), 2)
    return total


def _file(file: str, started: Cost | None) -> dict[str, Any]:
    """Costs of one file, or the reason why there are none."""
    command = [sys.executable, "-m", "pipeline.bench.analyze", file]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    if done.returncode:
        return {"file": file, "reason": done.stderr.strip().split("\n")[-1]}
    row: dict[str, Any] = json.loads(done.stdout)
    if started:
        detect = _scenedetect("-i", file, "detect-adaptive")
        shots_s = max(0.0, detect[0] - started[0])
        row["scenedetect_cpu_s"] = round(shots_s, 3)
        row["peer_cpu_s"] = round(shots_s + len(SIGNAL_GROUPS) * row["bare_cpu_s"], 3)
        row["peer_ratio"] = round(row["peer_cpu_s"] / row["whole_cpu_s"], 2)
    return row


def _scenedetect(*words: str) -> Cost:
    command = [sys.executable, "-m", "scenedetect", "-q", *words]

    def run() -> None:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)

    return _cost(run, resource.RUSAGE_CHILDREN)


def _cost(run: Callable[[], object], who: int) -> Cost:
    began, used = time.monotonic(), resource.getrusage(who)
    run()
    now = resource.getrusage(who)
    cpu_s = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    return cpu_s, time.monotonic() - began


def _measure(file: str) -> dict[str, Any]:
    """The child's part: bare and whole in turn, then the profile."""
    import cProfile
    import pstats

    from pipeline.media import decode as media
    from pipeline.onepass import rows as onepass

    config, path = AnalyzeConfig(), Path(file)
    info = media.probe(path)

    def bare() -> int:
        frames = media.decode(path, Damage(), max_pixels=config.max_pixels)
        return sum(1 for _ in frames)

    def whole() -> None:
        onepass.analyze_file(path, config)

    frames = bare()  # and the file is in the page cache, the libraries are loaded
    whole()
    pairs = [(_cost(bare, resource.RUSAGE_SELF), _cost(whole, resource.RUSAGE_SELF)) for _ in range(REPEATS)]
    profile = cProfile.Profile()
    profile.runcall(whole)
    spent: dict[str, float] = dict.fromkeys(["decoding, bookkeeping", *PHASES.values()], 0.0)
    stats = pstats.Stats(profile)
    for (source, _, name), (_, _, _, cumulative, _) in stats.stats.items():  # type: ignore[attr-defined]
        if name in PHASES and "/pipeline/" in source:
            spent[PHASES[name]] += cumulative
    spent["decoding, bookkeeping"] = stats.total_tt - sum(spent.values())  # type: ignore[attr-defined]
    bare_cpu_s, whole_cpu_s = (min(pair[i][0] for pair in pairs) for i in (0, 1))
    return {
        "file": file,
        "frames": frames,
        "short_px": min(info.width, info.height),
        "bare_cpu_s": round(bare_cpu_s, 4),
        "whole_cpu_s": round(whole_cpu_s, 4),
        "bare_wall_s": round(min(pair[0][1] for pair in pairs), 4),
        "whole_wall_s": round(min(pair[1][1] for pair in pairs), 4),
        "ratio": round(whole_cpu_s / bare_cpu_s, 3),
        "profile_s": {phase: round(s, 4) for phase, s in spent.items()},
    }


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
