"""Tasks that are made when they are looked at.

In: their keys, and what makes a task's rows by its number. Out: a sequence of tasks that holds keys alone, so
that the plan of a large corpus costs what its keys cost. The same number gives an equal task each time.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import overload

import pyarrow as pa

from pipeline.engine.stage import Task


class TaskList(Sequence[Task]):
    """`keys` by task number; `inputs` of a number are its rows. `numbers` are those in the list, in order
    (all when None)."""

    def __init__(
        self, keys: Sequence[str], inputs: Callable[[int], pa.Table], numbers: Sequence[int] | None = None
    ) -> None:
        self._keys, self._inputs = keys, inputs
        self._numbers = range(len(keys)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> "TaskList": ...
    def __getitem__(self, at: int | slice) -> "Task | TaskList":
        if isinstance(at, slice):
            return TaskList(self._keys, self._inputs, self._numbers[at])
        number = self._numbers[at]
        return Task(key=self._keys[number], inputs=self._inputs(number))

    def keys(self) -> Iterator[str]:
        """The keys of the tasks, without their rows."""
        return (self._keys[number] for number in self._numbers)

    def without(self, done: Collection[str]) -> "TaskList":
        """The tasks but those of these keys."""
        left = [number for number in self._numbers if self._keys[number] not in done]
        return TaskList(self._keys, self._inputs, left)
