"""Metrics are valid exposition, add up to the receipts, and are served to who asks."""

import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from framemill import main
from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.measures import BOUNDS_S, LABELS, SECONDS, increments
from pipeline.engine.runner import Receipt
from pipeline.engine.stage import Resources
from pipeline.errors import StorageError
from pipeline.operation.metrics import ABOUT, SILENT_S, exposition, samples
from pipeline.operation.receipts import FOLDER, RECEIPTS, StageRun, file_name, to_parquet
from pipeline.operation.serve import address, server
from pipeline.operation.watch import lines, view

ROOT = Path(__file__).resolve().parents[1]
BEGUN_S = 1.7e9
NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
LINE = re.compile(
    rf"({NAME})(?:\{{({LABEL}(?:,{LABEL})*)?\}})? ([-+]?(?:\d+(?:\.\d+)?(?:e[-+]?\d+)?|Inf)|NaN)"
)

Parsed = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parsed(text: str) -> Parsed:
    """A strict reading of exposition format 0.0.4: HELP, then TYPE, then the samples of each family, no
    sample twice, histograms cumulative and closed."""
    families: dict[str, str] = {}
    values: Parsed = {}
    assert text.endswith("\n")
    of = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            of = line.split(" ")[2]
            assert of not in families
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == of
            families[name] = kind
        else:
            match = LINE.fullmatch(line)
            assert match, line
            suffixes = ("_bucket", "_sum", "_count") if families[of] == "histogram" else ("",)
            assert match[1] in {of + suffix for suffix in suffixes}, line
            assert families[of] != "counter" or (of.endswith("_total") and float(match[3]) >= 0)
            pairs = re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', match[2] or "")
            assert len(dict(pairs)) == len(pairs)
            key = (match[1], frozenset(pairs))
            assert key not in values, line
            values[key] = float(match[3])
    return values


def value(values: Parsed, name: str, **labels: str) -> float:
    """The sample of that name whose labels include these; there must be one."""
    (one,) = (v for (n, of), v in values.items() if n == name and set(labels.items()) <= of)
    return one


def stage_run(stage: str = "analyze", run: str = "1", **changes: Any) -> StageRun:
    """Three tasks on two nodes, one lost, two at once, 10 s each over 20 s."""
    rows = [
        {
            "key": f"k{number}",
            "node": f"n{number % 2}",
            "started_s": BEGUN_S + 10 * (number // 2),
            "seconds": 10.0,
            "tries": 1 + (number == 2),
            "lost": "access denied" if number == 2 else None,
            "counts": [] if number == 2 else [("failed", 1), ("ok", 3)],
            "failures": [] if number == 2 else [("damaged", 1)],
            "rows": 4,
            "footage_s": 1800.0,
            "bytes": 100,
            "input_bytes": 1000,
        }
        for number in range(3)
    ]
    values = {
        "run": run,
        "stage": stage,
        "started_s": BEGUN_S,
        "updated_s": BEGUN_S + 20.0,
        "outcome": "done",
        "tasks": 4,
        "input_bytes": 4000,
        "resources": Resources(cpus=2.0, memory_gb=3.0),
        "receipts": pa.Table.from_pylist(rows, schema=RECEIPTS),
    }
    return StageRun(**(values | changes))


def corpus_with(root: Path, *stages: StageRun) -> Corpus:
    """A corpus that holds these receipts and nothing else."""
    corpus = Corpus(str(root))
    corpus.record(Config(), "analyze", "f" * 16)
    for number, stage in enumerate(stages):
        about = {name: getattr(stage, name) for name in ("run", "stage", "started_s", "updated_s", "outcome")}
        about |= {"tasks": stage.tasks, "input_bytes": stage.input_bytes}
        about["resources"] = {"cpus": 2.0, "gpus": stage.resources.gpus, "memory_gb": 3.0}
        name = file_name(stage.started_s + number, stage.run, stage.stage)
        corpus.storage.write_bytes(f"{FOLDER}/{name}", to_parquet(stage.receipts, about).to_pybytes())
    return corpus


def test_metrics_add_up_to_the_receipts() -> None:
    stages = [stage_run(), stage_run("caption"), stage_run(run="2")]
    values = parsed(exposition(samples(stages, "s3://b/c", BEGUN_S + 30)))
    assert value(values, "framemill_tasks_total", stage="analyze", result="ok") == 4
    assert value(values, "framemill_tasks_total", stage="caption", result="lost") == 1
    assert value(values, "framemill_lost_tasks_total", stage="analyze", reason="access denied") == 2
    assert value(values, "framemill_failed_items_total", stage="caption", reason="damaged") == 2
    assert value(values, "framemill_items_total", stage="analyze", result="ok") == 12
    assert value(values, "framemill_footage_seconds_total", stage="caption") == 5400
    assert value(values, "framemill_retried_tasks_total", stage="caption") == 1
    assert value(values, "framemill_queue_tasks", stage="caption") == 1
    assert value(values, "framemill_queue_bytes", stage="caption") == 1000
    assert value(values, "framemill_stage_busy_ratio", stage="caption") == 0.75
    assert value(values, "framemill_stage_nodes", stage="caption") == 2
    assert value(values, "framemill_stage_wall_seconds_total", stage="analyze") == 40
    assert not [name for name, _ in values if name == "framemill_tokens_total"]  # nobody counted any


def test_every_metric_is_documented_and_a_histogram_is_cumulative() -> None:
    text = exposition(samples([stage_run()], "c", BEGUN_S))
    values = parsed(text)
    counts = [
        value(values, "framemill_task_duration_seconds_bucket", le=str(le) if le % 1 else str(int(le)))
        for le in BOUNDS_S
    ]
    assert counts == sorted(counts)
    assert counts[BOUNDS_S.index(3.0)] == 0
    assert counts[BOUNDS_S.index(10.0)] == 3
    assert value(values, "framemill_task_duration_seconds_bucket", le="+Inf") == 3
    assert value(values, "framemill_task_duration_seconds_count") == 3
    assert value(values, "framemill_task_duration_seconds_sum") == 30
    assert set(re.findall(r"# TYPE (\w+)", text)) <= set(ABOUT)


def test_labels_of_any_text_can_be_read() -> None:
    odd = 'a "quoted" \\ back\nslash {x="1"} Käfer'
    values = parsed(exposition(samples([stage_run(odd)], odd, BEGUN_S)))
    labels = {label for _, of in values for _, label in of}
    assert 'a \\"quoted\\" \\\\ back\\nslash {x=\\"1\\"} Käfer' in labels


def test_a_killed_driver_is_not_running_for_ever() -> None:
    stage = stage_run(outcome="running")
    for later_s, running in ((10.0, 1), (SILENT_S + 30, 0)):
        now_s = stage.updated_s + later_s
        values = parsed(exposition(samples([stage], "c", now_s)))
        assert value(values, "framemill_stage_running") == running
        state = view([stage], now_s)["stages"][0]["state"]
        assert state == ("running" if running else "silent")


def test_no_receipts_are_no_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = corpus_with(tmp_path / "c")
    assert main(["metrics", corpus.root]) == 0
    assert capsys.readouterr().out.strip() == ""
    assert lines(view([], BEGUN_S)) == ["2023-11-14T22:13:20+00:00 no run has left receipts here"]


def test_the_command_prints_them_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = corpus_with(tmp_path / "c", stage_run())
    assert main(["metrics", corpus.root]) == 0
    printed = capsys.readouterr().out
    assert value(parsed(printed), "framemill_rows_total") == 12
    assert main(["metrics", corpus.root, "--textfile", str(tmp_path / "framemill.prom")]) == 0
    assert (tmp_path / "framemill.prom").read_text() == printed
    capsys.readouterr()
    assert main(["metrics", corpus.root, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["framemill_rows_total"][0]["value"] == 12


def test_they_are_served_and_nothing_else_is() -> None:
    answers = iter(["up 1\n"])

    def text() -> str:
        try:
            return next(answers)
        except StopIteration:
            raise StorageError("cannot list s3://b/receipts: access denied") from None

    with server(("127.0.0.1", 0), text) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{serving.server_address[1]}"
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert answer.read() == b"up 1\n"
        for path, code in (("/metrics", 503), ("/", 404), ("/../etc/passwd", 404)):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(url + path)
            assert refused.value.code == code
        serving.shutdown()
    assert (address("9178"), address("0.0.0.0:9178"), address(":1")) == (
        ("127.0.0.1", 9178),
        ("0.0.0.0", 9178),
        ("0.0.0.0", 1),
    )
    for wrong in ("", "x", "1:x", "70000"):
        with pytest.raises(ValueError, match=wrong or "^$"):
            address(wrong)


def test_a_run_is_shown_for_people_and_machines() -> None:
    stages = [stage_run(run="0"), stage_run(), stage_run("caption", outcome="running")]
    seen = view(stages, BEGUN_S + 25)
    first, analyze, caption = lines(seen)
    assert first.endswith("run 1")
    assert analyze == (
        "  analyze: done, 3/4, 0.15/s, 2 workers on 2 nodes, busy 75 %, failed 2 (damaged × 2), ok 6, "
        "lost 1 (access denied × 1), retried 1"
    )
    assert caption.startswith("  caption: running, 0:05 ago, 3/4, 0.15/s, 0:07 to go, ")
    assert json.loads(json.dumps(seen)) == seen


@pytest.mark.parametrize("words", [["--json"], []])
def test_watching_goes_on_until_it_is_stopped(tmp_path: Path, words: list[str]) -> None:
    corpus = corpus_with(tmp_path / "c", stage_run())
    command = [sys.executable, "-m", "framemill", "status", corpus.root, "--watch", "0.1", *words]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as watching:
        assert watching.stdout
        first, second = watching.stdout.readline(), watching.stdout.readline()
        time.sleep(0.3)
        watching.send_signal(signal.SIGINT)
        rest, err = watching.communicate(timeout=60)
        assert watching.returncode == 130
    assert err == "framemill: interrupted\n"
    if words:  # an object an interval, changed or not
        for seen in map(json.loads, (first, second)):
            assert (seen["run"], seen["stages"][0]["done"], seen["status"]["sources"]["total"]) == ("1", 3, 0)
    else:
        assert "analyze: done" in second
        assert rest == ""  # what has not changed is not said again


def test_what_is_counted_while_a_stage_runs_has_the_same_names() -> None:
    """Those that Ray appends `_total` to, with the labels that were announced; lost tasks count no items."""
    receipt = Receipt(
        key="k",
        tries=2,
        counts={"ok": 3, "failed": 1, "salvaged": 0},
        failures={"damaged": 1},
        amounts={"rows": 4, "footage_s": 2.5, "frames": 60, "tokens": 9, "bytes": 100},
    )
    raised = [*increments("analyze", receipt), *increments("analyze", Receipt(key="l", error="lost"))]
    assert {name for name, _, _ in raised} == set(LABELS)
    assert {f"{name}_total" for name in LABELS} | {SECONDS} <= set(ABOUT)
    assert all(tuple(labels) == LABELS[name] for name, labels, _ in raised)
    assert all(amount > 0 for _, _, amount in raised)
    assert [labels["result"] for name, labels, _ in raised if name == "framemill_tasks"] == ["ok", "lost"]
    metric_of = {name.removesuffix("_total"): name for name in ABOUT}
    on_disk = samples([stage_run()], "c", BEGUN_S)
    for name, labels, _ in raised:
        if (of := on_disk.get(metric_of[name])) is not None:
            assert set(labels) == set(of[0].labels) - {"corpus"}
