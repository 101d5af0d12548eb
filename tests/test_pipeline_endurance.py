"""Nodes that come and go: the arithmetic of what they cost, and a whole run on a small cluster."""

import tempfile
from pathlib import Path

import pytest
from s3_server import BUCKET

from pipeline.endurance.coming import Done, cost_of_kill, is_over
from pipeline.endurance.kill import contents
from pipeline.endurance.nodes import STEPS, survival
from pipeline.errors import FramemillError
from pipeline.progress import Steps, silent
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig


def done(node: str, started_s: float, seconds: float = 2.0, tries: int = 1) -> Done:
    return Done(key=f"{node}{started_s}", node=node, started_s=started_s, seconds=seconds, tries=tries)


def test_a_kill_costs_half_a_task_where_nobody_waits() -> None:
    rows = [done("a", 0.0), done("b", 0.0), done("b", 2.0), done("b", 4.0, tries=2)]
    assert cost_of_kill(rows, "a", 3.0) == {
        "tasks_put_back": 1,
        "in_flight_s": 2.0,
        "begun_again_after_s": 1.0,
        "wasted_s": 1.0,
        "idle_s": 0.0,
        "ratio": 0.5,
    }


def test_what_the_others_wait_until_it_is_over_is_part_of_the_cost() -> None:
    rows = [done("a", 0.0), done("b", 0.0), done("c", 0.0), done("b", 2.0), done("c", 2.0)]
    assert not is_over(rows, "a")
    rows += [done("b", 9.0, tries=2), done("c", 4.0), done("c", 6.0), done("c", 8.0)]  # b waited for 5 s
    assert not is_over(rows, "a")  # what c does at the end of that has not ended
    rows += [done("c", 10.0)]
    assert is_over(rows, "a")
    cost = cost_of_kill(rows, "a", 3.0)
    assert (cost["wasted_s"], cost["idle_s"], cost["ratio"]) == (1.0, 5.0, 3.0)


def test_a_kill_that_met_no_task_is_no_measurement() -> None:
    with pytest.raises(FramemillError, match="no task was on the node"):
        cost_of_kill([done("a", 0.0), done("b", 0.0)], "a", 3.0)


@pytest.mark.usefixtures("s3")
def test_the_files_of_a_corpus_are_the_same_from_a_folder_and_from_a_store(tmp_path: Path) -> None:
    files = {"corpus.toml": b"1", "clips/a.parquet": b"2", ".tmp-x": b"3", "receipts/t.parquet": b"4"}
    for root in (str(tmp_path), f"{BUCKET}/same"):
        for name, data in files.items():
            Storage(root).write_bytes(name, data)
        assert contents(root) == {"corpus.toml": b"1", "clips/a.parquet": b"2"}
    assert contents(tmp_path / "nowhere") == {}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.endurance
@pytest.mark.timeout(900)
def test_a_run_that_loses_three_nodes_and_gains_one_gives_the_same_bytes() -> None:
    toy = ToyWorldConfig(videos=6, images=0, seed=11, min_shots=1, max_shots=2, duplicate_share=0.0)
    with tempfile.TemporaryDirectory(prefix="fm-") as folder:
        survived = survival(Path(folder), 3, toy, Steps(STEPS, silent))
    assert [kill["stage"] for kill in survived["kills"]] == ["analyze", "caption", "encode"]
    assert survived["equal"], survived["differing"]
    assert (survived["exit_code"], survived["lost"], survived["joined"]) == (0, 0, True)
    assert survived["tasks_put_back"] > 0
    assert survived["stdout_is_one_object"]
    assert not survived["not_json_on_stderr"]
