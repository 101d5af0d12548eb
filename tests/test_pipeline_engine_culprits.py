"""Answers arrive as they were sent; culprits are found without Ray, a pool or a death."""

from collections.abc import Generator

import pyarrow as pa

from pipeline import errors
from pipeline.engine.answers import ERRORS, Answer
from pipeline.engine.culprits import Ended, receipts
from pipeline.engine.runner import WORKER_DIED, Receipt
from pipeline.engine.stage import Task
from pipeline.engine.tasks import plan_tasks
from pipeline.errors import ModelError


def test_every_kind_of_error_arrives_as_itself() -> None:
    kinds = {kind for kind in vars(errors).values() if isinstance(kind, type)}
    assert set(ERRORS.values()) == kinds
    for kind in kinds:
        sent = kind("what", expected="this", fix="that")
        arrived = Answer.from_dict(Answer(fatal=sent).to_dict()).fatal
        assert (type(arrived), str(arrived)) == (kind, "what; expected this; fix: that")


def test_an_error_of_a_kind_of_its_own_arrives_as_what_it_is_a_kind_of() -> None:
    class Odd(ModelError):
        pass

    assert type(Answer.from_dict(Answer(fatal=Odd("odd")).to_dict()).fatal) is ModelError


def test_a_receipt_arrives_as_it_was() -> None:
    receipt = Receipt(key="k", seconds=1.5, counts={"ok": 2}, error="none")
    assert Answer.from_dict(Answer(receipt=receipt).to_dict()) == Answer(receipt=receipt)


def test_culprits_are_found_in_few_processes() -> None:
    """One culprit of 64 rows: the stage is asked once, a halving costs two processes, the last try one."""
    processes: list[int] = []

    def alone(tasks: list[Task], *, commit: bool = True) -> Generator[Ended]:
        for number, task in enumerate(tasks):
            processes.append(number)
            died = 37 not in task.poisoned and task.inputs.num_rows > 37
            yield Ended(number=number, answer=None if died else _receipt(task), died=died)

    (task,) = plan_tasks(pa.table({"word": list(map(str, range(64)))}), "word", set(), "f" * 16, 64)
    answered = list(receipts([task], lambda tasks: (ended for ended in ()), alone))
    assert [receipt.counts for receipt in answered] == [{"failed": 1}]
    assert len(processes) == 1 + 1 + 2 * 6 + 1 + 1


def test_a_task_that_dies_with_no_row_in_work_convicts_nobody() -> None:
    """Also when the first suspect's death was its row's fault: each is asked."""
    guilty, sick = plan_tasks(pa.table({"word": list("abcd")}), "word", set(), "f" * 16, 2)

    def alone(tasks: list[Task], *, commit: bool = True) -> Generator[Ended]:
        for number, task in enumerate(tasks):
            recovered = commit and task.poisoned  # rows that were convicted would be lost for good
            died = 0 not in task.poisoned if task.key == guilty.key else not recovered
            yield Ended(number=number, answer=None if died else _receipt(task), died=died)

    answered = list(receipts([guilty, sick], lambda tasks: (ended for ended in ()), alone))
    assert [(receipt.key, receipt.counts, receipt.error) for receipt in answered] == [
        (guilty.key, {"failed": 1}, ""),
        (sick.key, {}, WORKER_DIED),
    ]


def _receipt(task: Task) -> Answer:
    return Answer(receipt=Receipt(key=task.key, counts={"failed": len(task.poisoned)}))
