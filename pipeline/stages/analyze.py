"""The analyze stage: input files → sources, clips and filmstrips. Each file is decoded once, in a
sandboxed child.

In: rows of the inputs table. Out: three parts under the task's key: strips, clips, and sources, which
marks the task as done. A file that cannot be decoded becomes a `failed` source with the reason, and so does
one that changes meanwhile: its rows would be of no content that anyone can read again (its new size or time
is another source_key, so the next run looks again). Small stills go to the child many at a time, with their
bytes; what cannot be read there, and all of a call in which the child dies, is looked at one by one, so that
a file costs itself only and its reason is its own. One whose content was taken down is not decoded again,
whatever its name is now. Never: a codec in this process.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
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
from pipeline.engine.beside import Beside
from pipeline.engine.runner import Executor, RunSummary
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.tasks import plan_sized_tasks, plan_tasks
from pipeline.errors import MediaError
from pipeline.operation.reasons import failures_of
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import Sandbox
from pipeline.settings import fingerprint
from pipeline.shots import detectors
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX
from pipeline.sources.content import CHANGING, open_content, read_content
from pipeline.stages.costs import source_costs
from pipeline.stages.long_sources import PiecesOf, join_pieces, make_pieces
from pipeline.stages.small_stills import SMALL_BYTES, is_small_still, runs
from pipeline.storage import Storage

Rows = list[dict[str, Any]]
Found = tuple[dict[str, Any], Rows, Rows]  # the source row, clip rows and strip rows of one input
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
        for source, own_clips, own_strips in self._files(task):
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

    def _files(self, task: Task) -> Iterator[Found]:
        """What is found of each input, in order; small stills go to the child many at a time."""
        killers = task.killers("source_key")

        def is_small(row: dict[str, Any]) -> bool:
            apart = row["source_key"] in killers or row["source_key"] in self.pieces or self._net
            return not apart and is_small_still(row)

        for rows in runs(task.inputs.to_pylist(), is_small):
            together = self._stills(rows) if len(rows) > 1 else {}
            for row in rows:
                key = row["source_key"]
                yield together[key] if key in together else self._file(row, key in killers)

    def _stills(self, rows: Rows) -> dict[str, Found]:
        """By source_key, what is found of each of these files but those that must be looked at alone."""
        assert self._box is not None, "setup() comes first"
        contents: dict[str, bytes] = {}
        known = {row["source_key"]: _known(row) for row in rows}
        found: dict[str, Found] = {}
        for key, row in known.items():
            if (content := read_content(row["uri"], SMALL_BYTES)) is not None:
                contents[key], row["source_id"] = content
                if row["source_id"] in self.taken_down:
                    found[key] = row | {"status": TAKEN_DOWN}, [], []
                    del contents[key]
        try:
            analyses = self._box.analyze_stills(list(contents.values()), self.config) if contents else []
        except MediaError:  # one of them kills or stops the child: each alone shows which
            return found
        for key, analysis in zip(contents, analyses, strict=True):
            if analysis is not None:
                found[key] = _named(known[key], analysis)
        return found

    def _file(self, row: dict[str, Any], kills: bool) -> Found:
        """The source row, clip rows and strip rows of one input; one that kills is left alone."""
        known = _known(row)
        analysis = KILLED if kills else guard(partial(self._look, row["uri"], known))
        if isinstance(analysis, Failure):
            if analysis.reason.startswith(CHANGING):
                known.pop("source_id", None)  # of which moment?
            return known | {"status": "failed", "reason": analysis.reason}, [], []
        if analysis is None:
            return known | {"status": TAKEN_DOWN}, [], []
        return _named(known, analysis)

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


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """Of an input, what its source's row says too."""
    return {name: row[name] for name in ("source_key", "uri", "size_bytes")}


def _named(known: dict[str, Any], analysis: tables.SourceAnalysis) -> Found:
    """The rows of an analysis with the columns that name the file; its source_id is known."""
    content = known["source_id"]
    ids = [clip_id(content, clip["start_s"], clip["end_s"]) for clip in analysis.clips]
    clips = [clip | {"clip_id": i, "source_id": content} for i, clip in zip(ids, analysis.clips, strict=True)]
    strips = [strip | {"clip_id": i} for i, strip in zip(ids, analysis.strips, strict=True)]
    return known | analysis.source, clips, strips


def analyze_corpus(
    corpus: Corpus,
    inputs: pa.Table,
    config: Config,
    executor: Executor,
    progress: Progress,
    *,
    retry_failed: bool = False,
    beside: Beside = nullcontext,
) -> RunSummary:
    """Takes `inputs` as the corpus's files and analyzes those that no current part covers; those that
    failed again when asked to. `beside` is entered while files are analyzed."""
    current = fingerprint(config.analyze, AnalyzeStage.version)
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(inputs))

    def plan() -> list[Task]:
        done = set(corpus.sources()["source_key"].to_pylist())
        missing = pc.and_(pc.equal(inputs["size_bytes"], 0), pc.equal(inputs["mtime_ns"], 0))
        there, gone = inputs.filter(pc.invert(missing)), inputs.filter(missing)
        costs, most = source_costs(there), config.analyze.sources_per_task
        tasks = plan_sized_tasks(there, "source_key", done, current, costs, per_task=most)
        return [*tasks, *plan_tasks(gone, "source_key", done, current, MISSING_PER_TASK)]

    def stage(tasks: Sequence[Task]) -> AnalyzeStage:
        given, open_inputs = config.resources.analyze, [t.inputs for t in tasks]
        pieces = make_pieces(corpus, open_inputs, config.analyze, current, executor, progress, given)
        taken_down = frozenset(corpus.takedowns()["source_id"].to_pylist())
        analyze = AnalyzeStage(config.analyze, taken_down, corpus.root, pieces)
        analyze.resources = analyze.resources.set_to(AnalyzeStage.name, given)
        return analyze

    summary = bring_up_to_date(
        corpus,
        config,
        AnalyzeStage.name,
        current,
        plan=plan,
        stage=stage,
        executor=executor,
        progress=progress,
        forget=partial(forget_failed, corpus, AnalyzeStage.name) if retry_failed else None,
        beside=beside,
    )
    if not summary.lost:
        corpus.sweep_pieces()
    return summary
