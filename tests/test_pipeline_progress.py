"""Progress speaks to people on a terminal, to logs in lines, to machines in JSON, and never on stdout."""

import io
import json
import sys

import pytest

from pipeline.progress import Pace, progress_bar, progress_table


def test_the_pace_of_a_resumed_run_counts_from_where_it_began(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now_s)
    pace = Pace()
    now_s = 130.0  # setting up
    assert pace(500, 1000) == (0.0, None)
    now_s = 140.0
    assert pace(520, 1000) == (2.0, 240.0)
    assert pace(1000, 1000) == (50.0, 0.0)


def test_machines_get_a_json_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_table(machine=True) as stage:
        for title in ("analyze", "encode"):
            report = stage(title)
            for done in range(4):
                report(done, 3, {"ok": done, "failed": 1})
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [(line["stage"], line["done"]) for line in lines] == [
        ("analyze", 0),
        ("analyze", 3),
        ("encode", 0),
        ("encode", 3),
    ]
    assert all(set(line) == {"stage", "done", "total", "rate", "eta_s", "counts"} for line in lines)
    assert lines[0]["eta_s"] is None
    assert lines[1]["eta_s"] == 0
    assert lines[1]["counts"] == {"ok": 3, "failed": 1}


def test_a_log_gets_the_first_and_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("encode", "shards") as report:
        for done in range(101):
            report(done, 100, {"failed": 2, "loss": 0.123456})
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("encode: 0/100 shards, 0 s, failed 2, loss 0.1235")
    assert last.startswith("encode: 100/100 shards, 0 s, ")
    assert "eta" not in last


def test_a_terminal_gets_a_table_of_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with progress_table() as stage:
        stage("analyze")(3, 3, {"ok": 20, "failed": 1})
        stage("judge")  # never reports: no row
        encode = stage("encode")
        encode(0, 4, {})
        encode(1, 4, {"ok": 7, "failed": 0})
    shown = terminal.getvalue().splitlines()
    rows = [line for line in shown if "encode" in line and "1/4" in line]
    assert rows
    assert "eta" in rows[-1]
    assert any("analyze" in line and "3/3" in line and "failed 1" in line for line in shown)
    assert not any("judge" in line for line in shown)


def test_reasons_stand_beside_what_failed_and_what_was_lost(capsys: pytest.CaptureFixture[str]) -> None:
    why = {"access denied": 50_000, "damaged": 2, "deadline": 1, "no such file": 1}
    with progress_bar("analyze") as report:
        report(1, 1, {"failed": 50_004, "failures": why, "lost": 1, "losses": {"not tried": 1}, "nodes": 3})
    line = capsys.readouterr().err
    assert "failed 50004 (access denied × 50,000, damaged × 2, deadline × 1, … 1 more)" in line
    assert "lost 1 (not tried × 1), nodes 3" in line
    assert "failures" not in line


def test_what_says_nothing_is_not_said_to_people_but_to_machines(capsys: pytest.CaptureFixture[str]) -> None:
    facts: dict[str, object] = {"ok": 1, "lost": 0, "retried": 0, "nodes": 1}
    for machine in (False, True):
        with progress_bar("analyze", machine=machine) as report:
            report(1, 1, facts)
    people, machines = capsys.readouterr().err.splitlines()
    assert people.endswith("ok 1")
    assert "lost" not in people
    assert json.loads(machines)["counts"] == facts
