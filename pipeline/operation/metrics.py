"""Metrics of a corpus in Prometheus' text format, from its receipts.

In: the receipts of every stage of every run. Out: families of counters, gauges and a histogram, each with the
labels `corpus` and `stage`; their text (exposition format 0.0.4). Counters count over all receipts that the
corpus still has, so they go on from run to run; gauges are of the newest run of a stage. What no receipt
says has no sample. Pure. Never: a table, a label with a uri of a source.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.engine.measures import BOUNDS_S, counter_of
from pipeline.operation.receipts import AMOUNTS, RUNNING, StageRun
from pipeline.operation.totals import Totals, merged, totals

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SILENT_S = 300.0  # a stage writes every half minute: one that has not for so long is not running
ABOUT = {  # metric → its type and what it says
    "framemill_tasks_total": ("counter", "Tasks that ended, by result: ok or lost."),
    "framemill_lost_tasks_total": ("counter", "Tasks that left no part, by class of reason."),
    "framemill_retried_tasks_total": ("counter", "Tasks that were begun more than once."),
    "framemill_items_total": ("counter", "What the stage counts of its items: ok, failed, salvaged, clips."),
    "framemill_failed_items_total": ("counter", "Failed items by class of reason."),
    "framemill_rows_total": ("counter", "Items that tasks were given."),
    "framemill_footage_seconds_total": ("counter", "Seconds of footage that tasks were done with."),
    "framemill_frames_total": ("counter", "Frames that were decoded or encoded."),
    "framemill_tokens_total": ("counter", "Tokens of the latents that were made."),
    "framemill_written_bytes_total": ("counter", "Bytes of the parts and shards that were written."),
    "framemill_task_duration_seconds": ("histogram", "How long a task took where it ran."),
    "framemill_stage_wall_seconds_total": ("counter", "Seconds from a stage's begin to its last word."),
    "framemill_stage_running": ("gauge", "1 while the stage runs, 0 when it ended or fell silent."),
    "framemill_stage_tasks": ("gauge", "Tasks that the newest run of the stage had to do."),
    "framemill_stage_workers": ("gauge", "The most tasks that ran at once in the newest run of the stage."),
    "framemill_stage_nodes": ("gauge", "Nodes that ran tasks in the newest run of the stage."),
    "framemill_stage_busy_ratio": ("gauge", "Share of workers times wall time spent on tasks, 0 to 1."),
    "framemill_queue_tasks": ("gauge", "Tasks of the newest run of the stage that have not ended."),
    "framemill_queue_bytes": ("gauge", "Bytes of source files that these tasks have before them."),
    "framemill_stage_updated_timestamp_seconds": ("gauge", "Unix time of the stage's last word."),
}
Labels = Mapping[str, str]
Say = Callable[..., None]  # (metric, value or None, **labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One line: `name` is the family's, for a histogram with a suffix."""

    name: str
    labels: Labels
    value: float


def samples(stages: Sequence[StageRun], corpus: str, now_s: float) -> dict[str, list[Sample]]:
    """The samples of each family of ABOUT that has any."""
    found: dict[str, list[Sample]] = {name: [] for name in ABOUT}

    def say(name: str, value: float | None, **labels: str) -> None:
        if value is not None:
            found[name].append(Sample(name=name, labels={"corpus": corpus, **labels}, value=float(value)))

    for stage in dict.fromkeys(one.stage for one in stages):
        runs = [one for one in stages if one.stage == stage]
        sums = [totals(one) for one in runs]
        _say_counters(say, stage, runs, sums)
        _say_gauges(say, runs[-1], sums[-1], now_s)
        seconds = np.concatenate([one.receipts["seconds"].to_numpy() for one in runs])
        found["framemill_task_duration_seconds"] += _histogram({"corpus": corpus, "stage": stage}, seconds)
    return {name: of_name for name, of_name in found.items() if of_name}


def _say_counters(say: Say, stage: str, runs: Sequence[StageRun], sums: Sequence[Totals]) -> None:
    lost, ended = sum(one.lost for one in sums), sum(one.ended for one in sums)
    say("framemill_tasks_total", ended - lost, stage=stage, result="ok")
    say("framemill_tasks_total", lost, stage=stage, result="lost")
    say("framemill_retried_tasks_total", sum(one.retried for one in sums), stage=stage)
    say("framemill_stage_wall_seconds_total", sum(run.wall_s for run in runs), stage=stage)
    for reason, count in merged(one.losses for one in sums).items():
        say("framemill_lost_tasks_total", count, stage=stage, reason=reason)
    for reason, count in merged(one.failures for one in sums).items():
        say("framemill_failed_items_total", count, stage=stage, reason=reason)
    for result, count in sorted(merged(one.counts for one in sums).items()):
        say("framemill_items_total", count, stage=stage, result=result)
    for amount in AMOUNTS:
        values = [one.amounts[amount] for one in sums if amount in one.amounts]
        say(f"{counter_of(amount)}_total", sum(values) if values else None, stage=stage)


def _say_gauges(say: Say, run: StageRun, sums: Totals, now_s: float) -> None:
    stage = run.stage
    say("framemill_stage_running", is_running(run, now_s), stage=stage)
    say("framemill_stage_tasks", run.tasks, stage=stage)
    say("framemill_stage_workers", sums.workers, stage=stage)
    say("framemill_stage_nodes", len(sums.nodes) or None, stage=stage)
    say("framemill_stage_busy_ratio", sums.busy_share, stage=stage)
    say("framemill_queue_tasks", run.tasks - sums.ended, stage=stage)
    say("framemill_queue_bytes", sums.waiting_bytes, stage=stage)
    say("framemill_stage_updated_timestamp_seconds", run.updated_s, stage=stage)


def is_running(run: StageRun, now_s: float) -> bool:
    """Whether a stage is at work: a killed driver's receipts say RUNNING for ever, but fall silent."""
    return run.outcome == RUNNING and now_s - run.updated_s < SILENT_S


def _histogram(labels: Labels, seconds: np.ndarray) -> list[Sample]:
    name = "framemill_task_duration_seconds"
    counts = [(le, int((seconds <= le).sum())) for le in BOUNDS_S] + [(math.inf, len(seconds))]
    buckets = [
        Sample(name=f"{name}_bucket", labels={**labels, "le": _number(le)}, value=count)
        for le, count in counts
    ]
    total = Sample(name=f"{name}_sum", labels=labels, value=float(seconds.sum()))
    return [*buckets, total, Sample(name=f"{name}_count", labels=labels, value=len(seconds))]


def exposition(families: Mapping[str, Iterable[Sample]]) -> str:
    """The text that Prometheus scrapes."""
    lines: list[str] = []
    for name, of_name in families.items():
        kind, about = ABOUT[name]
        lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
        for sample in of_name:
            labels = ",".join(f'{key}="{_escaped(value)}"' for key, value in sample.labels.items())
            lines.append(f"{sample.name}{{{labels}}} {_number(sample.value)}")
    return "\n".join(lines) + "\n"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
