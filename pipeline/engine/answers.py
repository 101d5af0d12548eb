"""What a worker in another process says of a task: a receipt, or the error that ends the run.

In: a stage and its tasks, one after another. Out: answers, which travel as plain dicts. An executor that runs
elsewhere gets no exceptions from there: what must end the run has to travel as a value. So do the lines of
the worker's log, which come out in the log of the run, wherever the worker was.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from pipeline import errors
from pipeline.command import PACKAGES
from pipeline.engine.proof import Question
from pipeline.engine.runner import Receipt, Worker
from pipeline.engine.stage import Stage, Task

ERRORS: dict[str, type[errors.FramemillError]] = {  # as they are called on the way
    "error": errors.FramemillError,
    "usage": errors.UsageError,
    "config": errors.ConfigError,
    "storage": errors.StorageError,
    "media": errors.MediaError,
    "model": errors.ModelError,
    "format": errors.FormatError,
}
NAMES = {kind: name for name, kind in ERRORS.items()}
MOST_LINES = 100  # of a task's log that travel
Line = tuple[int, str, str]  # level, logger, message


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a task: either its receipt or the error that must end the run, never both; and what its
    worker wrote to its log meanwhile."""

    receipt: Receipt | None = None
    fatal: errors.FramemillError | None = None
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        if (self.receipt is None) == (self.fatal is None):
            raise ValueError("an answer is a receipt or a fatal error")

    def receipt_or_raise(self) -> Receipt:
        """The receipt; the error of a run that must end is raised."""
        if self.fatal is not None:
            raise self.fatal
        assert self.receipt is not None
        return self.receipt

    def to_dict(self) -> dict[str, Any]:
        """JSON can hold it."""
        lines = {"lines": self.lines} if self.lines else {}
        if self.fatal is None:
            assert self.receipt is not None
            return {"receipt": asdict(self.receipt), **lines}
        kind = next(kind for kind in type(self.fatal).__mro__ if kind in NAMES)
        texts = {"what": self.fatal.what, "expected": self.fatal.expected, "fix": self.fatal.fix}
        return {"fatal": {"kind": NAMES[kind], **texts}, **lines}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Answer":
        lines = tuple((level, logger, text) for level, logger, text in row.get("lines", ()))
        if "receipt" in row:
            return cls(receipt=Receipt(**row["receipt"]), lines=lines)
        texts = dict(row["fatal"])
        what, kind = texts.pop("what"), ERRORS[texts.pop("kind")]
        return cls(fatal=kind(what, **texts), lines=lines)


class AnsweringWorker:
    """A Worker in a process of an executor, on `node`: set up at its first task, never raises what must
    travel. Lines of its log from `level` on travel too."""

    def __init__(
        self, stage: Stage, question: Question, node: str = "", level: int = logging.WARNING
    ) -> None:
        self._stage, self._question, self._node, self._level = stage, question, node, level
        self._worker: Worker | None = None

    def run(self, task: Task, *, commit: bool = True) -> Answer:
        with _kept(self._level) as kept:
            answer = self._answer(task, commit)
        return replace(answer, lines=tuple(kept.lines))

    def _answer(self, task: Task, commit: bool) -> Answer:
        try:
            self._worker = self._worker or Worker(self._stage, self._question.root, self._question)
            receipt = self._worker.run(task, commit=commit)
        except errors.FramemillError as error:
            return Answer(fatal=error)
        return Answer(receipt=replace(receipt, node=self._node or receipt.node))


class _Kept(logging.Handler):
    """The first lines of a log, and how many more there were."""

    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < MOST_LINES:
            self.lines.append((record.levelno, record.name, record.getMessage()))


@contextmanager
def _kept(level: int) -> Iterator[_Kept]:
    """Takes the lines of this project's loggers meanwhile."""
    handler, loggers = _Kept(level), [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.setLevel(level)
        logger.addHandler(handler)
    try:
        yield handler
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
