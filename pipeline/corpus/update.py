"""Bringing a stage of a corpus up to date: the one order in which every stage with parts does it.

In: a stage's place and fingerprint, what plans its open tasks, what makes the stage for them. Out: a summary,
and the rows of the stage compacted (pipeline/corpus/folding.py).
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.beside import Beside
from pipeline.engine.runner import Executor, RunSummary, ignored
from pipeline.engine.stage import Stage, Task
from pipeline.errors import StorageError
from pipeline.operation.receipts import run_recorded
from pipeline.progress import Progress

LOG = logging.getLogger(__name__)


def bring_up_to_date(
    corpus: Corpus,
    config: Config,
    place: str,
    current: str,
    *,
    plan: Callable[[], Sequence[Task]],
    stage: Callable[[Sequence[Task]], Stage],
    executor: Executor,
    progress: Progress,
    forget: Callable[[], object] | None = None,
    beside: Beside = nullcontext,
) -> RunSummary:
    """Makes `current` the fingerprint of the stage at `place` (rows of another are history from then on),
    folds what an earlier run left in parts, forgets what failed where asked to, plans what is open after
    that, runs it and folds it. A run that is killed anywhere in between has done less of it, and the next one
    goes on. `beside` is entered while tasks run, and not at all where there are none; parts lie where their
    receipts say until it is left."""
    corpus.record(config, place, current)
    corpus.fold(place)
    if forget is not None:
        forget()
    tasks = plan()
    with beside() if tasks else nullcontext() as heed:
        open_stage, on_receipt = stage(tasks), heed or ignored
        summary = run_recorded(
            open_stage, tasks, executor, corpus.storage, corpus.run_id, progress, on_receipt
        )
    if tasks:
        try:
            corpus.fold(place)
        except StorageError as error:  # all rows are there, and what was lost must still be said
            LOG.warning("the parts of %s stay as they are until the next command: %s", place, error)
    return summary
