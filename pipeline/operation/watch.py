"""The newest run of a corpus as its receipts show it, from any machine, while it works and afterwards.

In: the receipts of a corpus. Out: plain values, and lines of them for people. Needs no lease and writes
nothing. Pure but for `watched`, which waits. Never: the tables.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipeline.operation.metrics import is_running
from pipeline.operation.receipts import DONE, RUNNING, StageRun
from pipeline.operation.totals import totals
from pipeline.progress import clock, reasons

SILENT = "silent"  # its driver was killed, or its corpus cannot be written any more


def view(stages: Sequence[StageRun], now_s: float) -> dict[str, Any]:
    """The stages of the run that began last: JSON can hold it. `time` is now in UTC."""
    newest = stages[-1].run if stages else None
    return {
        "time": datetime.fromtimestamp(now_s, UTC).isoformat(timespec="seconds"),
        "run": newest,
        "stages": [_stage(stage, now_s) for stage in stages if stage.run == newest],
    }


def _stage(stage: StageRun, now_s: float) -> dict[str, Any]:
    sums = totals(stage)
    rate = sums.ended / stage.wall_s if stage.wall_s > 0 else 0.0
    left = stage.tasks - sums.ended
    at_work = is_running(stage, now_s)
    return {
        "stage": stage.stage,
        "state": SILENT if stage.outcome == RUNNING and not at_work else stage.outcome,
        "done": sums.ended,
        "total": stage.tasks,
        "seconds": round(stage.wall_s, 1),
        "rate": round(rate, 4),
        "eta_s": round(left / rate, 1) if at_work and rate else None,
        "updated_s_ago": round(max(0.0, now_s - stage.updated_s), 1),
        "counts": sums.counts,
        "failures": sums.failures,
        "lost": sums.lost,
        "losses": sums.losses,
        "retried": sums.retried,
        "nodes": len(sums.nodes),
        "workers": sums.workers,
        "busy_share": None if sums.busy_share is None else round(sums.busy_share, 3),
        "waiting_bytes": sums.waiting_bytes,
    }


def cells(stage: dict[str, Any]) -> tuple[str, str, str, str, str, str]:
    """Of one stage, for people: name, state, tasks, pace, workers, and what came of it."""
    pace = f"{stage['rate']:.3g}/s" if stage["rate"] else ""
    if stage["eta_s"]:
        pace += f", {clock(stage['eta_s'])} to go"
    state = stage["state"]
    if state in (RUNNING, SILENT):
        state += f", {clock(stage['updated_s_ago'])} ago"
    places = [_counted(stage[f"{what}s"], what) for what in ("worker", "node") if stage[f"{what}s"]]
    workers = " on ".join(places)
    if stage["busy_share"] is not None:
        workers += f", busy {100 * stage['busy_share']:.0f} %"
    return stage["stage"], state, f"{stage['done']}/{stage['total']}", pace, workers, ", ".join(_facts(stage))


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _facts(stage: dict[str, Any]) -> Iterator[str]:
    for name, count in stage["counts"].items():
        if count:
            yield f"{name} {count:,}" + (reasons(stage["failures"]) if name == "failed" else "")
    if stage["lost"]:
        yield f"lost {stage['lost']:,}" + reasons(stage["losses"])
    if stage["retried"]:
        yield f"retried {stage['retried']:,}"


def lines(seen: dict[str, Any]) -> list[str]:
    """The view for a log: a line that names the run, one a stage."""
    if seen["run"] is None:
        return [f"{seen['time']} no run has left receipts here"]
    rows = [[part for part in cells(stage) if part] for stage in seen["stages"]]
    return [f"{seen['time']} run {seen['run']}", *(f"  {name}: {', '.join(rest)}" for name, *rest in rows)]


def table(seen: dict[str, Any], below: Sequence[str]) -> Any:
    """The view for a terminal, as rich prints it, with lines of the corpus below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=f"run {seen['run'] or '-'} at {seen['time']}", title_justify="left", box=None)
    for head in ("stage", "state", "tasks", "pace", "workers", "result"):
        grid.add_column(head, justify="right" if head == "tasks" else "left")
    for stage in seen["stages"]:
        bad = stage["lost"] or stage["failures"] or stage["state"] not in (RUNNING, DONE)
        grid.add_row(*map(Text, cells(stage)), style="red" if bad else None)
    return Group(grid, Text(), *map(Text, below))


def watched(read: Callable[[], dict[str, Any]], every_s: float) -> Iterator[dict[str, Any]]:
    """What `read` gives, at once and every so often, for ever."""
    while True:
        yield read()
        time.sleep(every_s)


def show_live(views: Iterator[dict[str, Any]], below: Callable[[dict[str, Any]], Sequence[str]]) -> None:
    """Keeps a terminal up to date until the process is stopped."""
    from rich.live import Live

    with Live(auto_refresh=False) as live:
        for seen in views:
            live.update(table(seen, below(seen)), refresh=True)
