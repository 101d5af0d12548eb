"""The analyze stage: input files → sources, clips and filmstrips. Each file is decoded once, in a
sandboxed child.

In: rows of the inputs table. Out: three parts under the task's key: strips, clips, and sources, which
marks the task as done. A file that cannot be decoded becomes a `failed` source with the reason, and so does
one that changes meanwhile: its rows would be of no content that anyone can read again (its new size or time
is another source_key, so the next run looks again). One whose content was taken down is not decoded again,
whatever its name is now. Never: a codec in this process.
"""

from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, TAKEN_DOWN, Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.ids import clip_id
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.runner import Executor, RunSummary
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.tasks import plan_tasks
from pipeline.operation.reasons import failures_of
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import Sandbox
from pipeline.settings import fingerprint
from pipeline.shots import detectors
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX
from pipeline.sources.content import CHANGING, open_content
from pipeline.stages.long_sources import PiecesOf, join_pieces, make_pieces
from pipeline.storage import Storage

Rows = list[dict[str, Any]]
MISSING_PER_TASK = 1000  # files that were not there when the run looked: a row each and no decoding child


class AnalyzeStage:
    """One task is a few files. The decoding child lives as long as the worker. `pieces`: where the pieces
    lie of sources that were decoded in pieces, in the corpus at `root`."""

    name = "analyze"
    version = 5

    def __init__(
        self,
        config: AnalyzeConfig,
        taken_down: frozenset[str] = frozenset(),
        root: str = "",
        pieces: PiecesOf | None = None,
    ) -> None:
        self.config, self.taken_down = config, taken_down
        self.root, self.pieces = root, pieces or {}
        self.resources = Resources(cpus=1.0, memory_gb=min(2.0, config.memory_gb))
        self._box: Sandbox | None = None
        self._net: detectors.TransNet | None = None

    def setup(self) -> None:
        self._box = Sandbox(self.config.limits())
        detectors.check(self.config.shots.detector)
        self._net = (
            detectors.TransNet(self.config.deadline_s) if self.config.shots.detector == "transnetv2" else None
        )

    def process(self, task: Task) -> TaskResult:
        sources: Rows = []
        clips: dict[str, dict[str, Any]] = {}  # by clip_id: files of equal content share their clips
        strips: dict[str, dict[str, Any]] = {}
        counts = {"ok": 0, "salvaged": 0, "failed": 0, "clips": 0}
        killers = task.killers("source_key")
        for row in task.inputs.to_pylist():
            source, own_clips, own_strips = self._file(row, row["source_key"] in killers)
            sources.append(source)
            counts[source["status"]] = counts.get(source["status"], 0) + 1
            clips |= {clip["clip_id"]: clip for clip in own_clips}
            strips |= {strip["clip_id"]: strip for strip in own_strips}
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
        amounts = {
            "footage_s": sum(source.get("duration_s") or 0.0 for source in sources),
            "frames": sum(source.get("frames") or 0 for source in sources),
        }
        failures = failures_of(source["reason"] for source in sources if source["status"] == "failed")
        return TaskResult(outputs=outputs, counts=counts, amounts=amounts, failures=failures)

    def _file(self, row: dict[str, Any], kills: bool) -> tuple[dict[str, Any], Rows, Rows]:
        """The source row, clip rows and strip rows of one input; one that kills is left alone."""
        known = {k: row[k] for k in ("source_key", "uri", "size_bytes")}
        analysis = KILLED if kills else guard(partial(self._look, row["uri"], known))
        if isinstance(analysis, Failure):
            if analysis.reason.startswith(CHANGING):
                known.pop("source_id", None)  # of which moment?
            return known | {"status": "failed", "reason": analysis.reason}, [], []
        if analysis is None:
            return known | {"status": TAKEN_DOWN}, [], []
        content = known["source_id"]
        ids = [clip_id(content, clip["start_s"], clip["end_s"]) for clip in analysis.clips]
        clips = [
            clip | {"clip_id": i, "source_id": content} for i, clip in zip(ids, analysis.clips, strict=True)
        ]
        strips = [strip | {"clip_id": i} for i, strip in zip(ids, analysis.strips, strict=True)]
        return known | analysis.source, clips, strips

    def _look(self, uri: str, known: dict[str, Any]) -> tables.SourceAnalysis | None:
        """The analysis of a file, None when it was taken down; its source_id is known even if it fails."""
        assert self._box is not None, "setup() comes first"
        with open_content(uri) as (path, source_id):
            known["source_id"] = source_id
            if source_id in self.taken_down:
                return None
            if pieces := self.pieces.get(known["source_key"]):
                joined = join_pieces(Storage(self.root), pieces, path, source_id, self.config, self._box)
                if not isinstance(joined, Failure):
                    return joined
            boundaries = None
            if self._net:
                small = self._box.thumbnails(path, width_px=WIDTH_PX, height_px=HEIGHT_PX)
                boundaries = self._net.boundaries(small)
            return self._box.analyze(path, self.config, boundaries)


def analyze_corpus(
    corpus: Corpus,
    inputs: pa.Table,
    config: Config,
    executor: Executor,
    progress: Progress,
    *,
    retry_failed: bool = False,
) -> RunSummary:
    """Takes `inputs` as the corpus's files and analyzes those that no current part covers; those that
    failed again when asked to."""
    current = fingerprint(config.analyze, AnalyzeStage.version)
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(inputs))

    def plan() -> list[Task]:
        done = set(corpus.sources()["source_key"].to_pylist())
        missing = pc.and_(pc.equal(inputs["size_bytes"], 0), pc.equal(inputs["mtime_ns"], 0))
        there, gone = inputs.filter(pc.invert(missing)), inputs.filter(missing)
        tasks = plan_tasks(there, "source_key", done, current, config.analyze.sources_per_task)
        return [*tasks, *plan_tasks(gone, "source_key", done, current, MISSING_PER_TASK)]

    def stage(tasks: list[Task]) -> AnalyzeStage:
        pieces = make_pieces(corpus, [t.inputs for t in tasks], config.analyze, current, executor, progress)
        taken_down = frozenset(corpus.takedowns()["source_id"].to_pylist())
        return AnalyzeStage(config.analyze, taken_down, corpus.root, pieces)

    summary = bring_up_to_date(
        corpus,
        config,
        AnalyzeStage.name,
        current,
        plan=plan,
        stage=stage,
        executor=executor,
        progress=progress,
        forget=partial(forget_failed, corpus, "sources", AnalyzeStage.name, tables.SOURCES)
        if retry_failed
        else None,
    )
    if not summary.lost:
        corpus.sweep_pieces()
    return summary
