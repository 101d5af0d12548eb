"""The plan extrapolates a sample that is the same every time, and writes nothing."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.forecast import plan_lines, plan_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six videos of two seconds that differ, and one that is none."""
    root = tmp_path_factory.mktemp("raw")
    rng = np.random.default_rng(0)
    with Sandbox() as box:
        for n in range(6):
            picture = np.kron(rng.integers(40, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            frames = np.stack([np.roll(picture, t, axis=1) for t in range(40)])
            box.write_video(root / f"{n}.mp4", frames, 20.0)
    (root / "text.mp4").write_text("this is no video")
    return root


def test_a_part_of_the_footage_tells_of_the_whole(folder: Path) -> None:
    before = sorted(p.name for p in folder.iterdir())
    plan = plan_run(discover([str(folder)]).inputs, Config(), budget_s=4.0)
    assert (plan["sources"], plan["probed"], plan["unreadable"], plan["analysed"]) == (7, 7, 1, 2)
    assert plan["hours"] == pytest.approx(12 / 3600, abs=0.0005)
    assert plan["hours_90"][0] <= plan["hours"] <= plan["hours_90"][1]
    assert plan["clips"] >= 6
    judged = plan["funnel"].get("kept", 0) + plan["funnel"].get("rejected", 0)
    assert judged == pytest.approx(plan["clips"], abs=1)
    assert plan["worker_hours"]["analyze"] > 0
    assert "7 sources" in plan_lines(plan)[0]
    assert sorted(p.name for p in folder.iterdir()) == before


def test_the_sample_is_the_same_every_time(folder: Path) -> None:
    inputs = discover([str(folder)]).inputs
    plans = [plan_run(inputs, Config(), budget_s=4.0) for _ in range(2)]
    for plan in plans:
        del plan["worker_hours"]  # measured
    assert plans[0] == plans[1]
