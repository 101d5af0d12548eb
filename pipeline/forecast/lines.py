"""The plan of `framemill plan` as lines for people."""

from collections.abc import Mapping
from typing import Any

UNITS = {"table_bytes": ("tables", 1e6, "MB"), "latent_bytes": ("latents", 1e6, "MB")}


def forecast_lines(plan: Mapping[str, Any]) -> list[str]:
    """A line a figure: the estimate, and the range in which nine of ten samples hold the truth."""
    lines = [
        f"{plan['sources']} sources, {plan['gigabytes']:g} GB; {plan['asked']} headers read, "
        f"{plan['analysed']} stills and pieces of video analysed ({plan.get('analysed_s', 0):g} s)",
        _line("unreadable", plan["unreadable"]),
    ]
    if not plan["analysed"]:
        return [*lines, "nothing could be analysed"]
    lines += [
        _line("hours of footage", plan["hours"], digits=3),
        _line("clips", plan["clips"]),
        _line("pass the rules", plan["passing"], "before copies are removed"),
    ]
    lines += [_line(f"  {reason}", count) for reason, count in plan["not_passing"].items()]
    copies = plan["copies_in_sample"]
    lines.append(f"{'copies':<20}{plan['copies']}; {copies} in the sample, which shows few of them")
    for stage in ("analyze", "embed", "caption", "encode"):
        if stage in plan["worker_s"]:
            lines.append(_stage_line(stage, plan))
        elif reason := plan["unknown"].get(stage):
            lines.append(f"{stage:<20}unknown: {reason}")
    for name, (label, scale, unit) in UNITS.items():
        if plan[name] is not None:
            lines.append(_line(label, _scaled(plan[name], scale), unit, digits=1))
    if "clock_hours" in plan:
        workers = ", ".join(f"{number} {stage}" for stage, number in plan["workers"].items())
        lines.append(_line("hours on the clock", plan["clock_hours"], f"with workers: {workers}", digits=3))
        if plan["cost"]:
            lines.append(_line("cost", plan["cost"], plan["currency"], digits=2))
    return lines


def _stage_line(stage: str, plan: Mapping[str, Any]) -> str:
    load_s = plan["load_s"][stage]
    hours = _scaled(plan["worker_s"][stage], 3600)
    return _line(stage, hours, f"worker hours, and {load_s:g} s to load in each worker", digits=4)


def _scaled(figure: Mapping[str, float], scale: float) -> dict[str, float]:
    return {name: number / scale for name, number in figure.items()}


def _line(name: str, figure: Mapping[str, float], remark: str = "", digits: int = 0) -> str:
    value, low, high = (f"{figure[key]:,.{digits}f}" for key in ("value", "low", "high"))
    return f"{name:<20}{value:>12}  (90 %: {low} to {high}){'  ' if remark else ''}{remark}"
