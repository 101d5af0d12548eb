"""The loop that hands out tasks: lost nodes, deadlines, growth, room for others. At a place where time is a
list of what happens; no process is started."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pytest

from pipeline.engine.answers import Answer
from pipeline.engine.crew import FALSE_STARTS, LOSSES, Crew, Event, What
from pipeline.engine.culprits import Ended
from pipeline.engine.runner import Beat, Receipt
from pipeline.engine.shares import amounts, lack, refuse_too_large, shares
from pipeline.engine.stage import Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import FramemillError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    name: str = "idle"
    version: int = 1
    resources: Resources = field(default_factory=Resources)

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        return TaskResult(outputs=())


class Script:
    """A place whose workers end each task as its word says: `lost` (each time), `lost once`, `die`, `hang`,
    `slow`. The room at each look is the next of `rooms`, the last one for ever."""

    def __init__(self, rooms: Iterable[int] = (2,), queues: bool = False, comes: bool = True) -> None:
        self.rooms, self.queues, self.comes = deque(rooms), queues, comes
        self.tasks: dict[int, deque[Task]] = {}
        self.came: set[int] = set()
        self.begun: list[tuple[int, str]] = []
        self.most = 0
        self.dismissed: list[int] = []

    def room(self, have: int, present: int, wanted: int) -> int:
        return self.rooms.popleft() if len(self.rooms) > 1 else self.rooms[0]

    def hire(self) -> int:
        number = len(self.tasks) + len(self.dismissed)
        self.tasks[number] = deque()
        self.most = max(self.most, len(self.tasks))
        return number

    def send(self, worker: int, task: Task, commit: bool) -> None:
        self.tasks[worker].append(task)
        self.begun.append((worker, word_of(task)))

    def events(self, timeout_s: float) -> list[Event[int]]:
        return [event for worker in list(self.tasks) if (event := self._next(worker))]

    def _next(self, worker: int) -> Event[int] | None:
        if worker not in self.came:
            self.came |= {worker}
            what = What.READY if self.comes else What.DIED
            return Event(worker=worker, what=what, text=f"node {worker}" if self.comes else "no module")
        if not self.tasks[worker] or (word := word_of(self.tasks[worker][0])) == "hang":
            return None
        task = self.tasks[worker][0]
        lost_before = [word for _, word in self.begun].count("lost once") > 1
        if word == "die":
            return Event(worker=worker, what=What.DIED, text="killed")
        if word == "lost" or (word == "lost once" and not lost_before):
            return Event(worker=worker, what=What.LOST, text="unreachable")
        self.tasks[worker].popleft()
        receipt = Receipt(key=task.key, seconds=9.0 if word == "slow" else 0.01)
        return Event(worker=worker, what=What.ANSWERED, answer=Answer(receipt=receipt))

    def dismiss(self, worker: int) -> None:
        del self.tasks[worker]
        self.dismissed.append(worker)

    def lack(self) -> str:
        return "1 CPU"


def word_of(task: Task) -> str:
    return str(task.inputs["word"][0].as_py())


def ends_of(
    place: Script, *words: str, keep: bool = True, limit: int = 0, **given: float
) -> dict[str, list[Ended]]:
    """How the tasks of these words ended."""
    table = pa.table({"word": list(words), "id": [str(number) for number in range(len(words))]})
    tasks = plan_tasks(table, "id", set(), "f" * 16, 1)
    stage = Idle(resources=replace(Resources(), **given))
    ends: dict[str, list[Ended]] = {}
    for event in Crew(place, stage, tasks, keep=keep, limit=limit).run():
        assert isinstance(event, Ended)
        ends.setdefault(words[event.number], []).append(event)
    assert not place.tasks, "everybody is dismissed at the end"
    return ends


def test_a_lost_node_costs_its_tasks_another_try_with_the_others() -> None:
    place = Script(queues=True)
    ends = ends_of(place, "a", "lost once", "b", "c", "d", "e", "f")
    assert sum(len(of_word) for of_word in ends.values()) == 7
    assert all(end.answer and not end.died for of_word in ends.values() for end in of_word)
    assert [end.tries for end in ends["lost once"]] == [2]
    assert {end.tries for word in "abcdef" for end in ends[word]} == {1}
    assert len(place.dismissed) == 3


def test_a_task_that_loses_one_node_after_another_is_given_up_and_named() -> None:
    ends = ends_of(Script(), "a", "lost", "b")
    (end,) = ends["lost"]
    assert (end.answer, end.died, end.tries) == (None, False, LOSSES)
    assert end.why == f"{LOSSES} nodes were lost under it, the last with: unreachable"
    assert ends["a"][0].answer
    assert ends["b"][0].answer


def test_only_the_task_that_a_worker_was_on_is_suspected_of_its_death() -> None:
    place = Script(rooms=(1,), queues=True)
    ends = ends_of(place, "quick", "die", "b", "c", "d")
    assert [(end.died, end.why) for end in ends.pop("die")] == [(True, "killed")]
    assert all(end.answer and end.tries == 1 for of_word in ends.values() for end in of_word)
    at_hand = [word for worker, word in place.begun if worker == 0]
    assert at_hand == ["quick", "die", "b"]  # b was at hand, and went to the next worker
    assert (1, "b") in place.begun


def test_a_task_over_its_deadline_counts_as_one_that_its_worker_died_of() -> None:
    ends = ends_of(Script(), "a", "hang", "b", deadline_s=0.01)
    (end,) = ends["hang"]
    assert end.died
    assert end.why == "it took longer than 0.01 s (resources.idle.deadline_s)"
    assert ends["b"][0].answer


@pytest.mark.parametrize("queues", [False, True])
def test_a_crew_follows_the_room_and_gives_it_back_between_tasks(queues: bool) -> None:
    place = Script(rooms=(1, 1, 1, 4, 4, 4, 1), queues=queues)
    words = [f"w{number}" for number in range(60)]
    ends = ends_of(place, *words)
    assert all(end.answer for of_word in ends.values() for end in of_word)
    assert place.most == 4
    assert len({worker for worker, _ in place.begun}) == 4
    assert len({worker for worker, _ in place.begun[-20:]}) == 1  # also of those with a task at hand


def test_no_more_workers_than_tasks_or_than_the_config_says() -> None:
    place = Script(rooms=(9,))
    ends_of(place, "a", "b")
    assert place.most == 2
    place = Script(rooms=(9,))
    ends_of(place, *"abcdefgh", max_workers=3)
    assert place.most == 3


def test_alone_each_task_has_a_worker_of_its_own() -> None:
    place = Script(rooms=(9,))
    ends_of(place, "a", "die", "c", keep=False, limit=1)
    assert (place.most, len({worker for worker, _ in place.begun})) == (1, 3)


def test_a_second_task_is_at_hand_only_where_tasks_are_quick_and_plenty() -> None:
    place = Script(rooms=(1,), queues=True)
    ends_of(place, "slow", "slow", "slow")
    assert len(place.begun) == 3
    held = [word for word in place.begun if word]
    assert held == [(0, "slow")] * 3


def test_workers_that_never_come_end_the_run_with_the_reason() -> None:
    with pytest.raises(FramemillError, match="no worker of the stage idle can start: no module"):
        ends_of(Script(rooms=(FALSE_STARTS,), comes=False), *"abcdefgh")


def test_a_beat_says_what_runs_and_what_is_waited_for() -> None:
    beat = Beat(running=3, longest_s=120.4, node="a", waiting_for="1 CPU (the cluster has 0)")
    assert beat.facts() == {
        "running": "3 tasks, the longest for 120 s on a",
        "waiting for": "1 CPU (the cluster has 0)",
    }
    assert Beat(waiting_for="1 GPU (the cluster has 0)").facts() == {
        "waiting for": "1 GPU (the cluster has 0)"
    }


# -- who may have how much ------------------------------------------------------------------------------

NODE = {"CPU": 4.0, "GPU": 0.0, "memory": 16.0}


def test_stages_share_in_turn_and_what_one_cannot_use_the_other_has() -> None:
    cpu, gpu = amounts(Resources(memory_gb=1)), amounts(Resources(gpus=0.25, memory_gb=1))
    assert shares([(cpu, 99), (cpu, 99)], [NODE]) == [2, 2]
    assert shares([(cpu, 1), (cpu, 99)], [NODE]) == [1, 3]
    assert shares([(cpu, 0), (cpu, 99)], [NODE]) == [0, 4]
    assert shares([(gpu, 99), (cpu, 99)], [NODE, {**NODE, "GPU": 1.0}]) == [4, 4]
    assert shares([(cpu, 99), (gpu, 2)], [{**NODE, "GPU": 1.0}]) == [2, 2]
    assert shares([(amounts(Resources(gpus=0.4)), 99)], [{"CPU": 9.0, "GPU": 2.0, "memory": 99.0}]) == [4]


def test_a_worker_fits_on_one_node_not_on_the_sum_of_all() -> None:
    large = amounts(Resources(cpus=3, memory_gb=1))
    assert shares([(large, 99)], [NODE, NODE, NODE]) == [3]
    assert shares([(large, 99)], [{"CPU": 2.0, "memory": 9.0}] * 5) == [0]
    with pytest.raises(UsageError, match=r"3 CPUs; .*any node has: 2; fix: --set resources\.encode\.cpus=2"):
        refuse_too_large(
            Resources(cpus=3, section="encode"), [{"CPU": 2.0, "memory": 9}], "any node", ["CPU"]
        )
    refuse_too_large(Resources(cpus=3), [], "any node", ["CPU"])  # from zero: nodes come


def test_what_is_waited_for_is_what_there_is_too_little_of() -> None:
    need = amounts(Resources(gpus=1, memory_gb=1))
    assert lack(need, []) == "1 CPU (the cluster has 0)"
    assert lack(need, [NODE]) == "1 GPU (the cluster has 0)"
    assert lack(need, [{**NODE, "GPU": 1.0}]) == "1 GPU (the cluster has 1, in use)"
    assert lack(amounts(Resources(memory_gb=99)), [NODE]) == "99 GB of memory (the cluster has 16)"
