"""data-juicer's own operators through its own command line, on Ray or in one process.

    data_juicer.py TASK FILES.json OUT.json [ray|default]

Videos: resolution, aspect, motion score, duplicates (equal bytes: it has no other for video), shots (its
mapper writes each as a file). Images: shape, aspect, size, duplicates by perceptual hash. A row that an
operator cannot do is dropped and its log says so. Runs in an environment of its own, data_juicer.txt.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import av

OPERATORS = {
    "videos": [
        {"video_resolution_filter": {"min_width": 1, "min_height": 1}},
        {"video_aspect_ratio_filter": {"min_ratio": "1/100", "max_ratio": "100/1"}},
        {"video_motion_score_filter": {"min_score": 0.0}},
        {"video_deduplicator": {}},
        {"video_split_by_scene_mapper": {}},
    ],
    "images": [
        {"image_shape_filter": {"min_width": 1, "min_height": 1}},
        {"image_aspect_ratio_filter": {"min_ratio": 0.01, "max_ratio": 100.0}},
        {"image_size_filter": {"min_size": "1", "max_size": "1TB"}},
        {"image_deduplicator": {"method": "phash"}},
    ],
}


def main(task: str, files: list[str], executor: str, folder: Path) -> dict[str, object]:
    token = "<__dj__video>" if task == "videos" else "<__dj__image>"
    listed = "".join(json.dumps({"text": token, task: [f], "file": f}) + "\n" for f in files)
    (folder / "in.jsonl").write_text(listed)
    config = {
        "project_name": "bench",
        "dataset_path": str(folder / "in.jsonl"),
        "export_path": str(folder / "exported" / "result.jsonl"),
        "work_dir": str(folder / "out"),
        "executor_type": executor,
        "ray_address": "local",  # not whatever cluster this machine happens to run
        "np": 2,
        "keep_stats_in_res_ds": True,
        "open_tracer": False,
        "process": [_for(executor, op, folder) for op in OPERATORS[task]],
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [str(Path(sys.executable).parent / "dj-process"), "--config", str(folder / "config.yaml")]
    # Ray's workers give way to everything else on a machine; so they would wait where others do not.
    environment = {"RAY_worker_niceness": "0", **os.environ}
    log = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    parts = sorted(p for p in (folder / "exported").rglob("*.json*") if p.is_file() and "stats" not in p.name)
    lines = [line for part in parts for line in part.read_text().splitlines()]
    rows = [row for row in map(_row, filter(None, lines)) if row]
    kept = [row["file"] for row in rows]
    failed = [] if rows else [[file, (log.stderr or log.stdout)[-800:]] for file in files[:1]]
    return {"rows": rows, "kept": kept, "failed": failed, "exit_code": log.returncode}


def _for(executor: str, operator: dict, folder: Path) -> dict:
    ((name, settings),) = operator.items()
    if executor == "ray" and name.endswith("_deduplicator"):
        name = f"ray_{name}"
    if name == "video_split_by_scene_mapper":
        settings = {"save_dir": str(folder / "scenes")}
    return {name: settings}


def _row(line: str) -> dict | None:
    try:
        sample = json.loads(line)
    except ValueError:
        return None
    if "file" not in sample:
        return None
    said = sample.get("__dj__stats__") or {}

    def first(name: str):
        values = said.get(name)
        return values[0] if isinstance(values, list) and values else values

    row = {"file": sample["file"]}
    if "videos" in sample:
        row |= {"width": first("video_width"), "height": first("video_height")}
        row |= {"motion": first("video_motion_score"), "cuts": _cuts(sample["videos"])}
    else:
        row |= {"width": first("image_width"), "height": first("image_height")}
    return row


def _cuts(clips: list[str]) -> list[int]:
    """Where the files of the shots end, in frames of the whole: the mapper does not say."""
    ends, at = [], 0
    for clip in clips[:-1]:
        with av.open(clip) as container:
            stream = container.streams.video[0]
            at += stream.frames or sum(1 for _ in container.decode(stream))
        ends.append(at)
    return ends


if __name__ == "__main__":
    executor = sys.argv[4] if len(sys.argv) > 4 else "ray"
    with tempfile.TemporaryDirectory() as scratch:
        done = main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), executor, Path(scratch))
    Path(sys.argv[3]).write_text(json.dumps(done))
