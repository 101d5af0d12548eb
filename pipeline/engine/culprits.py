"""What a worker that dies costs: at most the rows that killed it.

In: the tasks, a pool that runs them, and a way to run tasks each in a process of its own. Out: receipts.

A worker that dies takes with it the task it was on and those queued on it. Each of these is tried once
more in a process of its own. A task that kills that one too is halved, without committing anything, until
the rows are found that kill a process by themselves, twice; then it runs without them, and they become
`failed` rows. A process that dies with no row to work on convicts nobody: its tasks stay lost.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.engine.answers import Answer
from pipeline.engine.runner import Receipt
from pipeline.engine.stage import Task

Suspect = tuple[Task, frozenset[int]]  # rows of a task, by number, one of which may kill


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the process of one task ended: with an answer, dead, or (on a cluster) lost for other reasons."""

    number: int  # of the task, as it was handed over
    answer: Answer | None = None
    died: bool = False


class Alone(Protocol):
    """Runs each task in a process of its own; says how each ended, in any order."""

    def __call__(self, tasks: Sequence[Task], *, commit: bool = True) -> Iterator[Ended]: ...


def receipts(
    tasks: Sequence[Task], pooled: Callable[[Sequence[Task]], Iterator[Answer]], alone: Alone
) -> Generator[Receipt]:
    """Receipts as the tasks end; none for a task that stays lost. `pooled` gives no answer for the tasks that
    a dying worker took with it. Raises the first fatal error of a worker."""
    unanswered = {task.key: task for task in tasks}

    def again(tasks: Sequence[Task]) -> Iterator[Answer]:
        return (ended.answer for ended in alone(tasks) if ended.answer)

    def without_culprits(tasks: Sequence[Task]) -> Iterator[Answer]:
        return again(_spared(tasks, alone))

    for answers in (pooled, again, without_culprits):
        for answer in answers(list(unanswered.values())):
            receipt = answer.receipt_or_raise()
            del unanswered[receipt.key]
            yield receipt


def _spared(tasks: Sequence[Task], alone: Alone) -> list[Task]:
    """The tasks in which culprits were found, their rows poisoned."""
    convicted: dict[str, frozenset[int]] = {}
    for task, rows in _culprits(tasks, alone):
        convicted[task.key] = convicted.get(task.key, frozenset()) | rows
    return [replace(task, poisoned=convicted[task.key]) for task in tasks if task.key in convicted]


def _culprits(tasks: Sequence[Task], alone: Alone) -> list[Suspect]:
    """(task, one row of it) for every row that kills its process twice with no other row in work."""

    def deadly(suspects: list[Suspect]) -> list[Suspect]:
        probes = [replace(t, poisoned=frozenset(range(t.inputs.num_rows)) - rows) for t, rows in suspects]
        ended = alone(probes, commit=False) if probes else ()
        return [suspects[number] for number in sorted(end.number for end in ended if end.died)]

    # Where the first task kills with no row in work, it is the stage that dies, and every death is in doubt.
    # Where it does not, another task still may: what all its rows have in common is no row's fault.
    if not tasks or deadly([(tasks[0], frozenset())]):
        return []
    guiltless = {task.key for task, _ in deadly([(task, frozenset()) for task in tasks[1:]])}
    suspects = [(t, frozenset(range(t.inputs.num_rows))) for t in tasks if t.key not in guiltless]
    while any(len(rows) > 1 for _, rows in suspects):
        suspects = deadly([(task, half) for task, rows in suspects for half in _halves(rows)])
    return deadly(suspects)


def _halves(rows: frozenset[int]) -> list[frozenset[int]]:
    ordered, middle = sorted(rows), (len(rows) + 1) // 2
    return [frozenset(half) for half in (ordered[:middle], ordered[middle:]) if half]
