"""The lease of an s3:// corpus, against a real server (moto's): one writer, by conditional writes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framemill import main
from pipeline.corpus.corpus import Corpus
from pipeline.errors import StorageError, UsageError
from pipeline.lease.lease import PREFIX, STALE_S, Holder, Lease, held, take
from pipeline.lease.lease_stores import S3Leases
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

pytestmark = pytest.mark.slow
FIRST = f"{PREFIX}000001"
SETTINGS = ["--set", "analyze.sources_per_task=1", "--workers", "1"]


class AgedLeases(S3Leases):
    """The same, asked so much later by the store's clock."""

    later_s = 0.0

    def ages_s(self) -> dict[str, float]:
        return {name: age + self.later_s for name, age in super().ages_s().items()}


class HeedlessLeases(S3Leases):
    """A store that does not heed conditions."""

    def _put(self, name: str, data: bytes, **_: str) -> bool:
        return super()._put(name, data)


@pytest.fixture
def root(s3: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    return f"s3://bucket/{request.node.name}/corpus"


def test_only_the_first_takes_it_and_a_stale_one_is_taken_over(root: str) -> None:
    store, later = S3Leases(root, PREFIX), AgedLeases(root, PREFIX)
    first = take(store, "run", root)
    with pytest.raises(UsageError, match=rf"another framemill .*pid {os.getpid()}"):
        take(store, "run", root)
    later.later_s = STALE_S + 1
    heir = take(later, "judge", root)
    assert not first.beat()
    assert "framemill judge" in first.lost
    first.release()
    assert heir.beat()
    heir.release()
    take(store, "run", root).release()
    assert list(store.ages_s()) == [f"{PREFIX}000003"]


def test_an_answer_that_got_lost_is_no_other_holder(root: str) -> None:
    """A retried PUT finds its own object there."""
    store, data = S3Leases(root, PREFIX), Holder.here("run").to_bytes()
    assert store.create(FIRST, data)
    assert store.create(FIRST, data)
    assert not store.create(FIRST, Holder.here("run").to_bytes())


def test_a_store_without_conditions_is_named(root: str, caplog: pytest.LogCaptureFixture) -> None:
    lease = take(HeedlessLeases(root, PREFIX), "run", root)
    assert "does not heed conditional writes" in caplog.text
    other = Holder.here("encode")
    S3Leases(root, PREFIX).renew(FIRST, other.to_bytes())  # who began in the same second
    assert not lease.beat()
    assert Lease(S3Leases(root, PREFIX), other, FIRST).beat()


def test_a_store_that_cannot_be_reached_is_said(s3: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="no-such-bucket"), held("s3://no-such-bucket/corpus", "run"):
        pass


def test_of_two_runs_a_second_apart_one_is_refused_and_the_other_whole(root: str, tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        render_corpus(
            tmp_path / name, ToyWorldConfig(videos=2, images=0, seed=seed, min_shots=1, max_shots=1)
        )

    def start(name: str) -> "subprocess.Popen[str]":
        words = ["analyze", str(tmp_path / name / "videos"), "--out", root, *SETTINGS]
        command = [sys.executable, "-m", "framemill", *words]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    first = start("one")
    deadline_s = time.monotonic() + 60
    while not S3Leases(root, PREFIX).ages_s() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is surely still at work
    try:
        second = start("two")
        _, refused = second.communicate(timeout=60)
        assert main(["status", root]) in (0, 1)  # 1: nothing is there yet; a reader is not refused
    finally:
        os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 2
    assert f"framemill analyze, pid {first.pid}" in refused
    assert len(refused.strip().splitlines()) == 1
    assert first.wait(120) == 0
    uris = Corpus(root).sources()["uri"].to_pylist()
    assert len(uris) == 2
    assert all("/one/" in uri for uri in uris)


def test_a_killed_holder_is_taken_over(root: str, tmp_path: Path) -> None:
    render_corpus(tmp_path, ToyWorldConfig(videos=1, images=0, seed=1, min_shots=1, max_shots=1))
    words = ["analyze", str(tmp_path / "videos"), "--out", root, *SETTINGS]
    first = subprocess.Popen([sys.executable, "-m", "framemill", *words], stderr=subprocess.DEVNULL)
    while not S3Leases(root, PREFIX).ages_s():
        time.sleep(0.05)
    first.kill()
    first.wait()
    assert main(words) == 0
    assert Storage(root).exists("corpus.toml")
