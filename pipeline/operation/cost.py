"""What a corpus has cost: seconds and money an hour of kept footage, by stage; which stage binds; what a
further node would bring.

In: receipts, the kept footage, the stored bytes, prices. Out: plain values, and lines for people. Pure. What
receipts lack is None and said as unknown, never taken for nothing.

Paid is what was held: the most workers that a stage ever had at once, for as long as it ran, with the CPUs,
GPUs and memory of each. A pool that grew late was held for less: that is the upper bound. What more nodes
bring follows Amdahl: the part of a stage in which its workers were not busy stays, the rest is divided by
more workers, but by no more than there are tasks, and it lasts as long as the longest of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from pipeline.config import PricesConfig
from pipeline.operation.receipts import StageRun
from pipeline.operation.totals import Totals, totals
from pipeline.progress import clock

HOUR_S = 3600.0
ASSUMED = (
    "another node like those, with as many workers of each stage; storage and the driver keep up; "
    "start, tail and waiting stay as long as they were"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _One:
    """A stage of one run, with its sums."""

    run: StageRun
    sums: Totals

    @property
    def held_s(self) -> float | None:
        """Worker seconds that were held."""
        return None if self.sums.workers is None else self.sums.workers * self.run.wall_s

    def wall_with_s(self, more_nodes: int) -> float | None:
        """The wall time with so many nodes more; None where the receipts have no clocks or no nodes."""
        sums = self.sums
        if sums.workers is None or not sums.nodes or not sums.ended:
            return None
        workers = min(sums.workers * (1 + more_nodes / len(sums.nodes)), max(self.run.tasks, sums.workers))
        parallel_s = sums.busy_s / sums.workers
        longest_s = float(pc.max(self.run.receipts["seconds"]).as_py())
        return self.run.wall_s - parallel_s + min(parallel_s, max(sums.busy_s / workers, longest_s))


def cost(
    stages: Sequence[StageRun], *, kept_s: float, stored_bytes: int, prices: PricesConfig
) -> dict[str, Any]:
    """The figures, as `framemill cost --json` prints them. Money is in `prices.currency`, None where no price
    is set."""
    ones = [_One(run=stage, sums=totals(stage)) for stage in stages]
    kept_h = kept_s / HOUR_S
    names = list(dict.fromkeys(stage.stage for stage in stages))
    rows = [_row(name, [one for one in ones if one.run.stage == name], kept_h, prices) for name in names]
    stored_gb = stored_bytes / 1e9
    return {
        "kept_hours": round(kept_h, 4),
        "runs": len({stage.run for stage in stages}),
        "since": _date(min(stage.started_s for stage in stages)) if stages else None,
        "currency": prices.currency,
        "stages": rows,
        "total": {
            name: _sum([row[name] for row in rows])
            for name in ("wall_s", "worker_s", "held_s", "money", "money_per_kept_hour")
        },
        "stored_gb": round(stored_gb, 3),
        "storage_money_per_month": stored_gb * prices.storage_gb_month if prices.storage_gb_month else None,
        "binds": _binding(rows),
        "one_more_cpu_node": _one_more([one for one in ones if not one.run.resources.gpus], ones),
        "one_more_gpu_node": _one_more([one for one in ones if one.run.resources.gpus], ones),
        "assumed": ASSUMED,
    }


def _row(name: str, ones: Sequence[_One], kept_h: float, prices: PricesConfig) -> dict[str, Any]:
    wall_s = sum(one.run.wall_s for one in ones)
    worker_s = sum(one.sums.busy_s for one in ones)
    held_s = _sum([one.held_s for one in ones])
    hours = {
        what: _sum([None if one.held_s is None else one.held_s * amount / HOUR_S for one, amount in amounts])
        for what, amounts in (
            ("cpu_hours", [(one, one.run.resources.cpus) for one in ones]),
            ("gpu_hours", [(one, one.run.resources.gpus) for one in ones]),
            ("memory_gb_hours", [(one, one.run.resources.memory_gb) for one in ones]),
        )
    }
    money = _money(hours, prices)
    return {
        "stage": name,
        "runs": len(ones),
        "tasks": sum(one.sums.ended for one in ones),
        "wall_s": wall_s,
        "worker_s": worker_s,
        "held_s": held_s,
        "busy_share": worker_s / held_s if held_s else None,
        "workers": max((one.sums.workers or 0 for one in ones), default=0) or None,
        "nodes": max((len(one.sums.nodes) for one in ones), default=0) or None,
        **hours,
        "worker_s_per_kept_hour": worker_s / kept_h if kept_h else None,
        "money": money,
        "money_per_kept_hour": money / kept_h if kept_h and money is not None else None,
    }


def _money(hours: dict[str, float | None], prices: PricesConfig) -> float | None:
    pairs = (
        (hours["cpu_hours"], prices.cpu_hour),
        (hours["gpu_hours"], prices.gpu_hour),
        (hours["memory_gb_hours"], prices.memory_gb_hour),
    )
    if not any(price for _, price in pairs):
        return None
    return _sum([None if amount is None else amount * price for amount, price in pairs if price])


def _binding(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The stage with most of the wall time, and with most of the worker time, and their shares."""
    wall_s, worker_s = (sum(row[name] for row in rows) for name in ("wall_s", "worker_s"))
    if not (wall_s and worker_s):
        return None
    by_wall, by_worker = (max(rows, key=lambda row: float(row[name])) for name in ("wall_s", "worker_s"))
    return {
        "wall": by_wall["stage"],
        "wall_share": by_wall["wall_s"] / wall_s,
        "worker": by_worker["stage"],
        "worker_share": by_worker["worker_s"] / worker_s,
    }


def _one_more(touched: Sequence[_One], ones: Sequence[_One]) -> dict[str, Any] | None:
    """The wall time of all stages now and with one node more for those that are touched; None where that is
    not known, or there is none."""
    after = [one.wall_with_s(1) for one in touched]
    if not touched or None in after:
        return None
    now_s = sum(one.run.wall_s for one in ones)
    then_s = now_s - sum(one.run.wall_s for one in touched) + sum(filter(None, after))
    return {"wall_s": now_s, "then_s": then_s, "speedup": now_s / then_s if then_s else None}


def _sum(values: Sequence[float | None]) -> float | None:
    """None where one of them is not known."""
    return None if None in values else float(sum(value for value in values if value is not None))


def _date(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="seconds")


def cost_lines(result: dict[str, Any]) -> list[str]:
    """The figures for people."""
    if not result["stages"]:
        return ["no receipts here: nothing is known of what this corpus has cost"]
    money = result["currency"]
    heads = ("stage", "tasks", "wall", "worker", "busy", "workers", "CPU h", "GPU h", "s a kept h", money)
    table = [heads, *(_cells(row) for row in result["stages"])]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in table
    ]
    total = result["total"]
    lines += [
        "",
        f"{result['kept_hours']:g} h of footage kept, {result['runs']} runs since {result['since']}",
    ]
    if total["money"] is not None:
        each = total["money_per_kept_hour"]
        rate = "" if each is None else f", {each:.4g} {money} an hour of kept footage"
        lines.append(
            f"paid: {total['money']:.4g} {money}{rate}, if workers were held as long as their stage ran"
        )
    else:
        lines.append("money: unknown (no [prices], or receipts without clocks)")
    stored = f"stored: {result['stored_gb']:g} GB"
    if (monthly := result["storage_money_per_month"]) is not None:
        stored += f", {monthly:.4g} {money} a month"
    return [*lines, stored, *_advice(result)]


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def said(value: float | None, form: str, scale: float = 1.0) -> str:
        return "unknown" if value is None else format(value * scale, form)

    return (
        row["stage"],
        str(row["tasks"]),
        clock(row["wall_s"]),
        clock(row["worker_s"]),
        "unknown" if row["busy_share"] is None else f"{100 * row['busy_share']:.0f} %",
        "unknown" if row["workers"] is None else str(row["workers"]),
        said(row["cpu_hours"], ".3g"),
        said(row["gpu_hours"], ".3g"),
        said(row["worker_s_per_kept_hour"], ".0f"),
        "-" if row["money"] is None else f"{row['money']:.3g}",
    )


def _advice(result: dict[str, Any]) -> list[str]:
    lines = []
    if binds := result["binds"]:
        lines.append(
            f"binds: {binds['wall']} with {100 * binds['wall_share']:.0f} % of the wall time; "
            f"{binds['worker']} has {100 * binds['worker_share']:.0f} % of the worker time"
        )
    for kind in ("CPU", "GPU"):
        more = result[f"one_more_{kind.lower()}_node"]
        if more is None:
            none = kind == "GPU" and not any(row["gpu_hours"] for row in result["stages"])
            lines.append(f"one more {kind} node: {'no stage used a GPU' if none else 'unknown'}")
        else:
            lines.append(
                f"one more {kind} node: {clock(more['wall_s'])} become {clock(more['then_s'])} "
                f"({more['speedup']:.2f} times as fast)"
            )
    return [*lines, f"assumed: {result['assumed']}"]
