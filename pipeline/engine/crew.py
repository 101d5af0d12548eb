"""The loop that hands tasks to workers, wherever these are, and says how each task ended.

In: tasks, and a place that has workers (pipeline/engine/pool.py: processes of this machine; ray_executor.py:
actors of a cluster). Out: for each task how it ended, and beats while nothing ends. The crew follows the
place's room and the backlog: it grows when there is more room, gives room back to another stage between two
tasks, and ends with the last task; where tasks come while it works, with the end of their feed.

A worker that dies with its node alive is the fault of the task that it was on; one whose node is lost says
nothing of it: its tasks go back to the others, until the same one has lost LOSSES nodes. A task over its
deadline counts as one that its worker died of. Never: a decision on rows (pipeline/engine/culprits.py).
"""

import logging
import sys
import time
from collections import Counter, deque
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Generic, Protocol, TypeVar

from pipeline.engine.answers import Answer
from pipeline.engine.culprits import Ended
from pipeline.engine.runner import Beat
from pipeline.engine.stage import Stage, Task
from pipeline.engine.task_list import Feed
from pipeline.errors import FramemillError

LOG = logging.getLogger(__name__)
W = TypeVar("W")
TICK_S = 0.25  # how long a place waits at most before the room is looked at again
BEAT_S = 5.0  # between two beats
QUIET_S = 30.0  # without a task that ends, until what runs is said
QUICK_S = 1.0  # a worker of tasks that take less has its next one at hand already
LOSSES = 3  # nodes that a task may lose
FALSE_STARTS = 5  # workers that died before they were there, none of them having come


class What(Enum):
    """What happened to a worker."""

    READY = auto()
    ANSWERED = auto()
    DIED = auto()  # with its node alive
    LOST = auto()  # with its node, or nobody knows why


@dataclass(frozen=True, slots=True, kw_only=True)
class Event(Generic[W]):
    """`text` is the node of a worker that is ready, else why it ended."""

    worker: W
    what: What
    answer: Answer | None = None
    text: str = ""


class Place(Protocol[W]):
    """Where workers of one stage are."""

    queues: bool  # a worker takes a second task while it is on its first

    def room(self, have: int, present: int, wanted: int) -> int:
        """How many workers the stage may have, which has so many, so many of them ready, and would have
        `wanted`. Raises KeyboardInterrupt when all is to end."""

    def hire(self) -> W | None:
        """A worker that will be ready some time; None where there is no room for it now after all."""

    def send(self, worker: W, task: Task, commit: bool) -> None: ...

    def events(self, timeout_s: float) -> list[Event[W]]:
        """What happened, as soon as something did."""

    def dismiss(self, worker: W) -> None:
        """Ends a worker, in whatever state."""

    def lack(self) -> str:
        """What workers that are not there yet wait for."""


@dataclass(slots=True)
class _Seat:
    """A worker's: the numbers of the tasks that it has, the first of which it has been on since `since`."""

    ready: bool = False
    node: str = ""
    tasks: deque[int] = field(default_factory=deque)
    since: float = 0.0


class Crew(Generic[W]):
    """The workers of one stage at one place, for one list of tasks."""

    def __init__(
        self,
        place: Place[W],
        stage: Stage,
        tasks: Sequence[Task],
        *,
        keep: bool = True,
        limit: int = 0,
        commit: bool = True,
    ) -> None:
        """With `keep` a worker goes on to the next task, else each has one of its own; `limit` at once, 0: as
        many as there is room for."""
        self._place, self._tasks, self._keep, self._commit = place, tasks, keep, commit
        self._feed = tasks if isinstance(tasks, Feed) else None
        self._limit = min(limit or sys.maxsize, stage.resources.max_workers or sys.maxsize)
        self._name, self._deadline_s, self._section = (
            stage.name,
            stage.resources.deadline_s,
            stage.resources.section,
        )
        self._waiting = deque(range(len(tasks)))
        self._seats: dict[W, _Seat] = {}
        self._begun, self._losses = Counter[int](), Counter[int]()
        self._running = 0  # tasks with workers
        self._false_starts: int | None = 0  # None: one was ready
        self._usual_s: float | None = None  # what a task takes

    def run(self) -> Generator[Ended | Beat]:
        """How each task ended. Raises FramemillError where no worker can start."""
        ended_at = beat_at = time.monotonic()
        try:
            while self._left() or self._running or (self._feed is not None and self._feed.open):
                self._man()
                for event in self._place.events(TICK_S):
                    for end in self._heed(event):
                        ended_at = time.monotonic()
                        yield end
                for end in self._overdue():
                    yield end
                if time.monotonic() - beat_at >= BEAT_S:
                    beat_at = time.monotonic()
                    if beat := self._beat(quiet_s=beat_at - ended_at):
                        yield beat
        finally:
            for worker in self._seats:
                self._place.dismiss(worker)

    def _man(self) -> None:
        """As many workers as there is room and work for, each with a task."""
        wanted = min(self._limit, self._left() + self._running)
        present = sum(seat.ready for seat in self._seats.values())
        room = min(wanted, self._place.room(len(self._seats), present, wanted))
        for worker in self._spare(len(self._seats) - room):
            self._end(worker)
        while len(self._seats) < room:
            if (hired := self._place.hire()) is None:
                break
            self._seats[hired] = _Seat()
        self._hand_out(1, room)
        quick = self._usual_s is not None and self._usual_s < QUICK_S
        if self._keep and self._place.queues and quick and self._left() > len(self._seats):
            self._hand_out(2, room)

    def _left(self) -> int:
        """How many tasks can be handed out."""
        return len(self._waiting) + (0 if self._feed is None else self._feed.backlog)

    def _next(self) -> int | None:
        """The number of a task that no worker has; None where there is none."""
        if self._waiting:
            return self._waiting.popleft()
        return None if self._feed is None else self._feed.hand_out()

    def _spare(self, count: int) -> list[W]:
        """So many workers, of those that have no task: first those that are not there yet."""
        if count <= 0:
            return []
        idle = [worker for worker, seat in self._seats.items() if not seat.tasks]
        return sorted(idle, key=lambda worker: self._seats[worker].ready)[:count]

    def _hand_out(self, depth: int, room: int) -> None:
        """Up to so many tasks each, to as many workers as there is room for: the others end with what they
        have at hand, and so give their room to another stage."""
        ready = [(worker, seat) for worker, seat in self._seats.items() if seat.ready]
        for worker, seat in ready[:room]:
            if len(seat.tasks) < depth:
                if (number := self._next()) is None:
                    return
                if not seat.tasks:
                    seat.since = time.monotonic()
                seat.tasks.append(number)
                self._running += 1
                self._place.send(worker, self._tasks[number], self._commit)

    def _heed(self, event: Event[W]) -> list[Ended]:
        """The tasks that ended with it."""
        seat = self._seats.get(event.worker)
        if seat is None:  # it was dismissed meanwhile
            return []
        if event.what is What.READY:
            seat.ready, seat.node, self._false_starts = True, event.text, None
            return []
        if event.what is What.ANSWERED:
            assert event.answer is not None
            return [self._answered(event.worker, seat, event.answer)]
        if not seat.ready:
            self._false_start(event)
        return self._bereft(event.worker, died=event.what is What.DIED, why=event.text)

    def _answered(self, worker: W, seat: _Seat, answer: Answer) -> Ended:
        number = seat.tasks.popleft()
        seat.since = time.monotonic()
        self._running -= 1
        self._begun[number] += 1
        for level, logger, text in answer.lines:
            task = self._tasks[number].key
            logging.getLogger(logger).log(level, "%s, task %s, on %s: %s", self._name, task, seat.node, text)
        if answer.receipt is not None:
            last = self._usual_s if self._usual_s is not None else answer.receipt.seconds
            self._usual_s = 0.9 * last + 0.1 * answer.receipt.seconds
        if not self._keep:
            self._end(worker)
        return Ended(number=number, answer=answer, tries=self._begun[number], node=seat.node)

    def _bereft(self, worker: W, *, died: bool, why: str) -> list[Ended]:
        """What becomes of the tasks of a worker that is gone: those that it had not begun go back, the one
        that it was on too where its node was lost."""
        seat = self._end(worker)
        self._running -= len(seat.tasks)
        LOG.warning("%s: a worker on %s is gone: %s", self._name, seat.node or "no node", why)
        if not seat.tasks:
            return []
        number = seat.tasks.popleft()
        self._waiting.extendleft(reversed(seat.tasks))
        self._begun[number] += 1
        self._losses[number] += not died
        if not died and self._losses[number] < LOSSES:
            self._waiting.appendleft(number)
            return []
        tries = self._begun[number]
        LOG.warning("%s: task %s, try %d: %s", self._name, self._tasks[number].key, tries, why)
        why = why if died else f"{LOSSES} nodes were lost under it, the last with: {why}"
        return [Ended(number=number, died=died, tries=tries, node=seat.node, why=why)]

    def _overdue(self) -> list[Ended]:
        """The tasks that are over the deadline, whose workers end."""
        if not self._deadline_s:
            return []
        before = time.monotonic() - self._deadline_s
        late = [worker for worker, seat in self._seats.items() if seat.tasks and seat.since < before]
        key = f"resources.{self._section or self._name}.deadline_s"
        why = f"it took longer than {self._deadline_s:g} s ({key})"
        return [end for worker in late for end in self._bereft(worker, died=True, why=why)]

    def _false_start(self, event: Event[W]) -> None:
        if self._false_starts is None or event.what is What.LOST:
            return
        self._false_starts += 1
        if self._false_starts >= FALSE_STARTS:
            raise FramemillError(
                f"no worker of the stage {self._name} can start: {event.text}",
                expected="this framemill and its weights on every node",
                fix="install it there, or run with --executor local",
            )

    def _end(self, worker: W) -> _Seat:
        self._place.dismiss(worker)
        return self._seats.pop(worker)

    def _beat(self, quiet_s: float) -> Beat | None:
        """What is to be said where nothing ends."""
        if not self._left() and not self._running:  # it waits for its feed
            return None
        busy = [seat for seat in self._seats.values() if seat.tasks]
        lack = "" if any(seat.ready for seat in self._seats.values()) else self._place.lack()
        if not lack and (quiet_s < QUIET_S or not busy):
            return None
        if not busy:
            return Beat(waiting_for=lack)
        longest = min(busy, key=lambda seat: seat.since)
        longest_s = time.monotonic() - longest.since
        return Beat(running=len(busy), longest_s=longest_s, node=longest.node, waiting_for=lack)
