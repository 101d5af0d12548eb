"""The plan puts a sample through the stages themselves, says what it does not know, and writes nothing."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.recaption import recaption_corpus
from pipeline.config import AnalyzeConfig, Config, PricesConfig, load_config
from pipeline.corpus import tables
from pipeline.engine.pool import PoolExecutor
from pipeline.engine.runner import LocalExecutor, run
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.forecast.fleet import Fleet
from pipeline.forecast.forecast import forecast
from pipeline.forecast.lines import forecast_lines
from pipeline.forecast.measured import MEASURED, MeasuredStage, measurements_of
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.storage import Storage
from tokenizer_stage.encode import encode_corpus

STAGES = {"caption": recaption_corpus, "encode": encode_corpus}
KEEP_ALL = ["judge.preset=keep-all"]
Plan = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two seconds, one of 40 with a cut each 5, and one that is none."""
    root = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)

    def moving(count: int) -> np.ndarray:
        picture = np.kron(rng.integers(40, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        return np.stack([np.roll(picture, t, axis=1) for t in range(count)])

    with Sandbox() as box:
        for n in range(6):
            box.write_video(root / f"{n}.mp4", moving(20), 10.0)
        box.write_video(root / "long.mp4", np.concatenate([moving(50) for _ in range(8)]), 10.0)
    (root / "text.mp4").write_text("this is no video")
    return root


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    fleet = Fleet(nodes=2, node_cpus=4, prices=PricesConfig(cpu_hour=100.0))
    config = load_config(None, KEEP_ALL)
    return forecast(discover([str(folder)]).inputs, config, STAGES, budget_s=25.0, fleet=fleet)


def holds(figure: Mapping[str, float], truth: float) -> bool:
    return figure["low"] <= truth <= figure["high"]


def test_every_line_has_a_range_that_holds_the_truth(plan: Plan, folder: Path) -> None:
    with Sandbox() as box:
        clips = sum(len(box.analyze(path, AnalyzeConfig()).clips) for path in folder.glob("[0-9l]*.mp4"))
    assert (plan["sources"], plan["asked"], plan["unreadable"]["value"]) == (8, 8, 1)
    assert holds(plan["hours"], 52 / 3600)
    assert holds(plan["clips"], clips)
    assert plan["passing"]["value"] == plan["clips"]["value"]  # keep-all; the next clip may still not pass
    assert plan["unknown"] == {}
    assert list(plan["worker_s"]) == list(plan["cpu_s"]) == ["analyze", "caption", "encode"]
    for figure in (*plan["worker_s"].values(), plan["table_bytes"], plan["latent_bytes"], plan["cost"]):
        assert 0 < figure["low"] < figure["value"] < figure["high"]
    assert plan["load_s"]["caption"] > 0
    assert plan["workers"] == {"analyze": 8, "caption": 8, "encode": 8}


def test_a_long_source_enters_by_a_part_of_it(plan: Plan) -> None:
    """Two units of video of 40 s would be more than the budget."""
    assert plan["analysed"] >= 3
    assert plan["analysed_s"] <= 35


def test_what_is_said_of_copies_is_said_to_be_no_estimate(plan: Plan) -> None:
    lines = forecast_lines(plan)
    assert any(line.startswith("copies") and "not estimated" in line for line in lines)
    assert any(line.startswith("pass the rules") and "before copies" in line for line in lines)
    assert all("(90 %" in line for line in lines[1:] if not line.startswith("copies"))


MISSING = {
    "caption.captioner=builtin:nowhere": ("caption", "nowhere"),
    "caption.captioner=openai:http://127.0.0.1:9/v1#m": ("caption", "127.0.0.1"),
    "encode.vae=builtin:nowhere": ("encode", "nowhere"),
}


@pytest.mark.parametrize("override", MISSING)
def test_a_model_that_cannot_be_had_is_unknown_with_the_reason(folder: Path, override: str) -> None:
    stage, word = MISSING[override]
    config = load_config(None, [override, *KEEP_ALL])
    only = {stage: STAGES[stage]}
    expected = forecast(discover([str(folder / "0.mp4")]).inputs, config, only, budget_s=1.0, fleet=Fleet())
    assert word in expected["unknown"][stage]
    assert stage not in expected["worker_s"]
    assert "clock_hours" not in expected  # of a part of the work it would be too little
    assert any(line.startswith(stage) and "unknown" in line for line in forecast_lines(expected))


def test_the_sample_is_the_same_every_time_and_nothing_is_written(folder: Path) -> None:
    inputs, before = discover([str(folder)]).inputs, sorted(p.name for p in folder.iterdir())
    plans = [forecast(inputs, Config(), {}, budget_s=10.0, seed=seed) for seed in (1, 1)]
    for expected in plans:
        for measured in ("worker_s", "cpu_s", "load_s", "sample_cpu_s"):
            del expected[measured]
    assert plans[0] == plans[1]
    assert sorted(p.name for p in folder.iterdir()) == before


def test_of_nothing_that_can_be_read_nothing_is_said(folder: Path) -> None:
    expected = forecast(discover([str(folder / "text.mp4")]).inputs, Config(), STAGES)
    assert expected["analysed"] == 0
    assert forecast_lines(expected)[-1] == "nothing could be analysed"


# -- a stage that measures itself ---------------------------------------------------------------------


class Lazy:
    """Loads for LOAD_S when it is first used; works 10 ms a row."""

    name, version, resources = "lazy", 1, Resources()
    LOAD_S = 0.3

    def setup(self) -> None:
        self.loaded = False

    def process(self, task: Task) -> TaskResult:
        if not self.loaded:
            _burn(self.LOAD_S)
            self.loaded = True
        _burn(0.02 * task.inputs.num_rows)
        rows = tables.to_parquet(task.inputs)
        return TaskResult(outputs=(Output(path=f"rows/{task.key}.parquet", data=rows),))


def _burn(cpu_s: float) -> None:
    ends = time.process_time() + cpu_s
    while time.process_time() < ends:
        pass


@pytest.mark.parametrize("executor", [LocalExecutor(), PoolExecutor(1)], ids=["local", "pool"])
def test_loading_is_told_from_the_work(tmp_path: Path, executor: Any) -> None:
    tasks = [Task(key=key, inputs=pa.table({"n": range(6)})) for key in "ab"]
    stage = Lazy()
    cut = {task.key: [[5, 0], [1, 2, 3, 4]] for task in tasks}
    summary = run(MeasuredStage(stage, cut), tasks, executor, str(tmp_path))
    assert not summary.lost
    measured = measurements_of(Storage(str(tmp_path)), stage, tasks)
    assert [piece.rows for piece in measured.slices] == [(5, 0), (1, 2, 3, 4)] * 2
    assert measured.load is not None
    assert 0.25 < measured.load.cpu_s < 0.45
    for piece in measured.slices:
        assert 0.015 * len(piece.rows) < piece.spent.cpu_s < 0.05 * len(piece.rows)
    rows = pq.read_table(io.BytesIO((tmp_path / "rows" / "a.parquet").read_bytes()))
    assert rows["n"].to_pylist() == [5, 0, 1, 2, 3, 4]
    assert sorted(p.name for p in (tmp_path / MEASURED / "lazy").iterdir()) == ["a.json", "b.json"]
