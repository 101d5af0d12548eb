"""Long sources, decoded in pieces by several workers before the analyze stage joins them.

In: the open inputs that are large enough to be long. Out: packed pieces under `segments/`, which the analyze
stage reads in place of decoding; the rows are those of one pass (pipeline/onepass/pieces.py), so the pieces
are keyed but never part of a corpus's identity, and are deleted when nothing is open. A piece that cannot be
trusted is an empty file: its source is decoded in one pass. The survey says of which content the pieces must
be; it is part of their key, each worker holds the file against it, and so does who joins them. Never: a
clip, a decision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import AnalyzeConfig, StageResources
from pipeline.corpus.corpus import PIECES_FOLDER, Corpus
from pipeline.corpus.tables import SourceAnalysis
from pipeline.engine.runner import Executor
from pipeline.engine.stage import UNSET, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.operation.receipts import run_recorded
from pipeline.progress import Progress
from pipeline.sandbox.sandbox import Sandbox
from pipeline.settings import fingerprint
from pipeline.sources.content import open_content
from pipeline.stages.twins import twin_id
from pipeline.storage import Buffer, Storage
from pipeline.uris import stat_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Pieces:
    """One long source in pieces: `paths` of its pieces' files, in order, all of them of the content
    `source_id`."""

    source_id: str
    paths: tuple[str, ...]


PiecesOf = dict[str, Pieces]  # by source_key
ONE_PASS = "1 -"  # the survey of a source that is not cut, or cannot be looked at


class _DecodingStage:
    """What the two stages share: a decoding child that lives as long as the worker."""

    version = 1

    def __init__(self, config: AnalyzeConfig, given: StageResources = UNSET) -> None:
        self.config = config
        wanted = Resources(cpus=1.0, memory_gb=min(2.0, config.memory_gb))
        self.resources = wanted.set_to("analyze", given)
        self._box: Sandbox | None = None

    def setup(self) -> None:
        self._box = Sandbox(self.config.limits())


class SurveyStage(_DecodingStage):
    """Into how many pieces each source is cut, and its source_id: two words a row, as text. One that has the
    content of its twin is not cut."""

    name = "survey"

    def process(self, task: Task) -> TaskResult:
        surveys = [guard(partial(self._survey, **row)) for row in task.inputs.to_pylist()]
        text = "\n".join(ONE_PASS if isinstance(survey, Failure) else survey for survey in surveys)
        return TaskResult(outputs=(Output(path=_survey_path(task), data=text.encode()),))

    def _survey(self, uri: str, twin_id: str) -> str:
        assert self._box is not None, "setup() comes first"
        with open_content(uri) as (path, source_id):
            is_known = source_id == twin_id  # and is not decoded at all
            return f"{1 if is_known else self._box.count_pieces(path, self.config)} {source_id}"


class PieceStage(_DecodingStage):
    """One task is one piece of one source."""

    name = "segments"

    def process(self, task: Task) -> TaskResult:
        (row,) = task.inputs.to_pylist()
        packed = b"" if task.poisoned else guard(partial(self._watch, **row))
        data = b"" if isinstance(packed, Failure) else packed
        return TaskResult(outputs=(Output(path=f"{PIECES_FOLDER}/{task.key}.npz", data=data),))

    def _watch(self, uri: str, source_id: str, piece: int, pieces: int) -> Buffer:
        assert self._box is not None, "setup() comes first"
        with open_content(uri, source_id) as (path, _):
            return self._box.watch_piece(path, self.config, piece, pieces)


def make_pieces(
    corpus: Corpus,
    open_inputs: Sequence[pa.Table],
    config: AnalyzeConfig,
    key: str,
    executor: Executor,
    progress: Progress,
    given: StageResources = UNSET,
) -> PiecesOf:
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
    surveys = [
        _task(key, "survey of a content", row["source_key"], uri=row["uri"], twin_id=twin_id(row))
        for row in large
    ]
    _run(SurveyStage(config, given), surveys, corpus, executor, progress, ".txt")
    pieces_of: PiecesOf = {}
    tasks: list[Task] = []
    answers = corpus.storage.each([_survey_path(survey) for survey in surveys], corpus.storage.read_if_there)
    for row, answer in zip(large, answers, strict=True):
        text = answer.decode() if answer else ONE_PASS
        pieces, source_id = int(text.split()[0]), text.split()[1]
        if pieces > 1:
            fixed: dict[str, str | int] = {"uri": row["uri"], "source_id": source_id, "pieces": pieces}
            of_source = [
                _task(key, str(pieces), row["source_key"], source_id, str(k), **fixed, piece=k)
                for k in range(pieces)
            ]
            paths = tuple(f"{PIECES_FOLDER}/{task.key}.npz" for task in of_source)
            pieces_of[row["source_key"]] = Pieces(source_id=source_id, paths=paths)
            tasks += of_source
    _run(PieceStage(config, given), tasks, corpus, executor, progress, ".npz")
    return pieces_of


def join_pieces(
    storage: Storage, pieces: Pieces, path: Path, source_id: str, config: AnalyzeConfig, box: Sandbox
) -> SourceAnalysis | Failure:
    """The rows of the source at `path`, whose content is `source_id`, from its pieces, or why one pass is
    needed."""
    if pieces.source_id != source_id:
        return Failure(reason="the pieces are of another content")
    files = stat_each([f"{storage.root}/{piece}" for piece in pieces.paths])
    sizes = [file.size_bytes if file else 0 for file in files]
    if not all(sizes):
        return Failure(reason="a piece is missing or cannot be trusted")
    return guard(lambda: box.join_pieces(path, config, sizes, map(storage.read_bytes, pieces.paths)))


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
    todo = [t for t in tasks if f"{t.key}{suffix}" not in done]
    run_recorded(stage, todo, executor, corpus.storage, corpus.run_id, progress)


def _survey_path(survey: Task) -> str:
    return f"{PIECES_FOLDER}/{survey.key}.txt"
