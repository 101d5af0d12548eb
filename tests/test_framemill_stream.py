"""Captions ahead of the verdict: they begin before the analysis ends, and change no byte of what is left."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from captioner.ahead import Ahead, passing, rules_alone, take_over
from framemill import main
from pipeline.config import load_config
from pipeline.corpus.corpus import AHEAD_FOLDER, Corpus
from pipeline.corpus.garbage import KILLED, collect
from pipeline.corpus.ids import source_of
from pipeline.corpus.takedown import take_down, traces
from pipeline.engine.pool import PoolExecutor
from pipeline.operation.receipts import Receipts, StageRun
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

RULE = "judge.rules.signals.motion.min_percentile=25"  # which no clip alone can break
SETTINGS = ["analyze.sources_per_task=1", "caption.clips_per_task=1", "encode.clips_per_task=8", RULE]
COPIES = 30


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Toy videos and images; a copy, copies of other bytes, whose footage the truth does not name, so many
    that the analysis is not over when a captioner has started; and a file that is none."""
    folder = tmp_path_factory.mktemp("raw")
    render_corpus(folder, ToyWorldConfig(videos=12, images=2, seed=11, min_shots=1, max_shots=3))
    video = (folder / "videos" / "v000003.mp4").read_bytes()
    (folder / "copy.mp4").write_bytes(video)
    for number in range(COPIES):
        (folder / f"z{number:02d}.mp4").write_bytes(video + struct.pack(">I4sI", 12, b"free", number))
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    return folder


def words(raw: Path, out: Path, *more: str) -> list[str]:
    given = [word for setting in SETTINGS for word in ("--set", setting)]
    truth = f"truth:{raw / 'truth.jsonl'}"
    return ["run", str(raw), "--out", str(out), "--captioner", truth, "--max-failed", "0.5", *given, *more]


@pytest.fixture(scope="module")
def in_turn(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose clips were captioned when all were judged."""
    out = tmp_path_factory.mktemp("in_turn") / "corpus"
    assert main(words(raw, out, "--workers", "1")) == 0
    return out


@pytest.fixture(scope="module")
def analyzed(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a run leaves that is killed when all is analyzed."""
    out = tmp_path_factory.mktemp("analyzed") / "corpus"
    corpus, executor = Corpus(str(out)), PoolExecutor(2)
    config = load_config(None, [*SETTINGS, f"caption.captioner=truth:{raw / 'truth.jsonl'}"])
    with corpus.writing():
        beside = Ahead(corpus, config, executor, silent).beside
        analyze_corpus(corpus, discover([str(raw)]).inputs, config, executor, silent, beside=beside)
    assert corpus.storage.list(AHEAD_FOLDER)
    return out


def copy_of(corpus: Path, folder: Path) -> Path:
    return Path(shutil.copytree(corpus, folder / "corpus"))


def tables_and_shards(corpus: Path) -> dict[str, bytes]:
    """What two equal runs have in common: every file but those that hold clocks or paths."""
    files = (p for p in sorted(corpus.rglob("*")) if p.is_file() and not p.name.startswith("."))
    named = {str(p.relative_to(corpus)): p.read_bytes() for p in files}
    return {name: data for name, data in named.items() if not name.startswith(("report/", "receipts/"))}


def result_of(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return result


def ends_s(corpus: Path, stage: str) -> list[float]:
    """When the tasks of a stage ended, by the clocks of their workers."""
    runs: list[StageRun] = [r for r in Receipts(Corpus(str(corpus)).storage).read() if r.stage == stage]
    return [row["started_s"] + row["seconds"] for r in runs for row in r.receipts.to_pylist()]


def assert_streamed(corpus: Path, in_turn: Path, result: dict[str, Any]) -> None:
    assert tables_and_shards(corpus) == tables_and_shards(in_turn)
    assert min(ends_s(corpus, "ahead")) < max(ends_s(corpus, "analyze"))
    stages = {row["stage"]: row for row in result["stages"]}
    assert list(stages) == ["ahead", "analyze", "judge", "latents", "caption", "encode", "report"]
    count = result["ahead"]
    assert count["captioned"] == stages["ahead"]["ok"] > 0
    captions = Corpus(str(in_turn)).captions("truth")
    ok = pc.sum(pc.equal(captions["status"], "ok")).as_py()
    assert count["captioned"] - count["lost"] + stages["caption"]["ok"] == ok
    assert stages["caption"]["ok"] < ok


def test_captions_begin_before_the_analysis_ends_and_the_bytes_are_the_same(
    raw: Path, in_turn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpus"
    again = words(raw, out, "--workers", "2", "--stream", "--json")
    assert main(again) == 0
    assert_streamed(out, in_turn, result_of(capsys))
    assert main(again) == 0
    result = result_of(capsys)
    assert result["ahead"] == {"captioned": 0, "lost": 0}
    assert {row["stage"]: row["tasks"] for row in result["stages"]}["caption"] == 0
    assert tables_and_shards(out) == tables_and_shards(in_turn)


@pytest.mark.ray
@pytest.mark.slow
def test_so_it_is_on_ray(
    raw: Path, in_turn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "corpus"
    assert main(words(raw, out, "--workers", "2", "--executor", "ray", "--stream", "--json")) == 0
    assert_streamed(out, in_turn, result_of(capsys))


def test_one_worker_alone_captions_what_is_kept_and_says_so(
    raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    shutil.copy(raw / "images" / "i000000.png", image)
    out = tmp_path / "corpus"
    truth = f"truth:{raw / 'truth.jsonl'}"
    assert (
        main(["run", str(image), "--out", str(out), "--captioner", truth, "--workers", "1", "--stream"]) == 0
    )
    said = capsys.readouterr()
    assert "--stream: one worker alone" in said.err
    assert "captioned ahead: 0, of them lost: 0" in said.out
    assert not (out / "ahead").exists()


@pytest.mark.slow
@pytest.mark.parametrize("then", [["--stream"], []], ids=["streaming again", "without"])
@pytest.mark.endurance
def test_a_killed_run_goes_on_to_the_same_bytes(
    raw: Path, in_turn: Path, tmp_path: Path, then: list[str]
) -> None:
    out = tmp_path / "corpus"
    command = [sys.executable, "-m", "framemill", *words(raw, out, "--workers", "2", "--stream")]
    run = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    while run.poll() is None and not list(out.glob("ahead/*.parquet")):
        time.sleep(0.01)
    assert run.poll() is None
    os.killpg(run.pid, signal.SIGKILL)
    run.wait()
    assert list(out.glob("ahead/*.parquet"))
    assert main(words(raw, out, "--workers", "2", *then)) == 0
    assert tables_and_shards(out) == tables_and_shards(in_turn)


def test_what_is_taken_over_twice_is_there_once(
    raw: Path, in_turn: Path, analyzed: Path, tmp_path: Path
) -> None:
    """A run may be killed between the rows of the table and the deletion of what they were made of."""
    out = copy_of(analyzed, tmp_path)
    assert main(["judge", str(out), "--workers", "1", "--max-failed", "0.5"]) == 0
    corpus = Corpus(str(out))
    taken = take_over(corpus, corpus.config())
    assert taken.captioned > taken.lost > 0
    assert not corpus.storage.list(AHEAD_FOLDER)
    shutil.copytree(analyzed / "ahead", out / "ahead", dirs_exist_ok=True)
    assert main(words(raw, out, "--workers", "1")) == 0
    assert tables_and_shards(out) == tables_and_shards(in_turn)


def test_other_settings_take_nothing_over(raw: Path, analyzed: Path, tmp_path: Path) -> None:
    out = copy_of(analyzed, tmp_path)
    with Corpus(str(out)).writing():
        corpus = Corpus(str(out))
        config = load_config(None, ["caption.max_tokens=7"], corpus.config())
        assert take_over(corpus, config).captioned == 0
        assert not corpus.storage.list(AHEAD_FOLDER)
        assert not corpus.storage.list("captions/truth")


def test_nothing_of_a_source_that_was_taken_down_stays(analyzed: Path, tmp_path: Path) -> None:
    corpus = Corpus(str(copy_of(analyzed, tmp_path)))
    part = corpus.storage.list(AHEAD_FOLDER)[0]
    clip_id = corpus.storage.read_columns(f"{AHEAD_FOLDER}/{part}", ["clip_id"])["clip_id"][0].as_py()
    with corpus.writing():
        left = take_down(corpus, [source_of(clip_id)])
    assert f"{AHEAD_FOLDER}/{part}" in left.tables
    assert traces(corpus, [source_of(clip_id)], open_all=True).gone


def test_garbage_collection_knows_what_a_killed_run_left(analyzed: Path, tmp_path: Path) -> None:
    corpus = Corpus(str(copy_of(analyzed, tmp_path)))
    left = len(corpus.storage.list(AHEAD_FOLDER))
    with corpus.writing():
        assert {row.what: row.files for row in collect(corpus)}[KILLED] == left
    assert not corpus.storage.list(AHEAD_FOLDER)


def test_every_kept_clip_passes_the_rules_that_it_can_break_alone(analyzed: Path) -> None:
    corpus = Corpus(str(analyzed))
    config = load_config(None, ["judge.rules.signals.sharpness.min=0.2"], corpus.config())
    clips = corpus.clips()
    kept = judge(clips, config.judge).judged["status"].to_numpy(zero_copy_only=False) == "kept"
    alone = passing(clips, rules_alone(config))
    assert (alone | ~kept).all()
    assert kept.sum() < alone.sum() < clips.num_rows
