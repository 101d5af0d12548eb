"""One writer a corpus, on disks and on S3: who is refused, who takes over, who finds out that it was."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.ending import stopping_on_signals
from pipeline.errors import StorageError, UsageError
from pipeline.lease import lease
from pipeline.lease.lease import BEAT_S, PREFIX, RELEASED, STALE_S, Holder, held, take
from pipeline.lease.lease_stores import DiskLeases

FIRST, SECOND = f"{PREFIX}000001", f"{PREFIX}000002"


@pytest.fixture
def store(tmp_path: Path) -> DiskLeases:
    return DiskLeases(tmp_path, PREFIX)


def elsewhere() -> Holder:
    """A holder on another machine."""
    here = Holder.here("run")
    return replace(here, token="other", owner="ann", host="node7", process="another machine 1")


def age(path: Path, seconds: float) -> None:
    os.utime(path, (time.time() - seconds,) * 2)


def test_the_second_is_told_who_and_since_when(store: DiskLeases) -> None:
    assert store.create(FIRST, elsewhere().to_bytes())
    with pytest.raises(UsageError, match=r"ann on node7 \(framemill run, pid \d+, since 20.*go on in \d+ s"):
        take(store, "judge", "x")


def test_one_of_many_at_once_takes_it(store: DiskLeases) -> None:
    ready, outcomes = threading.Barrier(8), []

    def try_it() -> None:
        ready.wait()
        try:
            outcomes.append(take(store, "run", "x"))
        except UsageError:
            return

    for round_ in range(20):
        outcomes.clear()
        threads = [threading.Thread(target=try_it) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(outcomes) == 1, round_
        outcomes[0].release()


def test_a_stale_lease_of_another_machine_is_taken_over_and_its_holder_finds_out(
    store: DiskLeases, tmp_path: Path
) -> None:
    sleeper = lease.Lease(store, elsewhere(), FIRST)
    assert store.create(FIRST, elsewhere().to_bytes())
    assert sleeper.beat()
    age(tmp_path / FIRST, STALE_S - 5)
    with pytest.raises(UsageError):
        take(store, "run", "x")
    age(tmp_path / FIRST, STALE_S + 1)
    heir = take(store, "run", "x")
    assert not sleeper.beat()
    assert "taken over" in sleeper.lost
    sleeper.release()
    assert heir.beat()


def test_a_lease_is_as_old_as_the_disk_says(store: DiskLeases, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock of this machine that is an hour ahead makes nobody's lease stale."""
    assert store.create(FIRST, elsewhere().to_bytes())
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    with pytest.raises(UsageError):
        take(store, "run", "x")


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(store: DiskLeases) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = replace(Holder.here("run"), pid=child.pid, process=lease.process_identity(child.pid))
    assert store.create(FIRST, holder.to_bytes())
    with pytest.raises(UsageError):
        take(store, "run", "x")
    child.kill()
    child.communicate()
    assert take(store, "run", "x").beat()


def test_a_lease_that_is_being_written_is_held(store: DiskLeases, tmp_path: Path) -> None:
    (tmp_path / FIRST).write_bytes(b"")
    with pytest.raises(UsageError):
        take(store, "run", "x")
    (tmp_path / FIRST).write_bytes(RELEASED)
    take(store, "run", "x")
    assert not (tmp_path / FIRST).exists()


def test_a_number_is_never_used_again(store: DiskLeases, tmp_path: Path) -> None:
    for number in range(1, 4):
        take(store, "run", "x").release()
        assert [p.name for p in tmp_path.iterdir()] == [f"{PREFIX}{number:06d}"]


def test_a_writer_whose_lease_is_lost_is_stopped(tmp_path: Path) -> None:
    """Another took over while this one slept: its wait ends at once, in an error that says who."""

    def work() -> None:
        with stopping_on_signals(), held(str(tmp_path), "run", beat_s=0.05):
            assert DiskLeases(tmp_path, PREFIX).create(SECOND, elsewhere().to_bytes())
            time.sleep(20)

    began_s = time.monotonic()
    with pytest.raises(UsageError, match=r"no longer holds .*ann on node7"):
        work()
    assert time.monotonic() - began_s < 10


def test_a_writer_whose_lease_is_lost_records_nothing(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))

    def work() -> None:
        with corpus.writing("run"):
            assert DiskLeases(tmp_path, PREFIX).create(SECOND, elsewhere().to_bytes())
            corpus.record(Config(), "analyze", "f" * 16)

    with pytest.raises(UsageError, match="no longer holds"):
        work()
    assert not (tmp_path / "corpus.toml").exists()


def test_a_lease_is_renewed_and_let_go_of(tmp_path: Path) -> None:
    with held(str(tmp_path), "run", beat_s=0.05):
        age(tmp_path / FIRST, 1000)
        time.sleep(0.5)
        assert time.time() - (tmp_path / FIRST).stat().st_mtime < 100
        assert json.loads((tmp_path / FIRST).read_bytes())["verb"] == "run"
    assert (tmp_path / FIRST).read_bytes() == RELEASED
    assert 3 * BEAT_S < STALE_S  # two beats may fail


def test_an_error_lets_go_of_it_too(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(str(tmp_path), "run"):
        _ = 1 / 0
    assert (tmp_path / FIRST).read_bytes() == RELEASED


def test_readers_are_not_refused_and_do_not_see_it(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    with corpus.writing("run"):
        assert Corpus(str(tmp_path)).storage.find("") == ()
        assert Corpus(str(tmp_path)).sources().num_rows == 0


def test_where_nothing_can_be_written_the_place_is_named() -> None:
    with pytest.raises(StorageError, match="/proc/corpus"), Corpus("/proc/corpus").writing("run"):
        pass


def test_a_killed_run_is_taken_over_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys; from pipeline.corpus.corpus import Corpus\n"
        "with Corpus(sys.argv[1]).writing('run'): print('held', flush=True); input()"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert first.stdout is not None
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(UsageError, match=f"pid {first.pid}"), Corpus(str(tmp_path)).writing("judge"):
        pass
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with Corpus(str(tmp_path)).writing("judge"):
        pass
