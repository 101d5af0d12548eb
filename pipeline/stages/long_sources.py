"""Long sources, decoded in pieces by several workers before the analyze stage joins them.

In: the open inputs that are large enough to be long. Out: packed pieces under `segments/`, which the analyze
stage reads in place of decoding; the rows are those of one pass (pipeline/onepass/pieces.py), so the pieces
are keyed but never part of a corpus's identity, and are deleted when nothing is open. A piece that cannot be
trusted is an empty file: its source is decoded in one pass. Never: a clip, a decision.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import AnalyzeConfig
from pipeline.corpus.corpus import PIECES_FOLDER, Corpus
from pipeline.corpus.tables import SourceAnalysis
from pipeline.engine.runner import Executor, run
from pipeline.engine.stage import Failure, Output, Resources, Task, TaskResult, guard
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import Sandbox
from pipeline.settings import fingerprint
from pipeline.storage import Buffer, Storage
from pipeline.uris import local_path, stat_each

Paths = dict[str, tuple[str, ...]]  # source_key → its pieces' files, in order


class _DecodingStage:
    """What the two stages share: a decoding child that lives as long as the worker."""

    version = 1

    def __init__(self, config: AnalyzeConfig) -> None:
        self.config = config
        self.resources = Resources(cpus=1.0, memory_gb=min(2.0, config.memory_gb))
        self._box: Sandbox | None = None

    def setup(self) -> None:
        self._box = Sandbox(self.config.limits())


class SurveyStage(_DecodingStage):
    """Into how many pieces each source is cut: one number a row, as text."""

    name = "survey"

    def process(self, task: Task) -> TaskResult:
        counts = [guard(partial(self._count, uri)) for uri in task.inputs["uri"].to_pylist()]
        text = "\n".join("1" if isinstance(count, Failure) else str(count) for count in counts)
        return TaskResult(outputs=(Output(path=f"{PIECES_FOLDER}/{task.key}.txt", data=text.encode()),))

    def _count(self, uri: str) -> int:
        assert self._box is not None, "setup() comes first"
        with local_path(uri) as path:
            return self._box.count_pieces(path, self.config)


class PieceStage(_DecodingStage):
    """One task is one piece of one source."""

    name = "segments"

    def process(self, task: Task) -> TaskResult:
        (row,) = task.inputs.to_pylist()
        packed = b"" if task.poisoned else guard(partial(self._watch, **row))
        data = b"" if isinstance(packed, Failure) else packed
        return TaskResult(outputs=(Output(path=f"{PIECES_FOLDER}/{task.key}.npz", data=data),))

    def _watch(self, uri: str, piece: int, pieces: int) -> Buffer:
        assert self._box is not None, "setup() comes first"
        with local_path(uri) as path:
            return self._box.watch_piece(path, self.config, piece, pieces)


def make_pieces(
    corpus: Corpus,
    open_inputs: Sequence[pa.Table],
    config: AnalyzeConfig,
    key: str,
    executor: Executor,
    progress: Progress,
) -> Paths:
    """Decodes the long sources among the open ones in pieces; the files of each."""
    least = int(config.segment_min_mb * 2**20)
    large = [
        row
        for inputs in open_inputs
        for row in inputs.filter(pc.greater_equal(inputs["size_bytes"], least)).to_pylist()
    ]
    if config.segment_s <= 0 or not large:
        return {}
    key = fingerprint(key, config.segment_s)
    surveys = [_task(key, "survey", row["source_key"], uri=row["uri"]) for row in large]
    _run(SurveyStage(config), surveys, corpus, executor, progress, ".txt")
    paths: Paths = {}
    tasks: list[Task] = []
    for row, survey in zip(large, surveys, strict=True):
        pieces = int(_read(corpus.storage, f"{PIECES_FOLDER}/{survey.key}.txt") or b"1")
        if pieces > 1:
            of_source = [
                _task(key, str(pieces), row["source_key"], str(k), uri=row["uri"], piece=k, pieces=pieces)
                for k in range(pieces)
            ]
            paths[row["source_key"]] = tuple(f"{PIECES_FOLDER}/{task.key}.npz" for task in of_source)
            tasks += of_source
    _run(PieceStage(config), tasks, corpus, executor, progress, ".npz")
    return paths


def join_pieces(
    storage: Storage, paths: Sequence[str], path: Path, config: AnalyzeConfig, box: Sandbox
) -> SourceAnalysis | Failure:
    """The rows of a source from its pieces, or why one pass is needed."""
    files = stat_each([f"{storage.root}/{piece}" for piece in paths])
    sizes = [file.size_bytes if file else 0 for file in files]
    if not all(sizes):
        return Failure(reason="a piece is missing or cannot be trusted")
    return guard(lambda: box.join_pieces(path, config, sizes, map(storage.read_bytes, paths)))


def _task(key: str, *ids: str, **row: str | int) -> Task:
    return Task(key=fingerprint(key, ids), inputs=pa.table({name: [value] for name, value in row.items()}))


def _run(
    stage: SurveyStage | PieceStage,
    tasks: Sequence[Task],
    corpus: Corpus,
    executor: Executor,
    progress: Progress,
    suffix: str,
) -> None:
    done = set(corpus.storage.list(PIECES_FOLDER, suffix))
    run(stage, [t for t in tasks if f"{t.key}{suffix}" not in done], executor, corpus.root, progress)


def _read(storage: Storage, path: str) -> bytes:
    return storage.read_bytes(path) if storage.exists(path) else b""
