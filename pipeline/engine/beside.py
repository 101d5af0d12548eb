"""A stage that runs on a thread of its own while this one runs another.

In: an executor that both use, and the work. Out: the summary of the work, when both have ended. Never: a
stage that outlives this thread's.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager

from pipeline.engine.runner import Executor, Receipt, RunSummary, StageStopped

# What is entered while a stage runs; what it gives, if anything, is called with each receipt of that stage.
Beside = Callable[[], AbstractContextManager[Callable[[Receipt], None] | None]]


@contextmanager
def beside(executor: Executor, work: Callable[[], RunSummary], summaries: list[RunSummary]) -> Iterator[None]:
    """Runs `work` while the block does, and adds its summary. An error or a signal in the block, which reach
    this thread only, stops the executor, and with it the work. A stage that the environment stopped is not
    the block's error: its summary names what is open."""
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(work)
        try:
            yield
        except BaseException:
            executor.stop()
            raise
        try:
            summaries.append(future.result())
        except StageStopped as stopped:
            summaries.append(stopped.summary)
