"""Bringing a stage of a corpus up to date: the one order in which every stage with parts does it.

In: a stage's place and fingerprint, what plans its open tasks, what makes the stage for them. Out: a summary,
and the rows of the stage compacted (pipeline/corpus/folding.py).
"""

from collections.abc import Callable, Sequence

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import Executor, RunSummary
from pipeline.engine.stage import Stage, Task
from pipeline.operation.receipts import run_recorded
from pipeline.progress import Progress


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
) -> RunSummary:
    """Makes `current` the fingerprint of the stage at `place` (rows of another are history from then on),
    folds what an earlier run left in parts, forgets what failed where asked to, plans what is open after
    that, runs it and folds it. A run that is killed anywhere in between has done less of it, and the next one
    goes on."""
    corpus.record(config, place, current)
    corpus.fold(place)
    if forget is not None:
        forget()
    tasks = plan()
    summary = run_recorded(stage(tasks), tasks, executor, corpus.storage, corpus.run_id, progress)
    if tasks:
        corpus.fold(place)
    return summary
