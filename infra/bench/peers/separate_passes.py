"""PySceneDetect for the shots, then a decoding pass for each of motion and prints: how scripts do it.

    separate_passes.py TASK FILES.json OUT.json

In: TASK (videos or images) and a list of files. Out: rows, what is kept, what failed (see ../../../pipeline/
bench/peers.py). Runs in an environment of its own, separate_passes.txt.
"""

import json
import sys
from pathlib import Path

import av
import imagehash
import numpy as np
import scenedetect
from PIL import Image


def video(file: str) -> dict[str, object]:
    scenes = scenedetect.detect(file, scenedetect.AdaptiveDetector())
    cuts = [start.frame_num for start, _ in scenes[1:]]
    with av.open(file) as container:
        width, height = container.streams.video[0].width, container.streams.video[0].height
    motion = float(np.mean([np.abs(b - a).mean() for a, b in pairs(small(file))] or [0.0]))
    wanted = {0, *cuts}
    prints = [str(imagehash.phash(image)) for n, image in enumerate(pictures(file)) if n in wanted]
    return {"width": width, "height": height, "cuts": cuts, "motion": motion, "prints": prints}


def pictures(file: str):
    with av.open(file) as container:
        for frame in container.decode(video=0):
            yield frame.to_image(width=160, height=90)


def small(file: str):
    with av.open(file) as container:
        for frame in container.decode(video=0):
            yield frame.reformat(160, 90, "gray").to_ndarray().astype(np.int16)


def pairs(items):
    before = None
    for item in items:
        if before is not None:
            yield before, item
        before = item


def image(file: str) -> dict[str, object]:
    with Image.open(file) as picture:
        return {"width": picture.width, "height": picture.height, "prints": [str(imagehash.phash(picture))]}


def main(task: str, files: list[str]) -> dict[str, object]:
    rows, failed, kept, known = [], [], [], set()
    for file in files:
        try:
            rows.append({"file": file, **(video if task == "videos" else image)(file)})
        except Exception as error:
            failed.append([file, f"{type(error).__name__}: {error}"])
            continue
        prints = tuple(rows[-1]["prints"])
        if prints not in known:
            kept.append(file)
        known.add(prints)
    return {"rows": rows, "kept": kept, "failed": failed}


if __name__ == "__main__":
    done = main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(done))
