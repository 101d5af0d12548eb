"""What is not the item's fault leaves no row: a store that refuses, a full disk. The same command goes on."""

import errno
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from s3_server import BUCKET, FaultyProxy, point_at

from framemill import main
from pipeline import storage
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import FAULTS_IN_A_ROW
from pipeline.engine.stage import Failure, guard
from pipeline.errors import MediaError, StorageError
from pipeline.storage import Storage
from pipeline.uris import local_path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = 12
ONE_EACH = ["--set", "analyze.sources_per_task=1", "--workers", "1"]
s3_test = pytest.mark.slow


class Gate(FaultyProxy):
    """Lets the first few objects of a folder through, and whatever else; refuses the others."""

    def __init__(self, server_port: int, fault: str, folder: str, passed: int) -> None:
        super().__init__(server_port, 1.0, (fault,))
        self.folder, self.passed = folder, passed
        self.names: list[str] = []

    def next_fault(self, path: str) -> str:
        if not path.startswith(f"/bucket/{self.folder}/") or ("?" in path and "list-type" in path):
            return "none"
        with self.lock:
            if path not in self.names:
                self.names.append(path)
            return self.faults[0] if self.names.index(path) >= self.passed else "none"


def pictures(folder: Path, count: int = SOURCES) -> Path:
    folder.mkdir()
    for n in range(count):
        Image.effect_noise((96, 64), 20 + 10 * n).convert("RGB").save(folder / f"p{n:02}.png")
    return folder


def upload(folder: Path, name: str) -> str:
    bucket = Storage(f"{BUCKET}/{name}")
    for path in folder.iterdir():
        bucket.write_bytes(path.name, path.read_bytes())
    return f"{BUCKET}/{name}/"


def statuses(out: Path | str) -> list[str]:
    return Corpus(str(out)).sources()["status"].to_pylist()


@s3_test
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("403", "access denied"),
        ("503", "2 attempts failed"),
        ("expired", r"the credentials have expired \(ExpiredToken\); fix: get new"),
        (
            "skewed",
            r"clock is wrong, 3[56]\d\d s ahead of the store's \(RequestTimeTooSkewed\); fix: set the cl",
        ),
    ],
)
def test_a_store_that_refuses_from_the_fourth_source_on_fails_no_source(
    fault: str,
    cause: str,
    s3: pytest.MonkeyPatch,
    server_port: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    s3.setattr(storage, "S3_ATTEMPTS", 2)
    storage._s3.cache_clear()
    source, out = upload(pictures(tmp_path / "raw"), f"of-{fault}"), tmp_path / "corpus"
    words = ["analyze", source, "--out", str(out), *ONE_EACH]
    gate = Gate(server_port, fault, f"of-{fault}", passed=3)
    point_at(s3, gate.server_port)
    assert main(words) == 1
    said = capsys.readouterr()
    assert statuses(out) == ["ok"] * 3
    assert f"lost {SOURCES - 3}, ok 3" in said.err
    assert "the stage analyze was stopped: 5 tasks in a row" in said.err
    assert "run the same command again: it does the 9 open tasks" in said.err
    assert said.err.count("lost task: analyze") == SOURCES - 3
    assert said.err.count("not tried: the stage was stopped") == SOURCES - 3 - FAULTS_IN_A_ROW
    assert re.search(cause, said.err), said.err
    assert len(gate.names) == 3 + FAULTS_IN_A_ROW
    point_at(s3, server_port)
    storage._s3.cache_clear()
    assert main(words) == 0
    assert statuses(out) == ["ok"] * SOURCES


@s3_test
def test_a_missing_object_is_a_failed_row_and_a_refused_one_is_not(
    s3: pytest.MonkeyPatch, server_port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upload(pictures(tmp_path / "raw", 2), "missing")
    Storage(f"{BUCKET}/lists").write_bytes(
        "l.txt", f"{BUCKET}/missing/p00.png\n{BUCKET}/missing/no.png".encode()
    )
    out = tmp_path / "corpus"
    words = ["analyze", f"{BUCKET}/lists/l.txt", "--out", str(out), *ONE_EACH, "--max-failed", "50%"]
    assert main(words) == 0
    assert sorted(statuses(out)) == ["failed", "ok"]
    assert "no such file" in Corpus(str(out)).sources()["reason"].to_pylist()


def test_what_says_nothing_of_the_item_passes_through_the_guard_by_its_code() -> None:
    def raising(error: BaseException) -> Callable[[], None]:
        def work() -> None:
            raise error

        return work

    for code in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EIO,
        errno.ESTALE,
        errno.EROFS,
        errno.ENOMEM,
        errno.EMFILE,
    ):
        with pytest.raises(StorageError, match="run the command again"):
            guard(raising(OSError(code, "it")))
    for error in (TimeoutError("it"), ConnectionResetError("it"), StorageError("it")):
        with pytest.raises(StorageError, match="it"):
            guard(raising(error))
    for code in (errno.ENOENT, errno.EACCES, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL):
        assert isinstance(guard(raising(OSError(code, "it"))), Failure)


@pytest.mark.parametrize("source", ["gone.png", "x" * 300 + ".png", "folder", "no.tar#p.png", "cut.tar"])
def test_a_source_that_cannot_be_opened_is_the_items_fault(source: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "cut.tar").write_bytes(b"no tar")
    with pytest.raises(MediaError), local_path(str(tmp_path / source)):
        pass


def in_own_mounts(script: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a script of sh where its mounts are seen by itself only."""
    if (
        not shutil.which("unshare")
        or subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode
    ):
        pytest.skip("needs unshare -m, as root")
    command = ["unshare", "-m", "sh", "-c", script, "sh", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


@pytest.mark.slow
def test_a_full_disk_loses_tasks_and_fails_no_source(tmp_path: Path) -> None:
    raw, out, kept = pictures(tmp_path / "raw", 8), tmp_path / "corpus", tmp_path / "kept"
    out.mkdir()
    script = (
        'mount -t tmpfs -o size=120k tmpfs "$1" && shift && "$@"; code=$?; cp -r "$0" "$KEPT"; exit $code'
    )
    script = script.replace("$0", str(out)).replace("$KEPT", str(kept))
    words = [sys.executable, "-m", "framemill", "run", str(raw), "--out", str(out), *ONE_EACH]
    done = in_own_mounts(script, str(out), *words)
    assert done.returncode == 1
    assert "lost task: analyze" in done.stderr
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "failed" not in statuses(kept)
    shutil.rmtree(out)
    shutil.copytree(kept, out)
    assert main(["analyze", str(raw), "--out", str(out), *ONE_EACH]) == 0
    assert statuses(out) == ["ok"] * 8
