"""Progress of long work on stderr: a live table on a terminal, a line now and then in a log, JSON lines for
machines.

In: report(done, total, facts) calls. Out: for each stage what is done, how fast, how long still, and its
facts (ok, failed, …). Never: anything on stdout.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

LOG_EVERY_S, JSON_EVERY_S = 10.0, 1.0
CLASSES = 3  # of reasons, that a line names
WHY = {"failed": "failures", "lost": "losses"}  # facts, and those that count them by class of reason
QUIET = {"lost": 0, "retried": 0, "nodes": 1}  # facts that are not worth a word to people
Progress = Callable[[int, int, Mapping[str, object]], None]  # (done, total, facts)


def silent(done: int, total: int, facts: Mapping[str, object]) -> None:
    """The progress of what nobody watches."""


class Steps:
    """Progress through named steps that come in this order: those done, and how far the present one is."""

    def __init__(self, names: Sequence[str], progress: Progress) -> None:
        self._names, self._progress = list(names), progress

    def at(self, name: str) -> Progress:
        """Says that this step has begun, and gives the report of what is done in it."""

        def report(done: int, total: int, facts: Mapping[str, object]) -> None:
            here = {"step": name, "of it": f"{done}/{total}", **facts}
            self._progress(self._names.index(name), len(self._names), here)

        self._progress(self._names.index(name), len(self._names), {"step": name})
        return report

    def end(self) -> None:
        """Every step is done."""
        self._progress(len(self._names), len(self._names), {})


@contextmanager
def progress_bar(title: str, unit: str = "tasks", *, machine: bool = False) -> Iterator[Progress]:
    """Yields report(done, total, facts) of a single stage."""
    with progress_table(unit, machine=machine) as stage:
        yield stage(title)


@contextmanager
def progress_table(unit: str = "tasks", *, machine: bool = False) -> Iterator[Callable[[str], Progress]]:
    """Yields stage(title), which gives that stage's report; stages appear with their first report. With
    `machine` it is one JSON object a line: stage, done, total, rate (a second), eta_s, counts."""
    if machine:
        yield lambda title: _lines(JSON_EVERY_S, partial(_json_line, title))
    elif sys.stderr.isatty():
        with _live_table() as stage:
            yield stage
    else:
        yield lambda title: _lines(LOG_EVERY_S, partial(_log_line, title, unit))


class Pace:
    """Items a second since the first report (a resumed run begins with many done), and seconds to go."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int) -> tuple[float, float | None]:
        """(rate, seconds still to go: None before anything was seen to be done)."""
        now_s = time.monotonic()
        self._first = self._first or (done, now_s)
        before, since_s = self._first
        rate = (done - before) / (now_s - since_s) if now_s > since_s else 0.0
        if done >= total:
            return rate, 0.0
        return rate, (total - done) / rate if rate else None


def _lines(every_s: float, line: Callable[[Pace, int, int, Mapping[str, object]], str]) -> Progress:
    """Prints line(pace, done, total, facts) at the first report, at the last, and every so often."""
    pace = Pace()
    last = pace.started_s - every_s

    def report(done: int, total: int, facts: Mapping[str, object]) -> None:
        nonlocal last
        now, text = time.monotonic(), line(pace, done, total, facts)
        if now - last >= every_s or done == total:
            last = now
            print(text, file=sys.stderr, flush=True)

    return report


def _log_line(title: str, unit: str, pace: Pace, done: int, total: int, facts: Mapping[str, object]) -> str:
    rate, eta_s = pace(done, total)
    parts = [f"{title}: {done}/{total} {unit}", f"{time.monotonic() - pace.started_s:.0f} s"]
    if rate:
        parts.append(f"{rate:.3g}/s")
    if eta_s:
        parts.append(f"eta {clock(eta_s)}")
    return ", ".join([*parts, *said(facts)])


def _json_line(title: str, pace: Pace, done: int, total: int, facts: Mapping[str, object]) -> str:
    rate, eta_s = pace(done, total)
    eta_s = None if eta_s is None else round(eta_s, 1)
    line = {"stage": title, "done": done, "total": total, "rate": round(rate, 4), "eta_s": eta_s}
    return json.dumps(line | {"counts": dict(facts)}, ensure_ascii=False, default=str)


@contextmanager
def _live_table() -> Iterator[Callable[[str], Progress]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
    from rich.progress import Progress as RichProgress

    table = RichProgress(
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("{task.fields[facts]}"),
        console=Console(stderr=True),
    )

    def stage(title: str) -> Progress:
        pace = Pace()
        rows: list[TaskID] = []

        def report(done: int, total: int, facts: Mapping[str, object]) -> None:
            rate, eta_s = pace(done, total)
            left = f"eta {clock(eta_s)}" if eta_s else ""
            row: dict[str, Any] = {
                "pace": f"{rate:.3g}/s {left}" if rate else "",
                "facts": ", ".join(_marked(facts)),
            }
            if not rows:
                rows.append(table.add_task(title, total=total, **row))
            table.update(rows[0], completed=done, total=total, **row)

        return report

    with table:
        yield stage


def clock(seconds: float) -> str:
    """`0:45`, `3:20`, `2:30:00`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def said(facts: Mapping[str, object]) -> list[str]:
    """The facts for people, in the order of their names, failures and losses with their reasons; what says
    nothing (QUIET) left out."""
    return [
        _fact(name, value) + reasons(facts.get(WHY.get(name, "")))
        for name, value in sorted(facts.items())
        if name not in WHY.values() and not (name in QUIET and value == QUIET[name])
    ]


def _fact(name: str, value: object) -> str:
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def reasons(classes: object) -> str:
    """` (access denied × 50,000, damaged × 2)`, the most frequent first; empty where nothing is counted."""
    if not isinstance(classes, Mapping) or not classes:
        return ""
    ordered = sorted(classes.items(), key=lambda item: (-item[1], item[0]))
    rest = [f"… {len(ordered) - CLASSES} more"] if len(ordered) > CLASSES else []
    return f" ({', '.join([*(f'{name} × {count:,}' for name, count in ordered[:CLASSES]), *rest])})"


def _marked(facts: Mapping[str, object]) -> list[str]:
    """The facts as rich prints them, failures and losses in red."""
    from rich.markup import escape

    bad = tuple(f"{name} " for name in WHY)
    red = [fact.startswith(bad) and fact != "failed 0" for fact in said(facts)]
    facts_of = map(escape, said(facts))
    return [f"[red]{fact}[/red]" if is_red else fact for fact, is_red in zip(facts_of, red, strict=True)]
