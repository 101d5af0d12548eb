"""What is made while it is written: whole under its name, or not there at all."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import BUCKET

from pipeline import s3 as s3_module
from pipeline.corpus.shards import END, Extent, joined
from pipeline.errors import StorageError
from pipeline.storage import Storage, Stream

PART = 5 << 20  # the least that a store takes


def chunks(count: int, breaks_at: int = -1) -> Iterator[bytes]:
    for number in range(count):
        if number == breaks_at:
            raise StorageError("the source broke off")
        yield bytes([number % 251]) * 1_000_003


def whole(count: int) -> bytes:
    return b"".join(chunks(count))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_stream_is_a_file(tmp_path: Path, count: int) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("f", Stream(nbytes=count, pieces=lambda: chunks(count)))
    assert (tmp_path / "f").read_bytes() == whole(count)


def test_a_stream_that_breaks_off_leaves_what_was_there(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("f", b"old")
    with pytest.raises(StorageError, match="broke off"):
        storage.write_bytes("f", Stream(nbytes=4, pieces=lambda: chunks(4, 2)))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]


@pytest.mark.parametrize("count", [0, 1, 12])
def test_a_stream_is_an_object_of_several_parts(s3: pytest.MonkeyPatch, count: int) -> None:
    s3.setattr(s3_module, "PART_BYTES", PART)
    storage = Storage(f"{BUCKET}/streams")
    storage.write_bytes(f"f{count}", Stream(nbytes=count, pieces=lambda: chunks(count)))
    assert storage.read_bytes(f"f{count}") == whole(count)


def test_an_upload_that_breaks_off_leaves_no_object(s3: pytest.MonkeyPatch) -> None:
    s3.setattr(s3_module, "PART_BYTES", PART)
    storage = Storage(f"{BUCKET}/broken")
    with pytest.raises(StorageError, match="broke off"):
        storage.write_bytes("f", Stream(nbytes=12, pieces=lambda: chunks(12, 9)))
    assert not storage.exists("f")


def test_tars_are_joined_by_copying_and_a_short_one_is_refused(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    for name, data in (("a", b"0123456789"), ("b", b"abcdefgh")):
        storage.write_bytes(name, data)
    extents = [Extent(path="a", start=0, nbytes=3), Extent(path="a", start=3, nbytes=2)]
    extents.append(Extent(path="b", start=4, nbytes=4))
    stream = joined(storage, extents)
    storage.write_bytes("c", stream)
    assert storage.read_bytes("c") == b"01234efgh" + END
    assert len(stream) == 9 + len(END)
    with pytest.raises(StorageError, match="cut off"):
        storage.write_bytes("d", joined(storage, [Extent(path="b", start=4, nbytes=5)]))
    assert not storage.exists("d")
