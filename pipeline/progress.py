"""Progress of long work: a live bar on a terminal, a line now and then in a log. Always on stderr."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

LOG_EVERY_S = 10.0
Progress = Callable[[int, int, Mapping[str, object]], None]


@contextmanager
def progress_bar(title: str, unit: str = "tasks") -> Iterator[Progress]:
    """Yields report(done, total, facts); shows title, done/total, rate, time left and the facts."""
    if sys.stderr.isatty():
        with _rich_bar(title) as report:
            yield report
    else:
        yield _log_lines(title, unit)


@contextmanager
def _rich_bar(title: str) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("[bold]{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    bar = RichProgress(
        *columns, TimeRemainingColumn(), TextColumn("{task.fields[facts]}"), console=Console(stderr=True)
    )
    with bar:
        shown = bar.add_task(title, total=None, facts="")

        def report(done: int, total: int, facts: Mapping[str, object]) -> None:
            bar.update(shown, completed=done, total=total, facts=_line(facts))

        yield report


def _log_lines(title: str, unit: str) -> Progress:
    started = time.monotonic()
    last = started - LOG_EVERY_S

    def report(done: int, total: int, facts: Mapping[str, object]) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LOG_EVERY_S or done == total:
            last = now
            print(
                f"{title}: {done}/{total} {unit}, {now - started:.0f} s {_line(facts)}".rstrip(),
                file=sys.stderr,
            )

    return report


def _line(facts: Mapping[str, object]) -> str:
    shown = (f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in sorted(facts.items()))
    return ", ".join(shown)
