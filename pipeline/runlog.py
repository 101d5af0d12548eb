"""metrics.jsonl of a training run: one JSON object a line, each with its `step`; and what may not enter it.

In: rows of plain values. Out: a file that stays valid JSON line by line, whatever kills the run: a line that
a kill cut short is left out when it is read, and cutting the file back replaces it whole. Never holds NaN or
infinity: `require_finite` stops a run before such a number can get here, or into weights.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import FramemillError
from pipeline.storage import commit_bytes

METRICS_NAME = "metrics.jsonl"
BATCH_NAMES = 8  # samples of a batch that a message names

Row = Mapping[str, Any]


def append(path: Path, row: Row) -> None:
    """Adds one line; the folder is there. ValueError for a number that is not finite."""
    line = json.dumps(row, allow_nan=False) + "\n"
    with open(path, "a", encoding="utf-8") as file:
        file.write(line)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Puts a whole log in place of what lies at `path`."""
    commit_bytes(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())


def parse(data: bytes) -> tuple[list[dict[str, Any]], int]:
    """The rows of a log in file order, and how many lines are none: cut short, or without a finite step. A
    number that is not finite, as older logs may hold, is read as None."""
    pairs = [row for _, row in _lines(data)]
    rows = [row for row in pairs if row is not None]
    return rows, len(pairs) - len(rows)


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a log; none when there is no file."""
    return parse(path.read_bytes())[0] if path.exists() else []


def cut_after(path: Path, step: int) -> None:
    """Drops the lines of later steps, which will be taken again, and lines cut short. All or nothing."""
    if path.exists():
        kept = [line for line, row in _lines(path.read_bytes()) if row is not None and row["step"] <= step]
        commit_bytes(path, b"".join(line + b"\n" for line in kept))


def _lines(data: bytes) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    for line in data.split(b"\n"):
        if line.strip():
            yield line, _row(line)


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    if not isinstance(row, dict):
        return None
    step = row.get("step")
    return row if isinstance(step, int | float) and not isinstance(step, bool) else None


def require_finite(
    step: int, values: Mapping[str, float], *, batch: Sequence[str] = (), last_good: object
) -> None:
    """Stops a run at a step (from 1) one of whose values is not finite, before anything of it is kept.

    Raises:
        FramemillError: it names the values, the samples of the batch and the last good checkpoint.
    """
    wrong = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
    if not wrong:
        return
    names = ", ".join(batch[:BATCH_NAMES]) + (", …" if len(batch) > BATCH_NAMES else "")
    kept = f"the last good checkpoint is {last_good}" if last_good else "no checkpoint was written yet"
    of = f" (batch of {len(batch)}: {names})" if batch else ""
    raise FramemillError(
        f"training stopped at step {step}: {', '.join(wrong)}{of}; nothing of this step was kept",
        expected="finite numbers",
        fix=f"a lower rate, a longer warm-up or a smaller clip_norm, in another --out; {kept}",
    )
