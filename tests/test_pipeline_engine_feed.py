"""Tasks that come while a stage runs: when they are handed out, who works on them, what the end of the feed
leaves."""

import os
import signal
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import Beat, Executor, Receipt, run
from pipeline.engine.stage import Output, Resources, Stage, Task, TaskResult
from pipeline.engine.task_list import Feed
from pipeline.storage import Storage


def task_of(word: str, slow: bool = False, after: Path | None = None) -> Task:
    """`after`: it ends when this file is there."""
    return Task(key=word, inputs=pa.table({"slow": [slow], "after": [str(after or "/")]}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shout:
    """Each task leaves a file that says who made it; one of them is deadly."""

    name: str = "shout"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=0.5))

    def setup(self) -> None: ...

    def process(self, task: Task) -> TaskResult:
        if task.key == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if task.inputs["slow"][0].as_py():
            time.sleep(0.5)
        until_s = time.monotonic() + 60.0
        while not Path(task.inputs["after"][0].as_py()).exists():
            assert time.monotonic() < until_s
            time.sleep(0.05)
        output = Output(path=f"{task.key}.txt", data=str(os.getpid()).encode())
        return TaskResult(outputs=(output,), counts={"ok": 1})


class Watched(PoolExecutor):
    """Calls `heed` with each receipt."""

    def __init__(self, workers: int, heed: Callable[[Receipt], None]) -> None:
        super().__init__(workers)
        self._heed = heed

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt | Beat]:
        for receipt in super().execute(stage, tasks, root):
            if isinstance(receipt, Receipt):
                self._heed(receipt)
            yield receipt


def test_tasks_are_handed_out_from_when_enough_wait_until_none_does() -> None:
    feed = Feed(task_of, least=3)
    feed.add("ab")
    assert (feed.backlog, feed.hand_out(), len(feed)) == (0, None, 0)
    feed.add("c")
    assert feed.backlog == 3
    assert [feed.hand_out() for _ in range(4)] == [0, 1, 2, None]
    feed.add("d")
    assert feed.backlog == 0
    assert [task.key for task in feed] == ["a", "b", "c"]


def test_a_feed_that_is_closed_forgets_what_nobody_has_begun() -> None:
    feed = Feed(task_of)
    assert feed
    feed.add("ab")
    feed.hand_out()
    feed.close()
    assert (feed.backlog, feed.hand_out(), feed.open) == (0, None, False)
    assert [task.key for task in feed] == ["a"]
    never = Feed(task_of)
    never.close()
    assert not never


def test_each_task_of_a_feed_is_done_whenever_it_comes(tmp_path: Path) -> None:
    feed = Feed(task_of)
    came: list[str] = []

    def heed(receipt: Receipt) -> None:
        came.append(receipt.key)
        if len(came) == 2:
            threading.Timer(0.6, feed.add, ["cd"]).start()  # when nobody has had anything to do for a while
        if len(came) == 4:
            feed.close()

    feed.add("ab")
    summary = run(Shout(), feed, Watched(2, heed), str(tmp_path))
    assert (summary.tasks, summary.lost, summary.counts) == (4, (), {"ok": 4})
    assert {p.stem for p in tmp_path.iterdir()} == set("abcd")


def test_a_stage_that_waits_for_its_feed_leaves_all_workers_to_others(tmp_path: Path) -> None:
    executor, feed = PoolExecutor(2), Feed(task_of)
    thread = threading.Thread(target=run, args=(Shout(), feed, executor, str(tmp_path / "fed")))
    thread.start()
    run(Shout(), [task_of(key, slow=True) for key in "01234567"], executor, str(tmp_path / "others"))
    feed.close()
    thread.join()
    assert len({p.read_text() for p in (tmp_path / "others").iterdir()}) == 2
    assert not list((tmp_path / "fed").iterdir())


def test_two_stages_share_the_workers_while_tasks_come(tmp_path: Path) -> None:
    """Neither waits for the other's end: here one would wait for ever."""
    executor, feed = PoolExecutor(2), Feed(task_of)
    thread = threading.Thread(target=run, args=(Shout(), feed, executor, str(tmp_path / "fed")))
    thread.start()
    feed.add("abc")
    last = task_of("last", after=tmp_path / "fed" / "c.txt")
    summary = run(Shout(), [task_of("first"), last], executor, str(tmp_path / "others"))
    feed.close()
    thread.join()
    assert summary.lost == ()


def test_what_kills_its_worker_in_a_feed_is_lost_and_convicts_no_row(tmp_path: Path) -> None:
    feed = Feed(task_of)

    def heed(receipt: Receipt) -> None:
        if receipt.key == "b":
            feed.close()

    feed.add(["a", "die", "b"])
    summary = run(Shout(), feed, Watched(1, heed), str(tmp_path))
    assert [receipt.key for receipt in summary.lost] == ["die"]
    assert {p.stem for p in tmp_path.iterdir()} == {"a", "b"}


def test_a_run_that_is_stopped_does_not_wait_for_more(tmp_path: Path) -> None:
    executor: Executor = PoolExecutor(1)
    feed = Feed(task_of)
    feed.add("a")
    threading.Timer(1.0, executor.stop).start()
    with pytest.raises(KeyboardInterrupt):
        run(Shout(), feed, executor, str(tmp_path))


def test_a_part_that_nobody_sees_is_lost_in_a_feed_too(tmp_path: Path) -> None:
    feed = Feed(task_of)

    def heed(receipt: Receipt) -> None:
        Storage(str(tmp_path)).delete(receipt.part)
        feed.close()

    feed.add("a")
    (lost,) = run(Shout(), feed, Watched(1, heed), str(tmp_path)).lost
    assert "its part is not in" in lost.error
