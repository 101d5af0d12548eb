"""A run with fewer sources than before says so, and keeps them where it is asked to."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from pipeline.sources.absent import absent_inputs, absent_line, with_absent


def inputs(**keys: str) -> pa.Table:
    rows = [{"source_key": key, "uri": uri, "size_bytes": 1, "mtime_ns": 1} for uri, key in keys.items()]
    return tables.from_rows(rows, tables.INPUTS)


def test_absent_is_what_is_not_asked_for_and_nothing_else() -> None:
    before = inputs(a="1", b="2", c="3", d="4")
    now = inputs(a="1", b="changed", e="5")
    absent = absent_inputs(before, now, taken_down=["3"])
    assert absent["uri"].to_pylist() == ["d"]
    assert "1 of 4 sources" in absent_line(absent, 4, keep=False)
    assert absent_line(absent_inputs(before, before), 4, keep=False) == ""
    assert absent_inputs(inputs(), now).num_rows == 0
    kept = with_absent(now, absent)
    assert kept["source_key"].to_pylist() == ["1", "changed", "4", "5"]
    assert kept.schema == tables.INPUTS


def framemill(*words: str) -> tuple[dict[str, Any], str]:
    command = [sys.executable, "-m", "framemill", *words, "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout), ended.stderr


def test_a_run_over_fewer_sources_names_them_before_they_leave(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    for name in "abcdef":
        (tmp_path / name).mkdir()
        Image.fromarray(draw.integers(0, 255, (64, 96, 3), np.uint8)).save(tmp_path / name / "x.png")
    folders, out = [str(tmp_path / name) for name in "abcdef"], str(tmp_path / "corpus")
    analyze = ("--out", out, "--workers", "1")
    result, words = framemill("analyze", *folders, *analyze)
    assert result["absent"]["sources"] == 0
    assert "not asked for" not in words

    expected, _ = framemill("plan", *folders[:2], "--out", out)
    assert expected["absent"] == {"sources": 4, "first": [f"{f}/x.png" for f in folders[2:]], "kept": False}

    result, words = framemill("analyze", *folders[:2], *analyze, "--keep-absent")
    assert result["absent"] == {**expected["absent"], "kept": True}
    assert result["status"]["sources"]["status"] == {"ok": 6}
    assert "4 of 6 sources of the last run are not asked for now" in words
    assert Corpus(out).clips().num_rows == 6

    before = Corpus(out).storage.read_bytes(INPUTS_PATH)
    framemill("analyze", *folders, *analyze)
    assert Corpus(out).storage.read_bytes(INPUTS_PATH) == before  # kept rows are the rows as they were

    result, words = framemill("analyze", *folders[:2], *analyze)
    assert result["absent"] == expected["absent"]
    assert f"{folders[2]}/x.png" in words
    assert "--keep-absent" in words
    assert Corpus(out).clips().num_rows == 2

    framemill("takedown", out, f"{folders[1]}/x.png")
    result, _ = framemill("analyze", folders[0], *analyze)
    assert result["absent"]["sources"] == 0
