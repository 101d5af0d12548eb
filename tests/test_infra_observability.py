"""The board asks for metrics and labels that there are, and for nothing else."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from test_pipeline_operation_metrics import BEGUN_S, parsed, stage_run

from pipeline.operation.metrics import ABOUT, exposition, samples
from pipeline.operation.receipts import AMOUNTS

FOLDER = Path(__file__).resolve().parents[1] / "infra" / "observability"
BOARD: dict[str, Any] = json.loads((FOLDER / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = BOARD["panels"]
QUERIES = [(panel["title"], target) for panel in PANELS for target in panel["targets"]]
FUNCTIONS = {"sum", "by", "rate", "increase", "topk", "time", "histogram_quantile"}
SELECTOR = re.compile(r"(framemill_\w+)(?:\{([^}]*)\})?(\[\w+\])?")


def labels_of() -> dict[str, set[str]]:
    """Metric → the labels that its samples bear, in an exposition of a stage that counts everything."""
    stage = stage_run()
    full = stage.receipts
    for name in AMOUNTS:
        place = full.schema.get_field_index(name)
        full = full.set_column(
            place, full.schema.field(name), full["input_bytes"].cast(full.schema.field(name).type)
        )
    values = parsed(exposition(samples([stage_run(receipts=full)], "c", BEGUN_S)))
    labels: dict[str, set[str]] = {}
    for name, of in values:
        labels.setdefault(name, set()).update(label for label, _ in of)
    return labels


LABELS = labels_of()


def test_the_exposition_here_has_every_metric_that_there_is() -> None:
    assert {
        name.removesuffix("_bucket").removesuffix("_sum").removesuffix("_count") for name in LABELS
    } == set(ABOUT)


@pytest.mark.parametrize(("title", "target"), QUERIES, ids=[f"{t}-{q['refId']}" for t, q in QUERIES])
def test_every_query_asks_for_what_there_is(title: str, target: dict[str, Any]) -> None:
    query = target["expr"]
    selectors = SELECTOR.findall(query)
    assert selectors
    for name, matchers, span in selectors:
        assert name in LABELS, name
        matched = re.findall(r'(\w+)(?:=~|=|!=|!~)"[^"]*"', matchers)
        assert re.sub(r'\w+(?:=~|=|!=|!~)"[^"]*"|[,\s]', "", matchers) == ""
        assert "corpus" in matched
        assert set(matched) <= LABELS[name]
        assert (
            bool(span) == name.endswith(("_total", "_bucket")) or "topk" in query
        )  # counters are read as rates
    borne = set.intersection(*(LABELS[name] for name, _, _ in selectors))
    grouped = {label for group in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", group)}
    assert grouped <= borne
    shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
    assert shown <= (grouped or borne)
    rest = re.sub(r"by \([^)]*\)", "by", SELECTOR.sub("1", query))
    assert set(re.findall(r"[a-z_]+", rest)) <= FUNCTIONS
    assert rest.count("(") == rest.count(")")
    if "_bucket" in query:
        assert "le" in grouped


def test_the_result_that_is_asked_for_is_one_that_is_counted() -> None:
    values = parsed(exposition(samples([stage_run()], "c", BEGUN_S)))
    for title, target in QUERIES:
        for name, matchers, _ in SELECTOR.findall(target["expr"]):
            for label, wanted in re.findall(r'(\w+)="([^"]*)"', matchers):
                of = {dict(labels).get(label) for n, labels in values if n == name}
                assert wanted in of, f"{title}: no {name} with {label}={wanted}"


def test_the_board_is_whole() -> None:
    assert len({panel["id"] for panel in PANELS}) == len(PANELS) >= 12
    assert all(panel["title"] and panel["description"] for panel in PANELS)
    squares = [
        (x, y)
        for panel in PANELS
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(squares)) == len(squares)  # no panel over another
    assert max(x for x, _ in squares) < 24
    variables = {variable["name"]: variable for variable in BOARD["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(BOARD))) - {"__all"}
    assert used == set(variables)
    name, label = re.findall(r"label_values\((\w+), (\w+)\)", variables["corpus"]["definition"])[0]
    assert label in LABELS[name]


def test_prometheus_would_read_its_config() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    (static,) = config["scrape_configs"][0]["static_configs"]
    port = static["targets"][0].partition(":")[2]
    assert f"--serve {port}" in (FOLDER / "README.md").read_text()
    if tool := shutil.which("promtool"):
        command = [tool, "check", "config", "--syntax-only", str(FOLDER / "prometheus.yml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_promtool_finds_nothing_wrong_with_the_exposition() -> None:
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    text = exposition(samples([stage_run(), stage_run("caption")], "c", BEGUN_S))
    command = [tool, "check", "metrics"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
