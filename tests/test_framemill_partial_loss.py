"""What a fault of the environment takes from one stage takes nothing from what later stages have stored."""

import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from s3_server import BUCKET, FaultyProxy, point_at

from framemill import main
from pipeline import storage
from pipeline.corpus.corpus import Corpus
from pipeline.errors import StorageError
from pipeline.storage import Storage
from pipeline.uris import stat_each


def stored(out: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (out / "latents").rglob("*") if path.is_file()}


def test_latents_of_sources_whose_analysis_was_lost_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, out = tmp_path / "raw", tmp_path / "corpus"
    raw.mkdir()
    for number in range(3):
        Image.effect_noise((96, 64), 40 + 40 * number).convert("RGB").save(raw / f"{number}.png")
    alone = ["--workers", "1"]
    settings = [*alone, "--set", "analyze.sources_per_task=1", "--set", "judge.preset=keep-all"]
    assert main(["run", str(raw), "--out", str(out), *settings]) == 0
    before, corpus = stored(out), Corpus(str(out))
    assert len(corpus.kept()) == 3
    lost = corpus.sources()["source_key"][2:].combine_chunks()
    corpus.edit("sources", lost)  # as after a change of config, and a task that was lost
    assert main(["judge", str(out), *alone]) == 0
    capsys.readouterr()
    assert main(["encode", str(out), *alone]) == 1
    assert "encode would delete the latents of 1 that may be among them" in capsys.readouterr().err
    assert stored(out) == before
    (raw / "2.png").unlink()  # one that left the sources is not asked after
    assert main(["run", str(raw), "--out", str(out), *settings]) == 0
    assert len(corpus.kept()) == 2
    assert stored(out) != before


@pytest.mark.slow
def test_a_listed_source_that_a_store_refuses_to_look_for_is_not_taken_for_missing(
    s3: pytest.MonkeyPatch, server_port: int
) -> None:
    Storage(f"{BUCKET}/looked-for").write_bytes("there.png", b"it")
    uris = [f"{BUCKET}/looked-for/{name}.png" for name in ("there", "missing")] + ["s3://bucket//x", "a\0b"]
    is_there = [True, False, False, False]
    assert [file is not None for file in stat_each(uris)] == is_there
    s3.setattr(storage, "S3_ATTEMPTS", 2)
    for fault in ("403", "expired", "503"):
        storage._s3.cache_clear()
        point_at(s3, FaultyProxy(server_port, 1.0, (fault,)).server_port)
        with pytest.raises(StorageError, match="looked-for"):
            stat_each(uris)
    storage._s3.cache_clear()
    point_at(s3, server_port)
    assert [file is not None for file in stat_each(uris)] == is_there


@pytest.mark.ray
def test_a_ray_head_that_is_not_there_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray = pytest.importorskip("ray")
    ray.shutdown()
    Image.effect_noise((96, 64), 40).convert("RGB").save(tmp_path / "a.png")
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    words = ["analyze", str(tmp_path / "a.png"), "--out", str(tmp_path / "corpus"), "--executor", "ray"]
    assert main(words) == 2
    assert "cannot join the Ray at 127.0.0.1:1" in capsys.readouterr().err


def test_a_second_signal_ends_what_a_first_must_wait_for() -> None:
    code = (
        "import threading; from pipeline.ending import stopping_on_signals, undisturbed\n"
        "def work():\n    print('at work', flush=True)\n    threading.Event().wait()\n"
        "with stopping_on_signals():\n    undisturbed(work)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    try:
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)
        process.terminate()
        assert process.wait(10) == 143
    finally:
        process.kill()
