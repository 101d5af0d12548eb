"""metrics.jsonl: lines come back, cut lines cost themselves only, and no number in it is not finite."""

from pathlib import Path

import pytest

from pipeline import runlog
from pipeline.errors import FramemillError


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    for step in range(1, 5):
        runlog.append(path, {"step": step, "loss": 1 / step})
    return path


def test_rows_come_back_in_order(log: Path, tmp_path: Path) -> None:
    assert [row["step"] for row in runlog.read(log)] == [1, 2, 3, 4]
    assert runlog.read(log)[3] == {"step": 4, "loss": 0.25}
    assert runlog.read(tmp_path / "none") == []
    runlog.write(tmp_path / "other", runlog.read(log))
    assert (tmp_path / "other").read_bytes() == log.read_bytes()


def test_a_kill_at_any_byte_costs_the_last_line_at_most(log: Path) -> None:
    data = log.read_bytes()
    for size in range(len(data)):
        rows, unreadable = runlog.parse(data[:size])
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= data[:size].count(b"\n")
        assert unreadable <= 1


@pytest.mark.parametrize("line", [b"[]", b"7", b'{"loss": 1}', b'{"step": "one"}', b'{"step": NaN}', b"\xff"])
def test_a_line_that_is_no_row_is_counted(log: Path, line: bytes) -> None:
    rows, unreadable = runlog.parse(line + b"\n" + log.read_bytes())
    assert (len(rows), unreadable) == (4, 1)


def test_an_old_number_that_is_not_finite_is_none() -> None:
    assert runlog.parse(b'{"step": 1, "loss": NaN}') == ([{"step": 1, "loss": None}], 0)


def test_later_and_cut_lines_are_dropped_and_the_rest_stays_to_the_byte(log: Path) -> None:
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines) + b'{"step": 5, "lo')
    runlog.cut_after(log, 4)
    assert log.read_bytes() == b"".join(lines)
    runlog.cut_after(log, 2)
    assert log.read_bytes() == b"".join(lines[:2])
    runlog.append(log, {"step": 3})
    assert [row["step"] for row in runlog.read(log)] == [1, 2, 3]


def test_cutting_replaces_the_file_at_once(log: Path, tmp_path: Path) -> None:
    before = log.read_bytes()
    (tmp_path / "linked").hardlink_to(log)  # writing in place would change this name too
    runlog.cut_after(log, 1)
    assert (tmp_path / "linked").read_bytes() == before != log.read_bytes()
    runlog.cut_after(tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_no_number_that_is_not_finite_enters(log: Path, value: float) -> None:
    before = log.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        runlog.append(log, {"step": 5, "loss": value})
    assert log.read_bytes() == before
    runlog.require_finite(5, {"loss": 1.0}, last_good=None)
    with pytest.raises(
        FramemillError, match=rf"step 5: loss {value} \(batch of 20: c0, .*c7, …\).* is run/3"
    ):
        runlog.require_finite(
            5, {"lr": 1.0, "loss": value}, batch=[f"c{i}" for i in range(20)], last_good="run/3"
        )
