"""What a run of stages says of itself: what was lost, how the corpus stands; its exit code.

In: summaries of stages. Out: the result on stdout, lines on stderr. Never: a stage.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.command import Args, show
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import RunSummary
from pipeline.operation.reasons import by_class
from pipeline.operation.receipts import keep_receipt
from pipeline.progress import reasons

AHEAD = "ahead"  # the remark on captions that were made before clips were judged
DRIVEN = ("judge", "report")  # stages without workers
LOST_NAMED = 20  # tasks, on stderr; the log has them all


def nothing_done(summary: RunSummary) -> str:
    """Why the stages after one that lost all its tasks do not run: they would only undo what is there."""
    if not summary.tasks or len(summary.lost) < summary.tasks:
        return ""
    return (
        f"{summary.stage} lost all of its {summary.tasks} tasks, and what follows it was not begun; "
        "run the same command again to go on"
    )


def say_lost(summaries: Sequence[RunSummary]) -> None:
    """Counts the lost tasks by class of reason and names the first, also of a run that ends with an error
    afterwards."""
    for summary in summaries:
        if len(summary.lost) > 1:
            why = by_class(Counter(receipt.error for receipt in summary.lost))["reasons"]
            print(f"{summary.stage}: lost {len(summary.lost)}{reasons(why)}", file=sys.stderr)
    lost = [f"lost task: {s.stage} {r.key}: {r.error}" for s in summaries for r in s.lost]
    for line in lost[:LOST_NAMED]:
        print(line, file=sys.stderr)
    if len(lost) > LOST_NAMED:
        print(f"… and {len(lost) - LOST_NAMED} more lost tasks", file=sys.stderr)


def conclude(args: Args, corpus: Corpus, summaries: Sequence[RunSummary], remarks: dict[str, Any]) -> int:
    """Prints what each stage did and how the corpus stands; the exit code."""
    from pipeline.corpus.status import failures_above, stage_lines, status

    counts = status(corpus)
    stages = [_as_row(summary) for summary in summaries]
    result = {"corpus": args.corpus, "stages": stages, "status": counts, **remarks}
    lines = stage_lines(stages, counts)
    if ahead := remarks.get(AHEAD):
        lines.append(f"captioned ahead: {ahead['captioned']}, of them lost: {ahead['lost']}")
    show(args, result, lines)
    over = failures_above(args.max_failed, counts, [summary.stage for summary in summaries])
    for line in over:
        print(f"{line}, above --max-failed {args.max_failed}", file=sys.stderr)
    return 1 if over or any(summary.lost for summary in summaries) else 0


def _as_row(summary: RunSummary) -> dict[str, Any]:
    """What a stage did: its counts, and beside `failed` and `lost` their classes of reasons."""
    row = {"stage": summary.stage, "tasks": summary.tasks, "lost": len(summary.lost)}
    row |= {"retried": summary.retried, "nodes": len(summary.nodes), "seconds": round(summary.seconds, 2)}
    losses = by_class(Counter(receipt.error for receipt in summary.lost))["reasons"]
    return row | summary.counts | {"failures": summary.failures, "losses": losses}


def keep_driven(corpus: Corpus, summaries: Sequence[RunSummary]) -> None:
    """Keeps a receipt of the last stage if this process itself did it, in a run that did anything."""
    last = summaries[-1]
    did_anything = any(summary.tasks for summary in summaries if summary.stage != "report")
    if last.stage in DRIVEN and last.tasks and did_anything:
        keep_receipt(corpus.storage, corpus.run_id, last)
