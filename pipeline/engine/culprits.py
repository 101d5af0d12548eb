"""What a worker that dies costs: at most the rows that killed it.

In: the tasks, a pool that runs them, and a way to run tasks each in a process of its own. Out: receipts.

The task that a worker died on is tried once more in a process of its own. A task that kills that one too is
halved, without committing anything, until the rows are found that kill a process by themselves, twice; then
it runs without them, and they become `failed` rows. A process that dies with no row to work on convicts
nobody: its task stays lost. So does each task of a feed that a worker died on: a later stage does it again,
and finds out. Never: a task whose node was lost; its worker's death says nothing of it
(pipeline/engine/crew.py).
"""

from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Protocol

from pipeline.engine.answers import Answer
from pipeline.engine.runner import WORKER_DIED, Beat, Receipt
from pipeline.engine.stage import Task

Suspect = tuple[Task, frozenset[int]]  # rows of a task, by number, one of which may kill


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a task ended: with an answer; with its worker, which `died` of it (`why`); or with neither, where
    it was given up. `tries` is how often it was begun by then, `node` where it was last."""

    number: int  # of the task, as it was handed over
    answer: Answer | None = None
    died: bool = False
    tries: int = 1
    node: str = ""
    why: str = ""


class Alone(Protocol):
    """Runs each task in a process of its own; says how each ended, in any order."""

    def __call__(self, tasks: Sequence[Task], *, commit: bool = True) -> Generator[Ended | Beat]: ...


def receipts(
    tasks: Sequence[Task], pooled: Callable[[Sequence[Task]], Generator[Ended | Beat]], alone: Alone
) -> Generator[Receipt | Beat]:
    """Receipts as the tasks end, also of those that stay lost. Raises the first fatal error of a worker."""
    unanswered = {task.key: task for task in tasks}  # none of a feed, which has handed out nothing yet
    tries, last = Counter[str](), dict[str, Ended]()

    def answered(todo: Sequence[Task], events: Generator[Ended | Beat]) -> Generator[Receipt | Beat]:
        with closing(events):  # no worker outlives the receipts
            for event in events:
                if isinstance(event, Beat):
                    yield event
                    continue
                key = todo[event.number].key
                tries[key] += event.tries
                last[key] = event
                if event.answer is not None:
                    receipt = event.answer.receipt_or_raise()
                    unanswered.pop(key, None)
                    yield replace(receipt, tries=tries[key])

    def suspects() -> list[Task]:
        return [task for key, task in unanswered.items() if key not in last or last[key].died]

    yield from answered(tasks, pooled(tasks))
    if again := suspects():
        yield from answered(again, alone(again))
    if killers := suspects():
        spared = yield from _spared(killers, alone)
        yield from answered(spared, alone(spared))
    for key in unanswered:
        end = last[key] if key in last else Ended(number=0)
        yield Receipt(key=key, error=end.why or WORKER_DIED, node=end.node, tries=max(1, tries[key]))


def _spared(tasks: Sequence[Task], alone: Alone) -> Generator[Beat, None, list[Task]]:
    """The tasks in which culprits were found, their rows poisoned."""
    convicted: dict[str, frozenset[int]] = {}
    for task, rows in (yield from _culprits(tasks, alone)):
        convicted[task.key] = convicted.get(task.key, frozenset()) | rows
    return [replace(task, poisoned=convicted[task.key]) for task in tasks if task.key in convicted]


def _culprits(tasks: Sequence[Task], alone: Alone) -> Generator[Beat, None, list[Suspect]]:
    """(task, one row of it) for every row that kills its process twice with no other row in work."""

    def deadly(suspects: list[Suspect]) -> Generator[Beat, None, list[Suspect]]:
        probes = [replace(t, poisoned=frozenset(range(t.inputs.num_rows)) - rows) for t, rows in suspects]
        died: list[int] = []
        if not probes:
            return []
        with closing(alone(probes, commit=False)) as events:
            for event in events:
                if isinstance(event, Beat):
                    yield event
                elif event.died:
                    died.append(event.number)
        return [suspects[number] for number in sorted(died)]

    # Where the first task kills with no row in work, it is the stage that dies, and every death is in doubt.
    # Where it does not, another task still may: what all its rows have in common is no row's fault.
    if (yield from deadly([(tasks[0], frozenset())])):
        return []
    guiltless = {task.key for task, _ in (yield from deadly([(task, frozenset()) for task in tasks[1:]]))}
    suspects = [(t, frozenset(range(t.inputs.num_rows))) for t in tasks if t.key not in guiltless]
    while any(len(rows) > 1 for _, rows in suspects):
        suspects = yield from deadly([(task, half) for task, rows in suspects for half in _halves(rows)])
    return (yield from deadly(suspects))


def _halves(rows: frozenset[int]) -> list[frozenset[int]]:
    ordered, middle = sorted(rows), (len(rows) + 1) // 2
    return [frozenset(half) for half in (ordered[:middle], ordered[middle:]) if half]
