"""Captions ahead of the verdict: while the analysis still looks at files, clips of those it has done are
captioned.

In: receipts of the analysis, as its parts are committed. Out: parts in ahead/, rows of the captions table, of
clips that break no rule which one clip alone can break. When all clips are judged, `take_over` makes parts of
the captions table of the rows of those that are kept, and drops the others, whose work was for nothing:
copies and percentiles are known only when every clip is. The caption stage then does what is open, what
failed included, so that the table is that of a run without any of this. Never: a verdict.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.filmstrip import SPAN_COLUMNS
from captioner.names import load_captioner
from captioner.recaption import Load, RecaptionStage, captions_fingerprint, with_originals
from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.compaction import unique_sorted
from pipeline.corpus.corpus import AHEAD_FOLDER, Corpus
from pipeline.corpus.manifest import CLIPS
from pipeline.engine.beside import beside
from pipeline.engine.runner import Executor, Receipt, RunSummary, granted
from pipeline.engine.stage import Resources, Task, TaskResult
from pipeline.engine.task_list import Feed
from pipeline.engine.tasks import part_key
from pipeline.operation.receipts import run_recorded
from pipeline.progress import Progress
from pipeline.rule_grammar import Rule, rules_of
from pipeline.stages import rules
from pipeline.storage import Storage

LOG = logging.getLogger(__name__)
MOST_CLIPS = 16  # of a task: the end of the analysis waits for the tasks that run
LEAST_TASKS = 4  # before workers begin: those of the built-in captioner then work for longer than they start
BATCH_BYTES = 64 << 20  # of rows that are taken over at once
CLIP_COLUMNS = (*SPAN_COLUMNS, "fps", "crop", "boundary_confidence", "signals", "status")
Span = tuple[str, int]  # the key of an analyze part, and the first of its clips that a task is of


class AheadStage:
    """Captions those clips of a task that break none of the rules. A task is a row: the key of a `part` of
    the analysis, and the numbers `begin` to `end` of rows of its clips."""

    name = "ahead"
    version = RecaptionStage.version

    def __init__(self, root: str, recaption: RecaptionStage, broken_alone: list[Rule]) -> None:
        self.resources: Resources = recaption.resources
        self._root, self._recaption, self._rules = root, recaption, broken_alone

    def setup(self) -> None:
        self._recaption.setup()

    def process(self, task: Task) -> TaskResult:
        (of,) = task.inputs.to_pylist()
        data = Storage(self._root).read_bytes(f"{CLIPS.folder}/{of['part']}.parquet")
        clips = tables.from_parquet(data, tables.CLIPS, CLIP_COLUMNS)
        clips = clips.slice(of["begin"], of["end"] - of["begin"])
        clips = clips.filter(pa.array(passing(clips, self._rules))).select(SPAN_COLUMNS)
        if not clips.num_rows:
            return TaskResult(outputs=())
        clips = clips.append_column("original", pa.nulls(clips.num_rows, pa.string()))
        clips = clips.append_column("part", pa.array([of["part"]] * clips.num_rows, pa.string()))
        result = self._recaption.process(Task(key=task.key, inputs=clips))
        (part,) = result.outputs
        return replace(result, outputs=(replace(part, path=f"{AHEAD_FOLDER}/{task.key}.parquet"),))


def rules_alone(config: Config) -> list[Rule]:
    """The rules that one clip can break whatever the others are."""
    return [rule for rule in rules_of(rules.resolved(config.judge)) if not rule.limit.endswith("percentile")]


def passing(clips: pa.Table, broken_alone: list[Rule]) -> np.ndarray:
    """bool [N]: the clips, of which something is known, that break none of the rules."""
    sound = pc.equal(clips["status"], "ok").to_numpy(zero_copy_only=False)
    for mask in rules.broken(clips, broken_alone).values():
        sound = sound & ~mask
    return np.asarray(sound, bool)


@dataclass(slots=True)
class Ahead:
    """The stage `ahead`, beside an analysis. Its `summaries` name no lost task: the caption stage does
    those."""

    corpus: Corpus
    config: Config
    executor: Executor
    progress: Progress
    load: Load = load_captioner
    summaries: list[RunSummary] = field(default_factory=list)

    @contextmanager
    def beside(self) -> Iterator[Callable[[Receipt], None]]:
        """Captions while the block runs; what it gives takes the receipts of the analysis. At the end of the
        block no task is begun any more: from there on the caption stage, which knows what is kept, does
        better. Enter it when the fingerprint of the analysis is current."""
        captioner = self.load(self.config.caption.captioner, self.config.caption.max_tokens)
        current = captions_fingerprint(self.corpus, self.config, captioner)
        settings = self.config.resources.caption
        resources = granted(captioner.resources, self.executor, "caption", settings)
        recaption = RecaptionStage(self.corpus.root, self.config.caption, self.load, resources)
        stage = AheadStage(self.corpus.root, recaption, rules_alone(self.config))
        per_task = min(self.config.caption.clips_per_task, MOST_CLIPS)

        def task(span: Span) -> Task:
            part, begin = span
            inputs = pa.table({"part": [part], "begin": [begin], "end": [begin + per_task]})
            return Task(key=part_key(current, [part, str(begin), str(per_task)]), inputs=inputs)

        feed = Feed(task, LEAST_TASKS)

        def heed(receipt: Receipt) -> None:
            if receipt.part:
                feed.add((receipt.key, begin) for begin in range(0, receipt.counts.get("clips", 0), per_task))

        def report(done: int, total: int, facts: Mapping[str, object]) -> None:
            self.progress(done, max(total, done + feed.open), facts)  # at its end only when it is

        def work() -> RunSummary:
            return run_recorded(stage, feed, self.executor, self.corpus.storage, self.corpus.run_id, report)

        summaries: list[RunSummary] = []
        with beside(self.executor, work, summaries):
            try:
                yield heed
            finally:
                feed.close()
        self.summaries += [replace(summary, lost=()) for summary in summaries]


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """Clips that were captioned ahead, and how many of these captions were of no use: their clips are not
    kept, or copies in other files had been captioned as well."""

    captioned: int = 0
    lost: int = 0


def take_over(corpus: Corpus, config: Config, load: Load = load_captioner) -> TakenOver:
    """Makes captions that were made ahead rows of the captions table, where their clips are kept now, and
    deletes the others, also those that other settings or a killed run left. Killed anywhere, the next run
    goes on: rows lie in the table before what they were made of goes."""
    files = corpus.storage.list(AHEAD_FOLDER, ".parquet")
    if not files:
        return TakenOver()
    captioner = load(config.caption.captioner, config.caption.max_tokens)
    current = captions_fingerprint(corpus, config, captioner)
    kept, originals = corpus.kept()["clip_id"].combine_chunks(), corpus.contents(["original"])
    captioned, taken = 0, [pa.array([], pa.string())]
    for paths, rows in _batches(corpus.storage, [file for file in files if file.startswith(current[:8])]):
        rows = rows.filter(pc.equal(rows["status"], "ok"))
        captioned += rows.num_rows
        rows = unique_sorted(rows.filter(pc.is_in(rows["clip_id"], value_set=kept)), ("clip_id",))
        if rows.num_rows:
            key = part_key(current, rows["clip_id"].to_pylist())
            data = tables.to_parquet(with_originals(rows, originals))
            corpus.storage.write_bytes(f"captions/{captioner.dir_name}/{key}.parquet", data)
            taken.append(rows["clip_id"].combine_chunks())
        corpus.storage.delete_all(paths)
    corpus.storage.delete_all(f"{AHEAD_FOLDER}/{file}" for file in files)
    lost = captioned - pc.count_distinct(pa.chunked_array(taken)).as_py()
    LOG.info("captioned ahead: %d, of them lost: %d", captioned, lost)
    return TakenOver(captioned=captioned, lost=lost)


def _batches(storage: Storage, files: list[str]) -> Iterator[tuple[list[str], pa.Table]]:
    """(paths, the rows of these files) until all are read; at most a file more than BATCH_BYTES at once."""
    paths: list[str] = []
    parts: list[pa.Table] = []
    for file in files:
        paths.append(f"{AHEAD_FOLDER}/{file}")
        parts.append(tables.from_parquet(storage.read_bytes(paths[-1]), tables.CAPTIONS))
        if sum(part.nbytes for part in parts) > BATCH_BYTES:
            yield paths, pa.concat_tables(parts)
            paths, parts = [], []
    if parts:
        yield paths, pa.concat_tables(parts)
