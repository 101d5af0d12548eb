"""What a receipt adds to running counters, for a system that counts while a stage runs.

In: the receipt of a task. Out: (counter, labels, amount) of each counter that it raises. The names are those
of the metrics that are made of receipts on disk (pipeline/operation/metrics.py), without `_total`, which such
systems append. Pure.
"""

from collections.abc import Iterator

from pipeline.engine.runner import Receipt

Increment = tuple[str, dict[str, str], float]
LABELS = {  # counter → its labels
    "framemill_tasks": ("stage", "result"),
    "framemill_retried_tasks": ("stage",),
    "framemill_items": ("stage", "result"),
    "framemill_failed_items": ("stage", "reason"),
    "framemill_rows": ("stage",),
    "framemill_footage_seconds": ("stage",),
    "framemill_frames": ("stage",),
    "framemill_tokens": ("stage",),
    "framemill_written_bytes": ("stage",),
}
SECONDS = "framemill_task_duration_seconds"  # a histogram, by stage
BOUNDS_S = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0)
OF_AMOUNT = {"footage_s": "footage_seconds", "bytes": "written_bytes"}


def counter_of(amount: str) -> str:
    """The counter of an amount of a receipt."""
    return f"framemill_{OF_AMOUNT.get(amount, amount)}"


def increments(stage: str, receipt: Receipt) -> Iterator[Increment]:
    """Each counter that a receipt raises, by how much; zeros are left out."""
    yield "framemill_tasks", {"stage": stage, "result": "lost" if receipt.error else "ok"}, 1.0
    if receipt.tries > 1:
        yield "framemill_retried_tasks", {"stage": stage}, 1.0
    for name, value in receipt.amounts.items():
        if value > 0:
            yield counter_of(name), {"stage": stage}, float(value)
    for name, label, counts in (
        ("framemill_items", "result", receipt.counts),
        ("framemill_failed_items", "reason", receipt.failures),
    ):
        yield from ((name, {"stage": stage, label: of}, float(n)) for of, n in counts.items() if n > 0)
