"""Tasks that are made when they are looked at.

In: their keys, or what else they are made of, and what makes a task of it. Out: sequences of tasks that hold
no rows, so that the plan of a large corpus costs what its keys cost: all of them at once, or as they come
while others run. The same number gives an equal task each time.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from threading import Lock
from typing import Generic, TypeVar, overload

import pyarrow as pa

from pipeline.engine.stage import Task

T = TypeVar("T")


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


class Feed(Sequence[Task], Generic[T]):
    """Tasks that come while a stage runs: the sequence is of those that were handed out so far. `make` makes
    a task of what is added. One thread adds and closes, the stage's hands out.

    Nothing is handed out until `least` tasks wait, and then all until none does: who starts a worker for
    them, which others could use meanwhile, gives it enough to do."""

    def __init__(self, make: Callable[[T], Task], least: int = 1) -> None:
        self.open = True
        self._make, self._least = make, least
        self._waiting, self._handed_out = deque[T](), list[T]()
        self._flows, self._lock = False, Lock()

    def add(self, items: Iterable[T]) -> None:
        """What further tasks are made of."""
        with self._lock:
            self._waiting.extend(items)

    def close(self) -> None:
        """No task comes any more, and those that were not handed out are dropped."""
        with self._lock:
            self.open = False
            self._waiting.clear()

    @property
    def backlog(self) -> int:
        """How many tasks can be handed out now."""
        with self._lock:
            waiting = len(self._waiting)
            self._flows = waiting > 0 and (self._flows or waiting >= self._least)
            return waiting if self._flows else 0

    def hand_out(self) -> int | None:
        """The number of one more task; None where there is none now."""
        if not self.backlog:
            return None
        with self._lock:
            if not self._waiting:  # closed meanwhile
                return None
            self._handed_out.append(self._waiting.popleft())
            return len(self._handed_out) - 1

    def __bool__(self) -> bool:
        """Whether there is a task, or may be one some time."""
        return self.open or bool(self._handed_out)

    def __len__(self) -> int:
        return len(self._handed_out)

    @overload
    def __getitem__(self, at: int) -> Task: ...
    @overload
    def __getitem__(self, at: slice) -> list[Task]: ...
    def __getitem__(self, at: int | slice) -> Task | list[Task]:
        if isinstance(at, slice):
            return [self._make(item) for item in self._handed_out[at]]
        return self._make(self._handed_out[at])
