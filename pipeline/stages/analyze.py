"""The analyze stage: input files → sources, clips and filmstrips. Each file is decoded once, in a
sandboxed child.

In: rows of the inputs table. Out: three parts under the task's key: strips, clips, and sources, which
marks the task as done. A file that cannot be decoded becomes a `failed` source with the reason; one whose
content was taken down is not decoded again. Never: a codec in this process.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, TAKEN_DOWN, Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.engine.runner import Executor, RunSummary, run
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.tasks import plan_tasks
from pipeline.sandbox.sandbox import Sandbox
from pipeline.settings import fingerprint
from pipeline.shots import detectors
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX
from pipeline.stages.long_sources import Paths, join_segments, make_segments
from pipeline.storage import Storage
from pipeline.uris import local_path

Rows = list[dict[str, Any]]
HOW_NOT_WHAT: dict[str, Any] = {  # change no row
    "sources_per_task": 0,
    "max_frames": 0,
    "deadline_s": 0.0,
    "memory_gb": 0.0,
    "segment_s": 0.0,
    "segment_min_mb": 0.0,
}


class AnalyzeStage:
    """One task is a few files. The decoding child lives as long as the worker. `segments`: where the parts
    lie of sources that were decoded in parts, in the corpus at `root`."""

    name = "analyze"
    version = 4

    def __init__(
        self,
        config: AnalyzeConfig,
        taken_down: frozenset[str] = frozenset(),
        root: str = "",
        segments: Paths | None = None,
    ) -> None:
        self.config, self.taken_down = config, taken_down
        self.root, self.segments = root, segments or {}
        self.resources = Resources(cpus=1.0, memory_gb=min(2.0, config.memory_gb))
        self._box: Sandbox | None = None
        self._net: detectors.TransNet | None = None

    def setup(self) -> None:
        self._box = Sandbox(deadline_s=self.config.deadline_s, memory_gb=self.config.memory_gb)
        detectors.check(self.config.shots.detector)
        self._net = detectors.TransNet() if self.config.shots.detector == "transnetv2" else None

    def process(self, task: Task) -> TaskResult:
        sources: Rows = []
        clips: dict[str, dict[str, Any]] = {}  # by clip_id: files of equal content share their clips
        strips: dict[str, dict[str, Any]] = {}
        counts = {"ok": 0, "salvaged": 0, "failed": 0, "clips": 0}
        killers = task.killers("source_key")
        for row in task.inputs.to_pylist():
            source, found, shown = self._file(row, row["source_key"] in killers)
            sources.append(source)
            counts[source["status"]] = counts.get(source["status"], 0) + 1
            clips |= {clip["clip_id"]: clip for clip in found}
            strips |= {strip["clip_id"]: strip for strip in shown}
        counts["clips"] = len(clips)
        parts = (
            ("strips", strips.values(), tables.STRIPS),
            ("clips", clips.values(), tables.CLIPS),
            ("sources", sources, tables.SOURCES),  # last: the done-marker
        )
        outputs = tuple(
            Output(path=f"{folder}/{task.key}.parquet", data=tables.rows_to_parquet(rows, schema))
            for folder, rows, schema in parts
        )
        return TaskResult(outputs=outputs, counts=counts)

    def _file(self, row: dict[str, Any], kills: bool) -> tuple[dict[str, Any], Rows, Rows]:
        """The source row, clip rows and strip rows of one input; one that kills is left alone."""
        known = {k: row[k] for k in ("source_key", "uri", "size_bytes")}
        found = KILLED if kills else guard(partial(self._look, row["uri"], known))
        if isinstance(found, Failure):
            return known | {"status": "failed", "reason": found.reason}, [], []
        content = known["source_id"]
        if content in self.taken_down:
            return known | {"status": TAKEN_DOWN}, [], []
        ids = [_clip_id(content, clip) for clip in found.clips]
        clips = [
            clip | {"clip_id": i, "source_id": content} for i, clip in zip(ids, found.clips, strict=True)
        ]
        strips = [strip | {"clip_id": i} for i, strip in zip(ids, found.strips, strict=True)]
        return known | found.source, clips, strips

    def _look(self, uri: str, known: dict[str, Any]) -> Any:
        """The analysis of a file; its source_id is known even when that fails."""
        assert self._box is not None, "setup() comes first"
        with local_path(uri) as path:
            known["source_id"] = _source_id(path)
            if known["source_id"] in self.taken_down:
                return None
            if paths := self.segments.get(known["source_key"]):
                joined = join_segments(Storage(self.root), paths, path, self.config, self._box)
                if not isinstance(joined, Failure):
                    return joined
            named = None
            if self._net:
                small = self._box.thumbnails(path, width_px=WIDTH_PX, height_px=HEIGHT_PX)
                named = self._net.boundaries(small)
            return self._box.analyze(path, self.config, named)


def analyze_corpus(
    corpus: Corpus,
    inputs: pa.Table,
    config: Config,
    executor: Executor,
    progress: Callable[[int, int, dict[str, int]], None],
    *,
    retry_failed: bool = False,
) -> RunSummary:
    """Takes `inputs` as the corpus's files and analyzes those that no current part covers; those that
    failed again when asked to."""
    current = fingerprint(replace(config.analyze, **HOW_NOT_WHAT), AnalyzeStage.version)
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(inputs))
    corpus.record(config, AnalyzeStage.name, current)
    if retry_failed:
        forget_failed(corpus, "sources", AnalyzeStage.name, tables.SOURCES)
    done = set(corpus.sources()["source_key"].to_pylist())
    tasks = plan_tasks(inputs, "source_key", done, current, config.analyze.sources_per_task)
    segments = make_segments(corpus, [t.inputs for t in tasks], config.analyze, current, executor, progress)
    taken_down = frozenset(corpus.takedowns()["source_id"].to_pylist())
    stage = AnalyzeStage(config.analyze, taken_down, corpus.root, segments)
    summary = run(stage, tasks, executor, corpus.root, progress)
    if not summary.lost:
        corpus.sweep_pieces()
    return summary


def _source_id(path: Path) -> str:
    """First 16 hex of the content's sha256."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def _clip_id(source_id: str, clip: dict[str, Any]) -> str:
    return f"{source_id}-{round(clip['start_s'] * 1000)}-{round(clip['end_s'] * 1000)}"
