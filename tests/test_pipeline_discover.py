"""What a run takes in: media below folders, named files whatever their name, sorted and counted."""

import os
from pathlib import Path

import pytest

from pipeline.discover import discover
from pipeline.errors import UsageError


def test_folders_files_and_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b/x.MP4", "a.jpg", "notes.txt", ".hidden/y.mp4", "wéird näme – 视频 (1) & #%41 'q'.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "odd.bin").write_bytes(b"named")
    found = discover([str(tmp_path), str(tmp_path / "odd.bin"), str(tmp_path / "a.jpg")])
    names = [os.path.relpath(uri, tmp_path) for uri in found.inputs["uri"].to_pylist()]
    assert names == sorted(["a.jpg", "b/x.MP4", "odd.bin", "wéird näme – 视频 (1) & #%41 'q'.mp4"])
    assert [os.path.basename(uri) for uri in found.ignored] == ["notes.txt"]


def test_a_changed_file_has_a_new_key(tmp_path: Path) -> None:
    file = tmp_path / "a.mp4"
    file.write_bytes(b"1")
    first = discover([str(file)]).inputs["source_key"].to_pylist()
    assert discover([str(tmp_path)]).inputs["source_key"].to_pylist() == first
    file.write_bytes(b"22")
    assert discover([str(file)]).inputs["source_key"].to_pylist() != first


def test_nothing_to_take_in_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no files at"):
        discover([str(tmp_path / "missing")])
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="no media files at"):
        discover([str(tmp_path)])
