"""The floor: plain Ray Data around PyAV, every frame decoded once and made small, nothing else done well.

    ray_pyav.py TASK FILES.json OUT.json

Shots are jumps between the colour histograms of neighbouring frames, motion their mean difference, copies
equal perceptual hashes. Runs in an environment of its own, ray_pyav.txt.
"""

import json
import os
import sys
from pathlib import Path

import av
import imagehash
import numpy as np
import ray
from PIL import Image

JUMP = 0.5  # of the histograms' distance, 0 to 1


def video(file: str) -> dict[str, object]:
    cuts, moved, prints, before, histogram = [], [], [], None, None
    with av.open(file) as container:
        stream = container.streams.video[0]
        stream.thread_count = 1
        for n, frame in enumerate(container.decode(stream)):
            rgb = frame.reformat(160, 90, "rgb24").to_ndarray().astype(np.int16)
            counts = np.bincount((rgb // 32 @ np.array([64, 8, 1])).ravel(), minlength=512) / (160 * 90)
            cut = histogram is not None and np.abs(counts - histogram).sum() / 2 > JUMP
            if cut:
                cuts.append(n)
            if before is None or cut:
                prints.append(str(imagehash.phash(Image.fromarray(rgb.astype(np.uint8)))))
            if before is not None:
                moved.append(float(np.abs(rgb - before).mean()))
            before, histogram = rgb, counts
        motion = float(np.mean(moved or [0.0]))
        return {
            "width": stream.width,
            "height": stream.height,
            "cuts": cuts,
            "motion": motion,
            "prints": prints,
        }


def image(file: str) -> dict[str, object]:
    with Image.open(file) as picture:
        return {"width": picture.width, "height": picture.height, "prints": [str(imagehash.phash(picture))]}


def look(row: dict[str, str]) -> dict[str, str]:
    try:
        said = (video if row["task"] == "videos" else image)(row["file"])
    except Exception as error:
        said = {"reason": f"{type(error).__name__}: {error}"}
    return {"said": json.dumps({"file": row["file"], **said})}


def main(task: str, files: list[str]) -> dict[str, object]:
    os.environ.setdefault("RAY_worker_niceness", "0")  # else they give way to everything else
    cpus = len(os.sched_getaffinity(0))
    ray.init("local", num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    blocks = min(len(files), 200 if task == "images" else len(files))
    data = ray.data.from_items([{"task": task, "file": f} for f in files], override_num_blocks=blocks)
    said = [json.loads(row["said"]) for row in data.map(look).take_all()]
    rows = sorted((row for row in said if "reason" not in row), key=lambda row: row["file"])
    failed = [[row["file"], row["reason"]] for row in said if "reason" in row]
    first = {tuple(row["prints"]): row["file"] for row in reversed(rows)}
    return {"rows": rows, "kept": sorted(first.values()), "failed": failed}


if __name__ == "__main__":
    done = main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(done))
