"""Storage: what is written is read back; nothing partial ever bears a final name."""

import os
import pickle
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import Storage, commit, commit_bytes
from pipeline.uris import local_path, stat


def test_round_trip_and_ranges(tmp_path: Path) -> None:
    storage = pickle.loads(pickle.dumps(Storage(str(tmp_path))))
    storage.write_bytes("a/b.bin", b"0123456789")
    assert storage.read_bytes("a/b.bin") == b"0123456789"
    assert storage.read_bytes("a/b.bin", offset=3, nbytes=4) == b"3456"
    assert storage.list("a", ".bin") == ["b.bin"]
    assert storage.list("missing") == []
    storage.delete("a/b.bin")
    assert not storage.exists("a/b.bin")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("x", b"old")

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    with pytest.raises(StorageError, match="No space left"):
        storage.write_bytes("x", b"new")
    assert storage.read_bytes("x") == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_a_file_that_a_library_writes_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "x.bin"
    with commit(target) as temporary:
        temporary.write_bytes(b"whole")
        assert not target.exists()
        assert temporary.parent == target.parent  # a rename never crosses file systems
    assert target.read_bytes() == b"whole"

    with pytest.raises(ZeroDivisionError), commit(target) as temporary:
        temporary.write_bytes(bytes([1 // 0]))
    assert target.read_bytes() == b"whole"
    assert [p.name for p in target.parent.iterdir()] == ["x.bin"]


def test_two_writers_of_one_file_do_not_share_their_temporary(tmp_path: Path) -> None:
    with commit(tmp_path / "x") as first, commit(tmp_path / "x") as second:
        first.write_bytes(b"first")
        second.write_bytes(b"second")
    assert (tmp_path / "x").read_bytes() == b"first"  # the last to end


def test_what_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*below"):
        commit_bytes(tmp_path / "file" / "below", b"1")
    with pytest.raises(StorageError, match="no such file"), commit(tmp_path / "never written"):
        pass


def test_what_a_killed_writer_left_is_invisible_and_swept(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    (tmp_path / ".tmp-1234-x").write_bytes(b"half")
    assert storage.list() == []
    assert list(storage.walk()) == []
    assert storage.sweep_temporary() == 1
    assert list(tmp_path.iterdir()) == []


def test_missing_file_names_itself(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"nothing\.bin"):
        Storage(str(tmp_path)).read_bytes("nothing.bin")
    assert stat(str(tmp_path / "nothing.bin")) is None


def test_local_files_are_used_in_place(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    with local_path(str(tmp_path / "x")) as path:
        assert path == tmp_path / "x"
