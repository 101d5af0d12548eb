"""The whole data side through the command line: resume, re-judge, re-caption, executors, kills."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from captioner.recaption import RecaptionStage, caption_tasks
from framemill import main
from pipeline.config import AnalyzeConfig, CaptionConfig, EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import ShardReader
from pipeline.engine.stage import Stage, Task
from pipeline.stages.analyze import AnalyzeStage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.encode import EncodeStage
from tokenizer_stage.sharding import KeptClips, plan_pieces
from tokenizer_stage.vae.names import load_vae

SMALL = ["--set", "analyze.sources_per_task=2", "--set", "caption.clips_per_task=4"]
SHARDS = ["--set", "encode.clips_per_task=4"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four short toy videos, two images, a broken file and an exact copy."""
    folder = tmp_path_factory.mktemp("raw")
    config = ToyWorldConfig(videos=4, images=2, seed=5, min_shots=1, max_shots=3, duplicate_share=0.0)
    render_corpus(folder, config)
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    (folder / "copy.mp4").write_bytes((folder / "videos" / "v000000.mp4").read_bytes())
    return folder


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus made by one undisturbed local run."""
    out = tmp_path_factory.mktemp("done") / "corpus"
    assert run(raw, out) == 0
    return out


def run(raw: Path, out: Path, *more: str) -> int:
    words = ["run", str(raw), "--out", str(out), "--max-failed", "0.5", *SMALL, *SHARDS, *more]
    return main(words)


def stages(capsys: pytest.CaptureFixture[str]) -> dict[str, int]:
    """Stage → tasks run, from the JSON object that the last command printed."""
    result = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return {row["stage"]: row["tasks"] for row in result["stages"]}


def contents(corpus: Path) -> dict[str, bytes]:
    """Every file of a corpus but hidden ones and receipts."""
    files = (p for p in sorted(corpus.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(corpus)): p.read_bytes() for p in files if p.parent.name != "receipts"}


@contextmanager
def undecodable(raw: Path) -> Iterator[None]:
    """Inside, the sources cannot be opened: whoever decodes fails."""
    moved = raw.with_name("moved-away")
    raw.rename(moved)
    try:
        yield
    finally:
        moved.rename(raw)


@contextmanager
def garbage(*files: Path) -> Iterator[None]:
    """Inside, these files are garbage; their sizes and times are those they had."""
    known = [(path, path.read_bytes(), path.stat()) for path in files]
    for path, data, stat in known:
        path.write_bytes(bytes(len(data)))
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    try:
        yield
    finally:
        for path, data, stat in known:
            path.write_bytes(data)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_totals_add_up(done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", str(done), "--json"]) == 0
    counts = json.loads(capsys.readouterr().out)
    sources, clips = counts["sources"], counts["clips"]
    assert sources["total"] == 8 == sum(sources["status"].values()) + sources["pending"]
    assert sources["status"] == {"failed": 1, "ok": 7}
    assert len(sources["reasons"]) == 1
    assert sources["copies"] == 1
    assert clips["total"] == sum(clips["status"].values()) + clips["pending"]
    kept = clips["status"]["kept"]
    assert counts["captions"]["builtin"]["total"] == kept
    assert counts["latents"]["default"]["samples"] == kept


def test_the_same_command_again_runs_nothing(
    raw: Path, done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(done)
    assert run(raw, done, "--json") == 0
    ran = stages(capsys)
    assert {k: v for k, v in ran.items() if k != "report"} == {
        "analyze": 0,
        "judge": 0,
        "caption": 0,
        "encode": 0,
    }
    assert contents(done) == before


def test_two_runs_give_the_same_bytes(raw: Path, done: Path, tmp_path: Path) -> None:
    assert run(raw, tmp_path / "again" / "corpus") == 0
    assert contents(tmp_path / "again" / "corpus") == contents(done)


@pytest.mark.ray
@pytest.mark.slow
def test_ray_gives_the_same_bytes(raw: Path, done: Path, tmp_path: Path) -> None:
    assert run(raw, tmp_path / "ray" / "corpus", "--executor", "ray") == 0
    assert contents(tmp_path / "ray" / "corpus") == contents(done)


def test_a_changed_threshold_decodes_nothing_to_judge(
    raw: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = copy_of(done, tmp_path)
    with undecodable(raw):
        assert main(["judge", str(corpus), "--set", "judge.min_s=2.5", "--max-failed", "0.5", "--json"]) == 0
    assert stages(capsys) == {"judge": 1}
    reasons = Corpus(str(corpus)).judged()["reasons"].to_pylist()
    assert sum(bool(r) for r in reasons) > sum(
        bool(r) for r in Corpus(str(done)).judged()["reasons"].to_pylist()
    )


def test_another_captioner_neither_decodes_nor_encodes(
    raw: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = copy_of(done, tmp_path)
    truth = f"truth:{raw / 'truth.jsonl'}"
    assert run(raw, corpus, "--captioner", truth, "--json") == 0
    ran = stages(capsys)
    assert ran["analyze"] == 0
    assert ran["encode"] == 0
    assert ran["caption"] > 0
    assert {"builtin", "truth"} <= {p.name for p in (corpus / "captions").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("after_s", [2.0, 6.0, 9.0])
def test_a_killed_driver_leaves_nothing_half_written(
    raw: Path, done: Path, tmp_path: Path, after_s: float
) -> None:
    out = tmp_path / "corpus"
    words = ["run", str(raw), "--out", str(out), "--max-failed", "0.5", *SMALL, *SHARDS]
    driver = subprocess.Popen([sys.executable, "-m", "framemill", *words], start_new_session=True)
    time.sleep(after_s)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    complete = contents(done)
    for name, data in contents(out).items():  # what bears a final name is whole
        if name.endswith((".parquet", ".tar")) and name in complete:
            assert data == complete[name], name
    assert run(raw, out) == 0
    assert contents(out) == complete


def latents(corpus: Path) -> dict[str, bytes]:
    """Clip id → its latent, of the set that the index tells of."""
    reader = ShardReader(str(corpus / "latents" / "default"))
    return {row["clip_id"]: reader.read_latent(row).tobytes() for row in reader.rows()}


def test_ten_lines_of_webdataset_read_the_shards(done: Path) -> None:
    import webdataset

    folder = done / "latents" / "default"
    said = {row["latent_key"]: row for row in pq.read_table(folder / "captions.parquet").to_pylist()}
    shards = sorted(str(p) for p in folder.glob("*.tar"))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    kept = [r for r in Corpus(str(done)).judged().to_pylist() if r["status"] == "kept"]
    assert sorted(s["json"]["clip_id"] for s in samples) == [r["clip_id"] for r in kept]
    for found in samples:
        latent, facts = found["latent.npy"], found["json"]
        assert latent.dtype == np.float16
        assert list(latent.shape) == facts["latent_shape"]
        assert said[facts["latent_key"]]["clip_id"] == facts["clip_id"]
        assert said[facts["latent_key"]]["detailed"]


def test_every_table_reads_with_plain_parquet(done: Path) -> None:
    parts = list(done.rglob("*.parquet"))
    assert {p.parent.name for p in parts} >= {"sources", "clips", "strips", "builtin", "default"}
    for part in parts:
        assert pq.read_table(part).num_rows >= 0


def test_a_row_that_killed_its_worker_is_a_failed_row(done: Path) -> None:
    corpus = Corpus(str(done))
    analyzed = AnalyzeStage(AnalyzeConfig())
    captioned = RecaptionStage(corpus.root, CaptionConfig())
    vae, clips = load_vae("builtin:").weights_sha256, KeptClips.of(corpus)
    encoded = EncodeStage(config=EncodeConfig(), vae_sha256=vae)
    tasks: list[tuple[Stage, Task]] = [
        (analyzed, Task(key="k", inputs=corpus.inputs()[:2])),
        (captioned, caption_tasks(corpus, "none", "f" * 16, 4)[0]),
        (encoded, plan_pieces(clips, clips.keys("f" * 16), np.arange(8), per_task=64, latent_bytes=1)[0]),
    ]
    for stage, task in tasks:
        stage.setup()
        result = stage.process(replace(task, poisoned=frozenset({0})))
        rows = pq.read_table(pa.BufferReader(result.outputs[-1].data)).to_pylist()
        assert [row["reason"] for row in rows if row["status"] == "failed"] == ["killed its worker"]
        assert len(rows) == task.inputs.num_rows > 1
        assert result.counts["failed"] == 1


def test_only_what_failed_is_decoded_again(
    raw: Path, done: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, video = tmp_path / "corpus", raw / "videos" / "v000001.mp4"
    others = [raw / "videos" / "v000002.mp4", raw / "videos" / "v000003.mp4"]
    with garbage(video):
        assert run(raw, out) == 0
    assert run(raw, out, "--json") == 0
    assert stages(capsys)["analyze"] == 0
    with garbage(*others):
        words = [
            "analyze",
            str(raw),
            "--out",
            str(out),
            "--max-failed",
            "1",
            "--retry-failed",
            *SMALL,
            "--json",
        ]
        assert main([*words, "--json"]) == 0
        assert stages(capsys) == {"analyze": 2}  # v000001 and broken.mp4, each where it stands among all
    assert run(raw, out) == 0
    again, undisturbed = Corpus(str(out)), Corpus(str(done))
    assert again.sources().equals(undisturbed.sources())
    assert again.clips().equals(undisturbed.clips())
    assert again.strips().equals(undisturbed.strips())
    assert latents(out) == latents(done)


def test_what_failed_is_tried_again_into_a_tar_of_its_own(raw: Path, done: Path, tmp_path: Path) -> None:
    videos = sorted((raw / "videos").glob("*.mp4"))
    corpus = copy_of(done, tmp_path)
    wanted = latents(corpus)
    shutil.rmtree(corpus / "latents")
    with garbage(videos[2]):
        assert main(["encode", str(corpus), "--max-failed", "0.5"]) == 0
    first = {path.name: path.read_bytes() for path in (corpus / "latents").rglob("*.tar")}
    assert latents(corpus).items() < wanted.items()
    with garbage(videos[1], videos[3]):
        assert main(["encode", str(corpus), "--max-failed", "0.5", "--retry-failed"]) == 0
    assert latents(corpus) == wanted
    assert (
        first.items() < {path.name: path.read_bytes() for path in (corpus / "latents").rglob("*.tar")}.items()
    )


def test_the_exit_code_follows_the_limit(raw: Path, done: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for limit, code in (("1", 0), ("0", 1), ("13%", 0), ("12%", 1), ("0.2", 0)):  # 1 of 8 sources failed
        assert main(["judge", str(done), "--max-failed", limit]) == code
    assert "1 of 8 sources failed, above --max-failed 12%" in capsys.readouterr().err


def copy_of(corpus: Path, into: Path) -> Path:
    for name, data in contents(corpus).items():
        target = into / "corpus" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return into / "corpus"
