"""The plan extrapolates a sample that is the same every time, and writes nothing."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.config import Config, load_config
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.forecast import forecast, forecast_lines


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
    plan = forecast(discover([str(folder)]).inputs, Config(), budget_s=4.0)
    assert (plan["sources"], plan["probed"], plan["unreadable"], plan["analysed"]) == (7, 7, 1, 2)
    assert plan["hours"] == pytest.approx(12 / 3600, abs=0.0005)
    assert plan["hours_90"][0] <= plan["hours"] <= plan["hours_90"][1]
    assert plan["clips"] >= 6
    judged = plan["funnel"].get("kept", 0) + plan["funnel"].get("rejected", 0)
    assert judged == pytest.approx(plan["clips"], abs=1)
    assert plan["worker_hours"]["analyze"] > 0
    assert "7 sources" in forecast_lines(plan)[0]
    assert sorted(p.name for p in folder.iterdir()) == before


OTHER_MODELS = {
    "caption.captioner=hf:some/model": ("caption",),
    "caption.captioner=builtin:own": ("caption",),
    "caption.max_tokens=20": ("caption",),
    "encode.vae=diffusers:some/vae": ("encode", "latents"),
    "encode.area_px=921600": ("encode",),
    "encode.name=other": (),
}


@pytest.mark.parametrize("override", OTHER_MODELS)
def test_of_what_was_not_measured_nothing_is_said(folder: Path, override: str) -> None:
    config = load_config(None, [override, "judge.preset=keep-all"])
    plan = forecast(discover([str(folder / "0.mp4")]).inputs, config, budget_s=1.0)
    figures = plan["worker_hours"] | plan["storage_gb"]
    assert tuple(name for name, figure in figures.items() if figure is None) == OTHER_MODELS[override]
    lines = [line for line in forecast_lines(plan) if "unknown" in line and not line.startswith("unknown")]
    assert tuple(line.split()[0] for line in lines) == OTHER_MODELS[override]


def test_the_sample_is_the_same_every_time(folder: Path) -> None:
    inputs = discover([str(folder)]).inputs
    plans = [forecast(inputs, Config(), budget_s=4.0) for _ in range(2)]
    for plan in plans:
        del plan["worker_hours"]  # measured
    assert plans[0] == plans[1]
