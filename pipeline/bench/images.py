"""What the analysis of many small images costs: over bare decoding of the same files.

In: a number of images and their size; they are made for it. Out: CPU milliseconds an image, side by side from
one run: of `framemill analyze` with one worker, its decoding child and its start included, and of Pillow
opening each file and making it RGB. Bare decoding is done REPEATS times, and the least counts. Never: an
image in this process while it measures.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import StorageError, UsageError
from pipeline.progress import Progress, silent

REPEATS = 3
CELLS = (9, 12)  # of colour, high and wide: as smooth as photographs, and no two images are copies
FOLDER_FILES = 1000
GOAL_MS = 2.0
# Runs a command and prints what it took. A process of its own: nothing else counts among its children.
LAUNCH = """
import json, resource, subprocess, sys, time
started = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "cpu_s": used.ru_utime + used.ru_stime,
    "wall_s": time.monotonic() - started,
    "peak_mb": round(used.ru_maxrss / 1024),
    "code": done.returncode,
    "said": done.stdout or done.stderr[-600:],
}))
"""


def bench_images(
    count: int, width_px: int, height_px: int, *, seed: int = 0, progress: Progress = silent
) -> dict[str, Any]:
    """`ratio`: CPU of the analysis over bare decoding. `details` has both an image, and what came of them.

    Raises:
        UsageError: no image, or one without pixels.
        StorageError: the analysis fails, or an image of it does.
    """
    if min(count, width_px, height_px) < 1:
        raise UsageError(f"{count} images of {width_px}x{height_px}", expected="numbers above 0")
    with tempfile.TemporaryDirectory(prefix="framemill-images-") as folder:
        media, corpus = Path(folder) / "media", Path(folder) / "corpus"
        progress(0, 3, {"images": count})
        size_bytes = make_images(media, count, width_px, height_px, seed)
        progress(1, 3, {"images": count})
        bare = _measured([sys.executable, "-m", "pipeline.bench.images", str(media)])
        progress(2, 3, {"images": count})
        words = ["analyze", str(media), "--out", str(corpus), "--workers", "1", "--json"]
        whole = _measured([sys.executable, "-m", "framemill", *words])
        status = json.loads(whole["said"].strip().splitlines()[-1])["status"]
        if status["sources"]["status"] != {"ok": count}:
            raise StorageError(f"of {count} images came {status['sources']['status']}", expected="all ok")
        files = sum(path.is_file() for path in corpus.rglob("*"))
    progress(3, 3, {"images": count})
    bare_ms, whole_ms = 1000 * float(bare["said"]) / count, 1000 * whole["cpu_s"] / count
    details = {
        "images": count,
        "size_px": [width_px, height_px],
        "bytes_an_image": round(size_bytes / count),
        "cpu_ms_an_image": round(whole_ms, 3),
        "goal_ms": GOAL_MS,
        "bare_cpu_ms_an_image": round(bare_ms, 3),
        "wall_s": round(whole["wall_s"], 2),
        "peak_mb": whole["peak_mb"],
        "files": files,
    }
    ratio = round(whole_ms / bare_ms, 2)
    return {"name": "images", "ratio": ratio, "against": "bare decoding, CPU", "details": details}


def make_images(folder: Path, count: int, width_px: int, height_px: int, seed: int) -> int:
    """JPEGs of colour that changes smoothly, each another; their bytes."""
    draw, size_bytes = np.random.default_rng(seed), 0
    for number in range(count):
        path = folder / f"{number // FOLDER_FILES:04d}" / f"{number:07d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        cells = Image.fromarray(draw.integers(0, 256, (*CELLS, 3), dtype=np.uint8))
        cells.resize((width_px, height_px), Image.Resampling.BICUBIC).save(path, quality=85)
        size_bytes += path.stat().st_size
    return size_bytes


def lines(result: dict[str, Any]) -> list[str]:
    """The result for people."""
    details = result["details"]
    width_px, height_px = details["size_px"]
    return [
        f"{details['images']} images of {width_px}x{height_px}, {details['bytes_an_image']} bytes each",
        f"analyze {details['cpu_ms_an_image']:.2f} ms CPU an image (goal {details['goal_ms']:g}), "
        f"bare decoding {details['bare_cpu_ms_an_image']:.3f} ms: {result['ratio']:.1f} times",
        f"{details['wall_s']:.1f} s with one worker, {details['peak_mb']} MB at most in a process, "
        f"{details['files']} files",
    ]


def _measured(command: list[str]) -> dict[str, Any]:
    """What a command took, and said on stdout."""
    launched = [sys.executable, "-c", LAUNCH, *command]
    result = json.loads(subprocess.run(launched, capture_output=True, text=True, check=True).stdout)
    if result["code"]:
        raise StorageError(f"{' '.join(command[1:4])} ended with {result['code']}: {result['said']}")
    return dict(result)


def _bare_cpu_s(folder: Path) -> float:
    """The least CPU seconds in which all of them were decoded."""
    paths, spent = sorted(folder.rglob("*.jpg")), []
    for _ in range(REPEATS):
        before = resource.getrusage(resource.RUSAGE_SELF)
        for path in paths:
            with Image.open(path) as image:
                image.convert("RGB")
        after = resource.getrusage(resource.RUSAGE_SELF)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(spent)


if __name__ == "__main__":
    print(_bare_cpu_s(Path(sys.argv[1])))
