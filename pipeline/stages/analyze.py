"""The analyze stage: input files → sources, clips and filmstrips. Each file is decoded once, in a
sandboxed child.

In: rows of the inputs table. Out: three parts under the task's key: strips, clips, and sources, which
marks the task as done. A file that cannot be decoded becomes a `failed` source with the reason, and so does
one that changes meanwhile: its rows would be of no content that anyone can read again (its new size or time
is another source_key, so the next run looks again). Small stills go to the child many at a time, with their
bytes; what cannot be read there, and all of a call in which the child dies, is looked at one by one, so that
a file costs itself only and its reason is its own. One whose content was taken down is not decoded again,
whatever its name is now; nor is one that has the content of its twin (pipeline/stages/twins.py): it gets the
twin's row under its own name, and its clips, which bear the name of the content, are in the corpus already.
Never: a codec in this process.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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
from pipeline.stages.twins import OF_THE_FILE, TWIN, twin_id, with_twins
from pipeline.storage import Storage

Row = dict[str, Any]
Rows = list[Row]
KNOWN = "unchanged"  # the count of sources whose content was analyzed before
MISSING_PER_TASK = 1000  # files that were not there when the run looked: a row each and no decoding child


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRows:
    """What comes of one input: its row of sources, and of clips and strips those that the corpus lacks."""

    source: Row
    clips: Rows
    strips: Rows
    is_known: bool = False  # its content was analyzed before

    @property
    def is_decoded(self) -> bool:
        return not self.is_known and self.source["status"] in ("ok", "salvaged")


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
        sources = list(self._sources(task))
        # by clip_id: files of equal content share their clips
        clips = {clip["clip_id"]: clip for source in sources for clip in source.clips}
        strips = {strip["clip_id"]: strip for source in sources for strip in source.strips}
        rows = [source.source for source in sources]
        counts = {"ok": 0, "salvaged": 0, "failed": 0} | Counter(row["status"] for row in rows)
        counts["clips"] = len(clips)
        if known := sum(source.is_known for source in sources):
            counts[KNOWN] = known
        parts = (
            ("strips", strips.values(), tables.STRIPS),
            ("clips", clips.values(), tables.CLIPS),
            ("sources", rows, tables.SOURCES),  # last: the done-marker
        )
        outputs = tuple(
            Output(path=f"{folder}/{task.key}.parquet", data=tables.rows_to_parquet(of_table, schema))
            for folder, of_table, schema in parts
        )
        decoded = [source.source for source in sources if source.is_decoded]
        amounts = {
            "footage_s": sum(row["duration_s"] or 0.0 for row in decoded),
            "frames": sum(row["frames"] or 0 for row in decoded),
        }
        failures = failures_of(row["reason"] for row in rows if row["status"] == "failed")
        return TaskResult(outputs=outputs, counts=counts, amounts=amounts, failures=failures)

    def _sources(self, task: Task) -> Iterator[SourceRows]:
        """What comes of each input, in order; small stills go to the child many at a time."""
        killers = task.killers("source_key")

        def is_small(row: Row) -> bool:
            apart = row["source_key"] in killers or row["source_key"] in self.pieces or self._net
            return not apart and is_small_still(row)

        for rows in runs(task.inputs.to_pylist(), is_small):
            together = self._stills(rows) if len(rows) > 1 else {}
            for row in rows:
                key = row["source_key"]
                yield together[key] if key in together else self._file(row, key in killers)

    def _stills(self, rows: Rows) -> dict[str, SourceRows]:
        """By source_key, what comes of each of these files but those that must be looked at alone."""
        assert self._box is not None, "setup() comes first"
        contents: dict[str, bytes] = {}
        files = {row["source_key"]: _file_columns(row) for row in rows}
        of_key: dict[str, SourceRows] = {}
        for row in rows:
            key = row["source_key"]
            if (content := read_content(row["uri"], SMALL_BYTES)) is not None:
                data, files[key]["source_id"] = content
                if (known := self._without_decoding(row, files[key])) is not None:
                    of_key[key] = known
                else:
                    contents[key] = data
        try:
            analyses = self._box.analyze_stills(list(contents.values()), self.config) if contents else []
        except MediaError:  # one of them kills or stops the child: each alone shows which
            return of_key
        for key, analysis in zip(contents, analyses, strict=True):
            if analysis is not None:
                of_key[key] = _named(files[key], analysis)
        return of_key

    def _file(self, row: Row, kills: bool) -> SourceRows:
        """What comes of one input; one that kills is left alone."""
        file = _file_columns(row)
        rows = KILLED if kills else guard(partial(self._look, row, file))
        if not isinstance(rows, Failure):
            return rows
        if rows.reason.startswith(CHANGING):
            file.pop("source_id", None)  # of which moment?
        return SourceRows(source=file | {"status": "failed", "reason": rows.reason}, clips=[], strips=[])

    def _look(self, row: Row, file: Row) -> SourceRows:
        """What comes of an input that can be read; its source_id is put into `file` before it is decoded."""
        with open_content(row["uri"]) as (path, source_id):
            file["source_id"] = source_id
            known = self._without_decoding(row, file)
            return _named(file, self._decoded(path, file)) if known is None else known

    def _without_decoding(self, row: Row, file: Row) -> SourceRows | None:
        """What is known of an input as soon as its content is, None where it must be decoded."""
        if file["source_id"] in self.taken_down:
            return SourceRows(source=file | {"status": TAKEN_DOWN}, clips=[], strips=[])
        if file["source_id"] == twin_id(row):
            of_content = {name: value for name, value in row[TWIN].items() if name not in OF_THE_FILE}
            return SourceRows(source=file | of_content, clips=[], strips=[], is_known=True)
        return None

    def _decoded(self, path: Path, file: Row) -> tables.SourceAnalysis:
        """The analysis of a file, from its pieces where there are any."""
        assert self._box is not None, "setup() comes first"
        if pieces := self.pieces.get(file["source_key"]):
            storage, source_id = Storage(self.root), file["source_id"]
            joined = join_pieces(storage, pieces, path, source_id, self.config, self._box)
            if not isinstance(joined, Failure):
                return joined
        boundaries = None
        if self._net:
            small = self._box.thumbnails(path, width_px=WIDTH_PX, height_px=HEIGHT_PX)
            boundaries = self._net.boundaries(small)
        return self._box.analyze(path, self.config, boundaries)


def _file_columns(row: Row) -> Row:
    """Of an input, what its source's row says too."""
    return {name: row[name] for name in ("source_key", "uri", "size_bytes")}


def _named(file: Row, analysis: tables.SourceAnalysis) -> SourceRows:
    """The rows of an analysis with the columns of the file, whose source_id is among them."""
    content = file["source_id"]
    ids = [clip_id(content, clip["start_s"], clip["end_s"]) for clip in analysis.clips]
    clips = [clip | {"clip_id": i, "source_id": content} for i, clip in zip(ids, analysis.clips, strict=True)]
    strips = [strip | {"clip_id": i} for i, strip in zip(ids, analysis.strips, strict=True)]
    return SourceRows(source=file | analysis.source, clips=clips, strips=strips)


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
        there = with_twins(corpus, there, done)
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
