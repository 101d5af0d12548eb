"""The stage contract: the unit of work, of resume and of loss; and the only catch-alls, which tell the three
kinds of fault apart (pipeline/errors.py).

In: a Task (rows of a table). Out: a TaskResult (named files, the last of which is the done-marker).
A stage is a plain picklable class: config in, nothing heavy until `setup`. It never writes to the
corpus itself; the runner commits what it returns.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import pyarrow as pa

from pipeline.config import StageResources
from pipeline.errors import ConfigError, FramemillError, MediaError, StorageError, is_environment
from pipeline.storage import Buffer, Stream

T = TypeVar("T")
UNSET = StageResources(deadline_s=0.0)  # where no config is at hand


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one worker of a stage needs, and all that it may use; how many workers there may be; how long a
    task may take. A GPU may be shared in equal fractions. `section` of the config's resources changes it."""

    cpus: float = 1.0
    gpus: float = 0.0
    memory_gb: float = 2.0
    min_workers: int = 0  # asked of a cluster from the start, also where they do not fit yet
    max_workers: int = 0  # 0: as many as there is room for
    deadline_s: float = 0.0  # 0: none
    section: str = ""

    def __post_init__(self) -> None:
        if not (self.cpus > 0 and self.memory_gb > 0 and self.gpus >= 0):
            raise ConfigError(f"{self}", expected="CPUs and memory above 0, GPUs from 0")
        if self.gpus > 1 and self.gpus != int(self.gpus):
            raise ConfigError(f"{self.gpus} GPUs", expected="a fraction of one, or whole ones")

    def set_to(self, section: str, settings: StageResources) -> "Resources":
        """These, but for what a section of the config sets."""
        given = {name: getattr(settings, name) for name in ("cpus", "gpus", "memory_gb")}
        return replace(
            self,
            **{name: value for name, value in given.items() if value is not None},
            min_workers=settings.workers or settings.min_workers,
            max_workers=settings.workers or settings.max_workers,
            deadline_s=settings.deadline_s,
            section=section,
        )

    def fix(self, name: str, value: str) -> str:
        """How a user changes one of these."""
        return f"--set resources.{self.section or 'STAGE'}.{name}={value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """`key` is the content key of the part it makes; `inputs` are the rows it works on.

    `poisoned` are the numbers of the rows that killed their worker: a stage leaves them alone and gives
    them `failed` rows with the reason KILLED.
    """

    key: str
    inputs: pa.Table
    poisoned: frozenset[int] = frozenset()

    def killers(self, id_column: str) -> set[str]:
        """The ids of the poisoned rows."""
        ids = self.inputs[id_column]
        return {ids[number].as_py() for number in self.poisoned}

    def __reduce__(self) -> tuple[Callable[..., "Task"], tuple[str, bytes, frozenset[int]]]:
        """Its own rows travel: a pickled slice of a table would take the whole table along."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.inputs.schema) as stream:
            stream.write_table(self.inputs)
        return _unpacked, (self.key, sink.getvalue().to_pybytes(), self.poisoned)


def _unpacked(key: str, inputs: bytes, poisoned: frozenset[int]) -> Task:
    with pa.ipc.open_stream(inputs) as stream:
        return Task(key=key, inputs=stream.read_all(), poisoned=poisoned)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One file to commit, relative to the corpus root."""

    path: str
    data: Buffer | Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """Files in commit order, the done-marker last, and counts for the progress line. For receipts alone:
    `amounts` of what was done (footage_s, frames, tokens), and the failed items by class of reason."""

    outputs: tuple[Output, ...]
    counts: dict[str, int] = field(default_factory=dict)
    amounts: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)


class Stage(Protocol):
    """What an executor runs: `setup` once per worker, then `process` per task."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int:
        """Raised when the output changes; part of every part key."""

    @property
    def resources(self) -> Resources: ...
    def setup(self) -> None: ...
    def process(self, task: Task) -> TaskResult: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why one item failed: the reason of its `failed` row."""

    reason: str


KILLED = Failure(reason="killed its worker")


def guard(work: Callable[[], T]) -> T | Failure:
    """Runs the work of one item; an exception costs that item only. What says nothing of the item passes
    through: out of memory, a fault of the environment (as a StorageError), a wrong model or config."""
    try:
        return work()
    except MediaError as error:
        return Failure(reason=str(error))
    except (MemoryError, FramemillError):
        raise
    except OSError as error:
        if is_environment(error):
            raise StorageError(f"{type(error).__name__}: {error}", fix="run the command again") from error
        return Failure(reason=f"{type(error).__name__}: {error}")
    except Exception as error:  # one poisoned item must not stop the others
        return Failure(reason=f"{type(error).__name__}: {error}")


def set_up(stage: Stage) -> None:
    """Sets a stage up for a worker. What goes wrong there would lose every task alike, so it ends the run."""
    try:
        stage.setup()
    except FramemillError:
        raise
    except Exception as error:
        raise FramemillError(
            f"the stage {stage.name} cannot be set up: {type(error).__name__}: {error}"
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Why a task is lost, and whether the fault is the environment's."""

    reason: str
    environment: bool = False


def attempt(work: Callable[[], T]) -> T | Loss:
    """Runs a whole task: its result, or why it is lost. A wrong model, config or format would lose every task
    alike, so it ends the run instead."""
    try:
        return work()
    except StorageError as error:
        return Loss(reason=str(error), environment=True)
    except (MediaError, MemoryError) as error:
        return Loss(reason=str(error) or "out of memory")
    except FramemillError:
        raise
    except Exception as error:  # a bug on one task's data must not stop the others
        return Loss(
            reason=f"{type(error).__name__}: {error}",
            environment=isinstance(error, OSError) and is_environment(error),
        )
