"""What this user may not read costs itself only: folders are named, a tar is a failed source."""

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.sources.absent import absent_inputs
from pipeline.sources.discover import discover
from pipeline.storage import Storage
from pipeline.uris import local_path

NOBODY = 65534


def as_nobody(work: Callable[[], object]) -> object:
    """What `work` returns in a child that has no rights; JSON. Root may read everything."""
    if os.geteuid():
        return work()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.write(writer, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as answer:
        return json.loads(answer.read() or '"the child raised"')


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for folder in (tmp_path, *tmp_path.parents[:2]):  # pytest's own folders are its user's alone
        folder.chmod(0o755)
    (tmp_path / "raw" / "lost+found").mkdir(parents=True)
    (tmp_path / "raw" / "a.mp4").write_bytes(b"a")
    (tmp_path / "raw" / "lost+found" / "b.mp4").write_bytes(b"b")
    return tmp_path / "raw"


@pytest.mark.parametrize("mode", [0o000, 0o444, 0o311])  # nothing, not entered, not listed
def test_a_folder_that_may_not_be_listed_or_entered_is_left_out_and_named(raw: Path, mode: int) -> None:
    (raw / "lost+found").chmod(mode)

    def work() -> object:
        sources = discover([str(raw)])
        return sources.inputs["uri"].to_pylist(), list(sources.notes)

    uris, notes = as_nobody(work)
    (raw / "lost+found").chmod(0o755)
    assert uris == [f"{raw}/a.mp4"]
    assert [str(raw / "lost+found") in note for note in notes] == [True]


def test_a_walk_that_must_see_everything_stops_there(raw: Path) -> None:
    """A takedown looks for what is left in every table."""
    (raw / "lost+found").chmod(0)

    def work() -> object:
        try:
            return Storage(str(raw)).find(".mp4")
        except StorageError as error:
            return error.what

    what = as_nobody(work)
    (raw / "lost+found").chmod(0o755)
    assert what == f"cannot list {raw}/lost+found: access denied"


def test_a_tar_that_may_not_be_read_is_a_failed_source(raw: Path) -> None:
    with tarfile.open(raw / "x.tar", "w") as tar:
        tar.add(raw / "a.mp4", "a.mp4")
    (raw / "x.tar").chmod(0o200)

    def work() -> object:
        uris = discover([str(raw)]).inputs["uri"].to_pylist()
        try:
            with local_path(f"{raw}/x.tar") as path:
                return str(path)
        except Exception as error:
            return uris, type(error).__name__

    uris, kind = as_nobody(work)
    assert uris == [f"{raw}/a.mp4", f"{raw}/lost+found/b.mp4", f"{raw}/x.tar"]
    assert kind == "MediaError"


def test_sources_in_a_folder_that_was_closed_meanwhile_do_not_leave_the_corpus(raw: Path) -> None:
    before = discover([str(raw)]).inputs
    with pytest.raises(StorageError, match=r"lost\+found, where 1 sources"):
        absent_inputs(before, before.slice(0, 1), closed=[str(raw / "lost+found")])
    assert absent_inputs(before, before.slice(0, 1), closed=[str(raw / "lost")]).num_rows == 1
