"""What a worker in another process says of a task: a receipt, or the error that ends the run.

In: a stage and its tasks, one after another. Out: answers, which travel as plain dicts. An executor that runs
elsewhere gets no exceptions from there: what must end the run has to travel as a value.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline import errors
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What became of a task: either its receipt or the error that must end the run, never both."""

    receipt: Receipt | None = None
    fatal: errors.FramemillError | None = None

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
        if self.fatal is None:
            assert self.receipt is not None
            return {"receipt": asdict(self.receipt)}
        kind = next(kind for kind in type(self.fatal).__mro__ if kind in NAMES)
        texts = {"what": self.fatal.what, "expected": self.fatal.expected, "fix": self.fatal.fix}
        return {"fatal": {"kind": NAMES[kind], **texts}}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Answer":
        if "receipt" in row:
            return cls(receipt=Receipt(**row["receipt"]))
        texts = dict(row["fatal"])
        what, kind = texts.pop("what"), ERRORS[texts.pop("kind")]
        return cls(fatal=kind(what, **texts))


class AnsweringWorker:
    """A Worker in a process of an executor: set up at its first task, never raises what must travel."""

    def __init__(self, stage: Stage, question: Question) -> None:
        self._stage, self._question = stage, question
        self._worker: Worker | None = None

    def run(self, task: Task, *, commit: bool = True) -> Answer:
        try:
            self._worker = self._worker or Worker(self._stage, self._question.root, self._question)
            return Answer(receipt=self._worker.run(task, commit=commit))
        except errors.FramemillError as error:
            return Answer(fatal=error)
