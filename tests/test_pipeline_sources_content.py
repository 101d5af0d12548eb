"""A file is named by its content: no size and no time hides a change, nor does a read that has begun."""

import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import MediaError
from pipeline.sources.content import CHANGING, OTHER_CONTENT, content_id, open_content, sizes_bytes
from pipeline.uris import NO_FILE

HOUR_NS = 3600 * 10**9


def id_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"a" * 1000)
    return path


def read(uri: str | Path, expected_id: str = "") -> bytes:
    with open_content(str(uri), expected_id) as (path, source_id):
        data = path.read_bytes()
        assert source_id == id_of(data)
        return data


def test_the_id_is_of_the_content_wherever_it_lies(file: Path) -> None:
    assert content_id(file) == id_of(b"a" * 1000)
    assert read(file.rename(file.with_name("moved.mkv")), id_of(b"a" * 1000)) == b"a" * 1000


def test_equal_size_and_time_hide_no_change(file: Path) -> None:
    before, state = content_id(file), file.stat()
    for change in range(20):  # in place, as fast as it goes: a clock tick may hold several
        file.write_bytes(bytes([change]) * 1000)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        assert content_id(file) == id_of(bytes([change]) * 1000)
    with pytest.raises(MediaError, match=OTHER_CONTENT):
        read(file, before)


def test_a_touched_file_is_the_same(file: Path) -> None:
    before = content_id(file)
    os.utime(file, ns=(0, file.stat().st_mtime_ns - HOUR_NS))
    assert read(file, before) == b"a" * 1000


@pytest.mark.parametrize("change", ["grown", "truncated", "replaced", "removed"])
def test_a_change_while_it_is_read_is_an_error(file: Path, change: str) -> None:
    other = file.with_name("other")
    other.write_bytes(b"b" * 1000)
    shutil.copystat(file, other)

    def disturb() -> None:
        if change == "grown":
            with file.open("ab") as stream:
                stream.write(b"a")
        elif change == "truncated":
            os.truncate(file, 999)
        elif change == "replaced":
            other.replace(file)
        else:
            file.unlink()

    with (
        pytest.raises(MediaError, match=NO_FILE if change == "removed" else CHANGING),
        open_content(str(file)),
    ):
        disturb()


def test_a_touch_while_it_is_read_is_none(file: Path) -> None:
    with open_content(str(file)) as (path, _):
        path.touch()


def test_no_file_is_the_items_fault(tmp_path: Path) -> None:
    for uri in (tmp_path / "none.mp4", f"{tmp_path}/none.tar#v.mp4"):
        with pytest.raises(MediaError, match=NO_FILE):
            read(uri)


def write_tar(path: Path, **members: bytes) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(f"{name}.mp4")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def test_a_member_is_held_against_what_it_was(tmp_path: Path) -> None:
    tar = tmp_path / "x.tar"
    write_tar(tar, a=b"a" * 700, b=b"b" * 700)
    assert read(f"{tar}#b.mp4", id_of(b"b" * 700)) == b"b" * 700
    state = tar.stat()
    write_tar(tar, a=b"a" * 700, b=b"c" * 700)
    os.utime(
        tar, ns=(state.st_atime_ns, state.st_mtime_ns)
    )  # its listing may be remembered: the bytes decide
    with pytest.raises(MediaError, match=OTHER_CONTENT):
        read(f"{tar}#b.mp4", id_of(b"b" * 700))
    tar.touch()
    write_tar(tar, c=b"c")
    with pytest.raises(MediaError, match=NO_FILE):
        read(f"{tar}#b.mp4")


def test_sizes_as_they_lie_there_now(file: Path, tmp_path: Path) -> None:
    write_tar(tmp_path / "x.tar", a=b"a" * 700)
    uris = [file, f"{tmp_path}/x.tar#a.mp4", f"{tmp_path}/x.tar#b.mp4", f"{tmp_path}/y.tar#a.mp4", "gone.mp4"]
    assert sizes_bytes([str(uri) for uri in uris]) == [1000, 700, None, None, None]
