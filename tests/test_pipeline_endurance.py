"""Nodes that come and go: the arithmetic of what they cost, and the whole bench at its smallest."""

import json
from pathlib import Path

import pytest
from s3_server import BUCKET

from framemill import main
from pipeline.endurance.coming import Done, cost_of_kill
from pipeline.endurance.kill import contents
from pipeline.errors import FramemillError
from pipeline.storage import Storage


def done(node: str, started_s: float, seconds: float = 2.0, tries: int = 1) -> Done:
    return Done(key=f"{node}{started_s}", node=node, started_s=started_s, seconds=seconds, tries=tries)


def test_a_kill_costs_half_a_task_where_nobody_waits() -> None:
    busy = [done("b", 2.0 * n) for n in range(5)]
    cost = cost_of_kill([done("a", 0.0), *busy, done("b", 10.0, tries=2), done("b", 12.0)], "a", 3.0)
    assert cost == {"tasks_put_back": 1, "in_flight_s": 2.0, "wasted_s": 1.0, "idle_s": 0.0, "ratio": 0.5}


def test_what_the_others_wait_is_part_of_the_cost_and_the_end_is_not() -> None:
    rows = [done("a", 0.0), done("b", 0.0), done("c", 0.0), done("b", 2.0), done("c", 2.0)]
    late = [done("b", 9.0, tries=2), done("c", 4.0), done("c", 6.0), done("c", 8.0)]  # b waited for 5 s
    cost = cost_of_kill([*rows, *late], "a", 3.0)
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
def test_nodes_come_and_go(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "nodes", "--nodes", "3", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    kills = result["details"]["run"]["kills"]
    assert [kill["stage"] for kill in kills] == ["analyze", "caption", "encode"]
    assert sum(kill["tasks_put_back"] for kill in kills) > 0
