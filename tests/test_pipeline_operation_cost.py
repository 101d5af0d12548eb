"""What a corpus has cost: by hand, with what is unknown left unknown; and who keeps the receipts of it."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_pipeline_operation_metrics import BEGUN_S, corpus_with, stage_run

from framemill import main
from pipeline.config import PricesConfig, load_config
from pipeline.engine.runner import Receipt, RunSummary
from pipeline.engine.stage import Resources
from pipeline.errors import ConfigError
from pipeline.operation.cost import cost, cost_lines
from pipeline.operation.receipts import RECEIPTS, Receipts, StageRun
from pipeline.stages.outcome import keep_driven, say_lost

PRICES = PricesConfig(cpu_hour=0.36, gpu_hour=36.0, storage_gb_month=0.02, currency="CHF")
GPU = Resources(cpus=1.0, gpus=0.5, memory_gb=8.0)


def figures(*stages: StageRun, kept_s: float = 1800.0, prices: PricesConfig = PRICES) -> dict[str, Any]:
    return cost(stages, kept_s=kept_s, stored_bytes=5 * 10**9, prices=prices)


def equal_tasks(count: int, workers: int, nodes: int, seconds: float, **changes: Any) -> StageRun:
    """Tasks of the same length, `workers` at once, back to back."""
    rows = [
        {
            "key": f"{number}",
            "node": f"n{number % workers % nodes}",
            "started_s": BEGUN_S + seconds * (number // workers),
            "seconds": seconds,
        }
        for number in range(count)
    ]
    wall_s = seconds * -(-count // workers)
    values = {"tasks": count, "updated_s": BEGUN_S + wall_s, "resources": Resources(cpus=2.0)}
    return stage_run(receipts=pa.Table.from_pylist(rows, schema=RECEIPTS), **(values | changes))


def test_money_is_what_the_workers_held() -> None:
    """Two workers of 2 CPUs for 20 s, of which they worked 30 s; one of half a GPU for 100 s."""
    of_gpu = equal_tasks(10, 1, 1, 10.0, stage="caption", resources=GPU)
    result = figures(stage_run(), of_gpu)
    analyze, caption = result["stages"]
    assert (analyze["wall_s"], analyze["worker_s"], analyze["held_s"]) == (20, 30, 40)
    assert analyze["busy_share"] == 0.75
    assert analyze["worker_s_per_kept_hour"] == 60  # of half an hour kept
    assert analyze["money"] == pytest.approx(80 / 3600 * 0.36)
    assert caption["money"] == pytest.approx(100 / 3600 * 0.36 + 50 / 3600 * 36)
    total = result["total"]
    assert total["money_per_kept_hour"] == pytest.approx(2 * total["money"])
    assert total["money"] == pytest.approx(analyze["money"] + caption["money"])
    assert result["storage_money_per_month"] == pytest.approx(0.1)
    binds = result["binds"]
    assert (binds["wall"], binds["worker"]) == ("caption", "caption")
    assert binds["wall_share"] == pytest.approx(100 / 120)


@pytest.mark.parametrize(("nodes", "then_s"), [(1, 50.0), (2, 100 * 2 / 3), (4, 80.0)])
def test_one_more_node_divides_what_is_busy(nodes: int, then_s: float) -> None:
    more = figures(equal_tasks(40, 4, nodes, 10.0))["one_more_cpu_node"]
    assert more["wall_s"] == 100
    assert more["then_s"] == pytest.approx(then_s)


def test_one_more_node_does_nothing_for_the_rest() -> None:
    """The part in which nobody worked stays; nothing is faster than its longest task, or than all tasks at
    once; a GPU node is no help to a stage without GPUs."""
    idle = equal_tasks(40, 4, 1, 10.0, updated_s=BEGUN_S + 300.0)
    assert figures(idle)["one_more_cpu_node"]["then_s"] == pytest.approx(250)
    few = equal_tasks(4, 4, 1, 10.0)
    assert figures(few)["one_more_cpu_node"]["then_s"] == 10
    assert figures(few)["one_more_gpu_node"] is None
    both = figures(idle, equal_tasks(40, 4, 1, 10.0, stage="caption", resources=GPU))
    assert both["one_more_gpu_node"]["then_s"] == pytest.approx(350)
    assert both["one_more_cpu_node"]["then_s"] == pytest.approx(350)


def test_what_is_not_known_is_not_nothing() -> None:
    rows = [{"key": "a", "seconds": 5.0, "tries": 1}]  # no clock, no node
    blind = stage_run(receipts=pa.Table.from_pylist(rows, schema=RECEIPTS))
    result = figures(blind, equal_tasks(4, 2, 1, 1.0, stage="encode"))
    assert result["stages"][0]["money"] is None
    assert result["total"]["money"] is None
    assert result["one_more_cpu_node"] is None
    text = "\n".join(cost_lines(result))
    assert "unknown" in text
    assert "money: unknown" in text
    unpriced = figures(stage_run(), kept_s=0.0, prices=PricesConfig())
    assert (unpriced["total"]["money"], unpriced["stages"][0]["worker_s_per_kept_hour"]) == (None, None)
    assert cost_lines(figures()) == ["no receipts here: nothing is known of what this corpus has cost"]
    assert json.loads(json.dumps(result)) == result


def test_the_command_takes_prices_from_the_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = corpus_with(tmp_path / "c", stage_run())
    before = corpus.storage.read_bytes("corpus.toml")
    (tmp_path / "prices.toml").write_text('[prices]\ncpu_hour = 36\ncurrency = "CHF"\n')
    assert main(["cost", corpus.root, "--config", str(tmp_path / "prices.toml")]) == 0
    out = capsys.readouterr().out
    assert "paid: 0.8 CHF" in out
    assert "one more GPU node: no stage used a GPU" in out
    assert corpus.storage.read_bytes("corpus.toml") == before
    assert b"prices" not in before
    assert main(["cost", corpus.root, "--set", "prices.cpu_hour=-1"]) == 2
    with pytest.raises(ConfigError, match="gpu_hour"):
        load_config(None, ["prices.gpu_hours=1"])


def summary(stage: str, tasks: int = 1, lost: tuple[Receipt, ...] = ()) -> RunSummary:
    return RunSummary(stage=stage, tasks=tasks, lost=lost, counts={"kept": 3}, seconds=2.5)


def test_stages_of_the_driver_leave_a_receipt_in_a_run_that_did_anything(tmp_path: Path) -> None:
    corpus = corpus_with(tmp_path / "c")
    reader = Receipts(corpus.storage)
    keep_driven(corpus, [summary("analyze", 0), summary("judge", 0)])
    keep_driven(corpus, [summary("analyze", 0), summary("judge", 0), summary("report")])
    keep_driven(corpus, [summary("analyze", 4)])
    assert reader.read() == []
    keep_driven(corpus, [summary("analyze", 0), summary("judge")])
    keep_driven(corpus, [summary("analyze", 4), summary("judge", 0), summary("report")])
    judge, report = reader.read()
    assert (judge.stage, report.stage) == ("judge", "report")
    assert (judge.run, judge.outcome, round(judge.wall_s, 3)) == (corpus.run_id, "done", 2.5)
    assert judge.receipts["seconds"].to_pylist() == [2.5]


def test_lost_tasks_are_counted_by_reason(capsys: pytest.CaptureFixture[str]) -> None:
    lost = tuple(Receipt(key=f"{n}", error=f"cannot read s3://b/{n}: access denied") for n in range(50))
    say_lost([summary("analyze", 60, lost), summary("caption", 2, lost[:1])])
    first, *named = capsys.readouterr().err.splitlines()
    assert first == "analyze: lost 50 (access denied × 50)"
    assert len(named) == 21
    assert named[-1] == "… and 31 more lost tasks"
