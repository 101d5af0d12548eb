"""Other pipelines beside framemill on the same files: what they cost, and what comes out of them.

In: folders of video with their truth. Out: for each peer and task CPU seconds (user and system, of the whole
tree of processes), those of a start over a single file apart, peak memory, and the quality of what came out;
or why there is nothing. Never: a peer's package in this environment: each has one of its own, made once in a
cache folder from the requirements in infra/bench/peers, where its program stands beside them.

What is asked of everybody, by the means that its makers offer. *videos*: of each file its size, its shots, a
motion score, a perceptual print where it has one, and one file kept of those that it takes for copies.
*images*: of each its size, a perceptual hash, and one kept of those that it takes for copies. Each may use
all cores. framemill does this by `analyze` and `judge` with the preset keep-all; it cannot leave out its 23
signals, filmstrips and fingerprints, which are in its cost.

The images are made of the videos: frames STEP_S apart, each as a JPEG, the same bytes again, at half the
size, and at a lower quality. A copy is found where it is not kept; a picture is lost where none of its four
is, which may be right where another picture shows the same.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline.bench.shots import Score, Truth, read_truth
from pipeline.children.trees import Usage, run_measured
from pipeline.corpus.corpus import Corpus
from pipeline.engine.stage import Failure, guard
from pipeline.errors import FramemillError, MediaError, UsageError
from pipeline.progress import Progress, silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "infra" / "bench" / "peers"
TASKS = ("videos", "images")
STEP_S, IMAGE_PX = 2.0, (640, 360)
INSTALL_S, RUN_S = 1800.0, 3600.0
Groups = Sequence[Sequence[str]]  # of file names that show the same


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One way to run a program of infra/bench/peers: with these words more, for these tasks."""

    name: str
    program: str
    tasks: tuple[str, ...] = TASKS
    words: tuple[str, ...] = ()
    package: str = ""  # whose version is said


PEERS = (
    Peer(name="daft", program="daft_images", tasks=("images",), package="daft"),
    Peer(name="Ray Data and PyAV", program="ray_pyav", package="ray"),
    Peer(name="PySceneDetect and passes", program="separate_passes", package="scenedetect"),
    Peer(name="data-juicer on Ray", program="data_juicer", words=("ray",), package="py-data-juicer"),
    Peer(name="data-juicer alone", program="data_juicer", words=("default",), package="py-data-juicer"),
)


def bench_peers(
    media: Sequence[str],
    cuts: str | None,
    duplicates: str | None,
    cache: Path,
    only: str = "",
    progress: Progress = silent,
) -> dict[str, Any]:
    """`ratio`: CPU seconds of the cheapest peer over framemill's, both without their start, on videos."""
    files, truths = _videos(media), list(read_truth(Path(cuts))) if cuts else []
    asked = [peer for peer in PEERS if only in peer.name]
    results: dict[str, dict[str, Any]] = {task: {} for task in TASKS}
    done, steps = 0, 1 + len(TASKS) * (1 + len(asked))
    with tempfile.TemporaryDirectory(prefix="framemill-peers-") as folder:
        progress(done, steps, {"step": "images"})
        images, image_groups = make_images(files, Path(folder) / "images")
        of_task: dict[str, tuple[list[str], Groups]] = {
            "videos": (files, duplicate_groups(Path(duplicates)) if duplicates else []),
            "images": (images, image_groups),
        }
        for task, (inputs, groups) in of_task.items():
            for number, peer in enumerate((None, *asked)):
                done += 1
                progress(done, steps, {"step": f"{task}, {peer.name if peer else 'framemill'}"})
                if peer and task not in peer.tasks:
                    continue
                scratch = Path(folder) / f"{task}-{number}"
                scratch.mkdir()
                row = _measured(peer, task, inputs, scratch, cache)
                if "said" in row:
                    row |= quality(row.pop("said"), inputs, truths, groups)
                results[task][peer.name if peer else "framemill"] = row
    cost = {name: row["cpu_s"] for name, row in results["videos"].items() if "cpu_s" in row}
    own = cost.pop("framemill", 0.0)
    return {
        "name": "peers",
        "ratio": round(min(cost.values()) / own, 2) if cost and own else None,
        "against": "the cheapest peer's CPU seconds on videos",
        "details": results | {"load_average": round(os.getloadavg()[2], 1), "cores": os.cpu_count()},
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The result for people."""
    table: list[str] = []
    for task in TASKS:
        table.append(
            f"{task:26s} {'files':>6s} {'CPU s':>8s} {'start':>6s} {'wall s':>7s} {'GB':>5s} "
            f"{'shot F1':>8s} {'copies':>9s} {'lost':>5s} {'failed':>6s}"
        )
        for name, row in result["details"][task].items():
            if "skipped" in row:
                table.append(f"{name:26s} skipped: {row['skipped']}")
                continue
            copies = f"{row['copies_found']}/{row['copies']}"
            shots = "-" if row["shots_f1"] is None else f"{row['shots_f1']:.3f}"
            table.append(
                f"{name:26s} {row['files']:6d} {row['cpu_s']:8.1f} {row['start_cpu_s']:6.1f} "
                f"{row['wall_s']:7.1f} {row['peak_gb']:5.2f} {shots:>8s} {copies:>9s} {row['lost']:5d} "
                f"{row['missing']:6d}"
            )
    return table


# -- one measurement ------------------------------------------------------------------------------


def _measured(peer: Peer | None, task: str, files: list[str], scratch: Path, cache: Path) -> dict[str, Any]:
    """Costs of a start and of the work, what was said, and the version; or why it was skipped."""
    try:
        python = sys.executable if peer is None else environment(PROGRAMS / f"{peer.program}.txt", cache)
        one = min(files, key=os.path.getsize)
        _, start = _run(peer, python, task, [one], scratch / "start")
        said, whole = _run(peer, python, task, files, scratch / "whole")
    except FramemillError as error:
        return {"skipped": str(error)}
    return {
        "files": len(files),
        "cpu_s": round(whole.cpu_s - start.cpu_s, 2),
        "start_cpu_s": round(start.cpu_s, 2),
        "wall_s": round(whole.wall_s, 1),
        "peak_gb": round(whole.peak_gb, 2),
        "version": "" if peer is None else _version(python, peer.package),
        "said": said,
    }


def _run(
    peer: Peer | None, python: str, task: str, files: list[str], scratch: Path
) -> tuple[dict[str, Any], Usage]:
    scratch.mkdir()
    listed, out = scratch / "files.json", scratch / "out.json"
    listed.write_text(json.dumps(files))
    if peer is None:
        return _framemill(files, scratch)
    command = [python, str(PROGRAMS / f"{peer.program}.py"), task, str(listed), str(out), *peer.words]
    usage = run_measured(command, scratch / "log", RUN_S)
    if usage.exit_code or not out.exists():
        raise FramemillError(f"ended with {usage.exit_code}: {_last_line(scratch / 'log')}")
    return json.loads(out.read_text()), usage


def _framemill(files: list[str], scratch: Path) -> tuple[dict[str, Any], Usage]:
    root, listed = str(scratch / "corpus"), scratch / "sources.txt"
    listed.write_text("".join(f"{file}\n" for file in files))
    command = [sys.executable, str(ROOT / "framemill.py")]
    analyze = [*command, "analyze", str(listed), "--out", root, "--max-failed", "100%"]
    usage = run_measured(analyze, scratch / "log", RUN_S)
    judge = [*command, "judge", root, "--preset", "keep-all", "--max-failed", "100%"]
    usage = usage + run_measured(judge, scratch / "log", RUN_S)
    if usage.exit_code:
        raise FramemillError(f"ended with {usage.exit_code}: {_last_line(scratch / 'log')}")
    return _said_of(Corpus(root)), usage


def _said_of(corpus: Corpus) -> dict[str, Any]:
    """What a corpus says, as the peers' programs say it."""
    clips = corpus.clips().sort_by([("source_id", "ascending"), ("start_frame", "ascending")]).to_pylist()
    cuts: dict[str, list[int]] = {}
    for clip in clips:
        own = cuts.setdefault(clip["source_id"], [])
        if clip["start_frame"] > 0 and clip["boundary_in"] == "cut":
            own.append(clip["start_frame"])
    sources = corpus.sources().sort_by("uri").to_pylist()
    kept_sources = set(corpus.kept()["source_id"].to_pylist())
    rows, kept, failed = [], [], []
    for source in sources:
        if source["status"] == "failed":
            failed.append([source["uri"], source["reason"]])
            continue
        content = source["source_id"]
        row = {"file": source["uri"], "width": source["width"], "height": source["height"]}
        rows.append(row | {"cuts": cuts.get(content, [])})
        if content in kept_sources:  # of equal files the first
            kept.append(source["uri"])
            kept_sources.discard(content)
    return {"rows": rows, "kept": kept, "failed": failed}


def _last_line(log: Path) -> str:
    lines_of_log = log.read_text(errors="replace").strip().splitlines()
    return lines_of_log[-1][-300:] if lines_of_log else "without a word"


# -- environments ---------------------------------------------------------------------------------


def environment(wanted: Path, cache: Path) -> str:
    """The interpreter of an environment with these requirements, which is made when they are new.

    Raises:
        FramemillError: it cannot be made, with the last that pip said.
    """
    if not wanted.exists():
        raise UsageError(f"no {wanted}", fix="run this from a checkout of the repository")
    digest = hashlib.sha256(wanted.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = cache / f"{wanted.stem}-{digest}"
    python = folder / "bin" / "python"
    if (folder / "complete").exists():
        return str(python)
    folder.mkdir(parents=True, exist_ok=True)
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "-q", "-r", str(wanted)],
    ):
        try:
            made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise FramemillError(f"not installable: {error}") from error
        if made.returncode:
            said = (made.stderr or made.stdout).strip().splitlines()
            raise FramemillError(f"not installable: {said[-1] if said else made.returncode}")
    (folder / "complete").write_text("")
    return str(python)


def _version(python: str, package: str) -> str:
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return f"{package} {done.stdout.strip()}"


# -- inputs, and the quality of outputs -----------------------------------------------------------


def _videos(media: Sequence[str]) -> list[str]:
    """The files below the folders that a header says are videos."""
    files = []
    with Sandbox() as box:
        for uri in discover(list(media)).inputs["uri"].to_pylist():
            said = guard(lambda uri=uri: box.header(uri))  # type: ignore[misc]
            if not isinstance(said, Failure) and said["kind"] == "video":
                files.append(str(uri))
    if not files:
        raise UsageError(f"no video in {', '.join(media)}", expected="folders of videos")
    return files


def make_images(files: Sequence[str], folder: Path) -> tuple[list[str], list[list[str]]]:
    """JPEGs of frames of the videos, and which of them show the same."""
    folder.mkdir(parents=True)
    groups: list[list[str]] = []
    with Sandbox() as box:
        for file in files:
            try:
                frames = _frames(box, file)
            except MediaError:  # some videos here are damaged on purpose
                continue
            first = len(groups)
            groups += [_four(Image.fromarray(f), folder, first + n) for n, f in enumerate(frames)]
    return sorted(name for group in groups for name in group), groups


def _frames(box: Sandbox, file: str) -> Iterable[Any]:
    """uint8 [H, W, 3] each."""
    header = box.header(file)
    times_s = [STEP_S * (n + 0.5) for n in range(int(header["length_s"] / STEP_S))]
    if not times_s:
        return []
    width_px, height_px = IMAGE_PX
    whole = (0, 0, header["width"], header["height"])
    return box.read_span(file, times_s=times_s, crop=whole, width_px=width_px, height_px=height_px)


def _four(picture: Image.Image, folder: Path, number: int) -> list[str]:
    paths = [folder / f"{number:05d}-{kind}.jpg" for kind in ("a", "bytes", "half", "low")]
    picture.save(paths[0], quality=92)
    paths[1].write_bytes(paths[0].read_bytes())
    picture.resize((picture.width // 2, picture.height // 2)).save(paths[2], quality=92)
    picture.save(paths[3], quality=60)
    return [str(path) for path in paths]


def duplicate_groups(truth: Path) -> list[list[str]]:
    """Names of files that a duplicates.json calls copies of one another."""
    groups = json.loads(truth.read_text())["groups"]
    members = ([m["file"] for m in g["members"] if m["expect"] == "duplicate"] for g in groups)
    return [[g["base"], *names] for g, names in zip(groups, members, strict=True)]


def quality(
    said: Mapping[str, Any], files: Sequence[str], truths: Sequence[Truth], groups: Groups
) -> dict[str, Any]:
    """F1 of hard cuts where the truth is known; copies that are not kept, pictures of which nothing is; files
    of which nothing was said, those that are copies of equal bytes left out."""
    cuts_of = {Path(row["file"]).name: row.get("cuts") for row in said["rows"]}
    score = Score()
    scored = [truth for truth in truths if Path(truth.file).name in {Path(f).name for f in files}]
    for truth in scored:
        score.add([(cut, cut, "cut") for cut in cuts_of.get(Path(truth.file).name) or ()], truth)
    kept = {Path(file).name for file in said["kept"]}
    named = [[Path(name).name for name in group] for group in groups]
    still_there = [sum(name in kept for name in group) for group in named]
    spoken_of = {Path(row["file"]).name for row in said["rows"]}
    digests = {hashlib.sha256(Path(f).read_bytes()).hexdigest() for f in files if Path(f).name in spoken_of}
    return {
        "shots_f1": score.figures()["hard_f1"] if any(cuts_of.values()) else None,
        "shots_files": len(scored),
        "copies": sum(len(group) - 1 for group in named),
        "copies_found": sum(min(len(g) - 1, len(g) - n) for g, n in zip(named, still_there, strict=True)),
        "lost": sum(n == 0 for n in still_there),
        "missing": sum(
            Path(f).name not in spoken_of and hashlib.sha256(Path(f).read_bytes()).hexdigest() not in digests
            for f in files
        ),
        "reasons": [reason for _, reason in said["failed"]][:5],
    }
