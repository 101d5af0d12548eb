"""Copies found against exact truth: precision and recall over pairs of clips.

In: a folder of media and its truth (a toy world's truth.jsonl, whose shots name what they repeat, or a
duplicates.json: groups with a base and members, hard_negatives). Out: figures, and what was missed or wrong.
Every pair of clips counts, not only those the truth speaks of: a pair joined that is not in one true group is
wrong. Two clips of one shot count for nothing. Files of equal bytes are one source and count as found.
"""

import itertools
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import Config, JudgeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.dedup.groups import Groups, grouped
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import UsageError
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import find_pairs

Shot = tuple[str, int]  # a file of the truth and the number of a shot in it
OF_CLIP, OF_SHOT = 0.8, 0.5  # of a clip and of a shot that must be shared
SHOWN = 20  # of what was missed or wrong


def bench_dedup(media: str, truth_file: str, *, mirrored: bool = True) -> dict[str, Any]:
    """`ratio`: the F1 over pairs, against the truth."""
    truth = Path(truth_file)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Corpus(folder)
        analyze_corpus(corpus, discover([media]).inputs, Config(), LocalExecutor(), lambda *_: None)
        clips = corpus.clips()
        file_of = {
            row["source_id"]: row["uri"].removeprefix(f"{Path(media).resolve()}/").removeprefix(f"{media}/")
            for row in reversed(corpus.sources().to_pylist())
        }
        pairs = find_pairs(corpus, clips, JudgeConfig(mirrored=mirrored))
    shots = _shots_of_clips(clips, file_of, truth)
    known = {i: shot for i, shot in enumerate(shots) if shot is not None}
    if not known:
        raise UsageError(f"{truth_file} speaks of no file in {media}", expected="the folder of that truth")
    true_group = _truth_groups(truth, mirrored)
    true = {(a, b) for a, b in _pairs_within(_by_group(known, true_group)) if known[a] != known[b]}
    joined = _pairs_within(grouped(zip(pairs["a"].to_pylist(), pairs["b"].to_pylist(), strict=True)))
    joined = {(a, b) for a, b in joined if a in known and b in known and known[a] != known[b]}
    right = len(true & joined)
    precision = right / len(joined) if joined else 1.0
    recall = right / len(true) if true else 1.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def named(some: set[tuple[int, int]]) -> list[list[str]]:
        return [[f"{f}#{n}" for f, n in (known[a], known[b])] for a, b in sorted(some)[:SHOWN]]

    details = {
        "clips": len(known),
        "true_pairs": len(true),
        "found_pairs": len(joined),
        "precision": round(precision, 4),
        "recall": round(recall, 4),
        "missed": named(true - joined),
        "wrong": named(joined - true),
    }
    return {"name": "dedup", "ratio": round(f1, 4), "against": truth.name, "details": details}


def _by_group(known: dict[int, Shot], group: dict[Shot, Shot]) -> Iterable[list[int]]:
    members: dict[Shot, list[int]] = {}
    for i, shot in known.items():
        members.setdefault(group.get(shot, shot), []).append(i)
    return members.values()


def _pairs_within(groups: Iterable[list[int]]) -> set[tuple[int, int]]:
    return {pair for members in groups for pair in itertools.combinations(sorted(members), 2)}


def _truth_groups(truth: Path, mirrored: bool) -> dict[Shot, Shot]:
    """Shot → the first of its group."""
    links: list[tuple[Shot, Shot]] = []
    if truth.suffix == ".jsonl":
        for row in map(json.loads, truth.read_text().splitlines()):
            for n, shot in enumerate(row["shots"]):
                if shot["duplicate_of"]:
                    original = shot["duplicate_of"]
                    links.append(((original["file"], original["shot"]), (row["file"], n)))
    else:
        for group in json.loads(truth.read_text())["groups"]:
            members = [m["file"] for m in group["members"] if mirrored or m["expect"] == "duplicate"]
            links += [((Path(group["base"]).name, 0), (Path(m).name, 0)) for m in members]
    shots = sorted({shot for link in links for shot in link})
    at = {shot: n for n, shot in enumerate(shots)}
    groups = Groups(len(shots))
    for a, b in links:
        groups.join(at[a], at[b])
    return {shot: shots[groups.root(n)] for shot, n in at.items()}


def _shots_of_clips(clips: pa.Table, file_of: dict[str, str], truth: Path) -> list[Shot | None]:
    """The shot that each clip shows, where it is most of the clip and the clip at least half of it: how well
    shots are split is another figure. A file of duplicates.json is one shot."""
    rows = clips.select(["source_id", "start_s", "end_s"]).to_pylist()
    if truth.suffix != ".jsonl":
        return [(Path(file_of[row["source_id"]]).name, 0) for row in rows]
    spans = {r["file"]: r["shots"] for r in map(json.loads, truth.read_text().splitlines())}
    shots: list[Shot | None] = []
    for row in rows:
        file = next((f for f in spans if file_of[row["source_id"]].endswith(f)), None)
        overlaps = [
            (min(s["end_s"], row["end_s"]) - max(s["start_s"], row["start_s"]), s["end_s"] - s["start_s"], n)
            for n, s in enumerate(spans[file] if file else [])
        ]
        shared_s, shot_s, n = max(overlaps, default=(-1.0, 0.0, 0))
        enough = shared_s >= OF_CLIP * (row["end_s"] - row["start_s"]) and shared_s >= OF_SHOT * shot_s
        shots.append((file, n) if file and enough else None)
    return shots
