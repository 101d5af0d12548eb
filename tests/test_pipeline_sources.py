"""What a run takes in: folders, files, globs, lists, manifests and tars, and what they say of a source."""

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import AnalyzeConfig
from pipeline.corpus import tables
from pipeline.engine.stage import Task
from pipeline.errors import MediaError, UsageError
from pipeline.sources.discover import Discovered, discover
from pipeline.sources.manifests import facts_of
from pipeline.stages.analyze import AnalyzeStage
from pipeline.uris import local_path


def test_folders_files_and_what_is_left_out(tmp_path: Path) -> None:
    for name in ("b/x.MP4", "a.jpg", "notes.txt", ".hidden/y.mp4", "wéird näme – 视频 (1) & #%41 'q'.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "odd.bin").write_bytes(b"named")
    found = discover([str(tmp_path), str(tmp_path / "odd.bin"), str(tmp_path / "a.jpg")])
    assert names(found, tmp_path) == sorted(
        ["a.jpg", "b/x.MP4", "odd.bin", "wéird näme – 视频 (1) & #%41 'q'.mp4"]
    )
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


def names(found: Discovered, folder: Path) -> list[str]:
    return [os.path.relpath(uri, folder) for uri in found.inputs["uri"].to_pylist()]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    """Files that nothing here opens."""
    for name in ("raw/a.mp4", "raw/deep/b.mp4", "raw/deep/c.png", "raw/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("raw/*.mp4", ["raw/a.mp4"]),
        ("raw/**/*.mp4", ["raw/a.mp4", "raw/deep/b.mp4"]),
        ("raw/deep/[bx].???", ["raw/deep/b.mp4"]),
        ("raw/*", ["raw/a.mp4"]),
        ("r*/d*/**", ["raw/deep/b.mp4", "raw/deep/c.png"]),
    ],
)
def test_globs(media: Path, pattern: str, expected: list[str]) -> None:
    assert names(discover([str(media / pattern)]), media) == expected


def test_a_glob_without_a_match_is_an_error(media: Path) -> None:
    with pytest.raises(UsageError, match="no files at"):
        discover([str(media / "raw" / "*.nothing")])


def test_a_text_list_with_relative_absolute_repeated_and_missing_uris(media: Path) -> None:
    lines = [
        "# a comment",
        "",
        "raw/a.mp4",
        f"file://{media}/raw/deep/c.png",
        "./raw/../raw/a.mp4",
        "gone.mp4",
    ]
    (media / "list.txt").write_text("\n".join([*lines, "https://example.org/x.mp4"]))
    found = discover([str(media / "list.txt")])
    assert names(found, media)[:3] == ["gone.mp4", "raw/a.mp4", "raw/deep/c.png"]
    assert found.inputs["uri"].to_pylist()[3] == "https://example.org/x.mp4"
    assert found.notes == ("1 uris are named more than once; each is taken once",)
    with pytest.raises(MediaError, match="no such file"), local_path(str(media / "gone.mp4")):
        pass
    with pytest.raises(MediaError, match="download it first"), local_path("https://example.org/x.mp4"):
        pass


def test_a_missing_file_is_a_failed_source_with_the_reason(media: Path) -> None:
    (media / "list.txt").write_text("gone.mp4\nhttps://example.org/x.mp4\n")
    stage = AnalyzeStage(AnalyzeConfig())
    stage.setup()
    inputs = discover([str(media / "list.txt")]).inputs
    result = stage.process(Task(key="k", inputs=inputs))
    rows = tables.from_parquet(result.outputs[-1].data, tables.SOURCES).to_pylist()
    assert [row["status"] for row in rows] == ["failed", "failed"]
    assert rows[0]["reason"] == "no such file"
    assert "s3://" in rows[1]["reason"]


def test_parquet_and_csv_manifests_say_the_same(media: Path) -> None:
    columns = {
        "uri": ["raw/a.mp4", "raw/deep/b.mp4"],
        "caption": ["a man, walking", None],
        "license": ["CC0", "MIT"],
        "tags": ["x, y", None],
        "take": ["007", "8"],
    }
    pq.write_table(pa.table(columns), media / "m.parquet")
    with (media / "m.csv").open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    found = discover([str(media / "m.csv")]).inputs
    assert found == discover([str(media / "m.parquet")]).inputs
    first, second = found.to_pylist()
    assert (first["original"], first["licence"], first["tags"]) == ("a man, walking", "CC0", ["x", "y"])
    assert json.loads(first["attributes"]) == {"take": "007"}
    assert (second["original"], second["tags"]) == (None, None)


def test_facts_are_no_part_of_the_key_and_the_first_word_counts(media: Path) -> None:
    for name, licence in (("one.csv", "CC0"), ("two.csv", "MIT")):
        (media / name).write_text(f"uri,licence\nraw/a.mp4,{licence}\n")
    one, two = (discover([str(media / n)]).inputs.to_pylist()[0] for n in ("one.csv", "two.csv"))
    assert one["source_key"] == two["source_key"]
    assert (one["licence"], two["licence"]) == ("CC0", "MIT")
    both = discover([str(media / "raw"), str(media / "one.csv"), str(media / "two.csv")])
    assert both.inputs.to_pylist()[0]["licence"] == "CC0"
    assert any("another licence" in note for note in both.notes)


def test_what_is_wrong_with_a_manifest_is_said(media: Path) -> None:
    (media / "m.csv").write_text("url,caption\nraw/a.mp4,x\n")
    with pytest.raises(UsageError, match=r"no column `uri`; it has url, caption"):
        discover([str(media / "m.csv")])
    (media / "m.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match=r"m\.parquet cannot be read"):
        discover([str(media / "m.parquet")])
    (media / "m.csv").write_text("uri,caption\nraw/a.mp4,x\n,no uri\nraw/deep/b.mp4,x,y,z\n")
    found = discover([str(media / "m.csv")])
    assert names(found, media) == ["raw/a.mp4"]
    assert [note.split(": ")[1] for note in found.notes] == ["no uri", "more cells than the header"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_value_can_be_carried_as_strict_json(value: object) -> None:
    attributes = facts_of({"odd": value}).get("attributes", "{}")
    assert json.dumps(json.loads(attributes), allow_nan=False)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A WebDataset tar: captions and metadata beside the media."""
    with tarfile.open(tmp_path / "set.tar", "w") as tar:
        add(tar, "x/000.mp4", b"first" * 300)
        add(tar, "x/000.txt", "ein Wort 视频\n".encode())
        add(tar, "x/000.json", json.dumps({"caption": "not this", "license": "CC0", "url": "u"}).encode())
        add(tar, "x/001.v2.JPG", b"second")
        add(tar, "x/001.json", b"not json")
        add(tar, "x/._junk.mp4", b"")
        add(tar, "x/002.npy", b"")
    return tmp_path / "set.tar"


def test_tar_members_are_sources_with_their_captions(dataset: Path) -> None:
    found = discover([str(dataset)])
    first, second = found.inputs.to_pylist()
    assert first["uri"] == f"{dataset}#x/000.mp4"
    assert (first["original"], first["licence"]) == ("ein Wort 视频", "CC0")
    assert json.loads(first["attributes"]) == {"url": "u"}
    assert (second["uri"], second["size_bytes"]) == (f"{dataset}#x/001.v2.JPG", 6)
    assert [note.split(": ")[0] for note in found.notes] == [f"{dataset}#x/001.json"]
    assert found.ignored == (f"{dataset}#x/._junk.mp4", f"{dataset}#x/002.npy")
    assert discover([str(dataset.parent)]).inputs == found.inputs
    with local_path(first["uri"]) as path:
        assert path.read_bytes() == b"first" * 300
        assert path.suffix == ".mp4"
    with pytest.raises(MediaError, match="no such file in"), local_path(f"{dataset}#x/999.mp4"):
        pass


def test_a_list_can_name_tars_and_members(dataset: Path) -> None:
    (dataset.parent / "list.txt").write_text("set.tar#x/000.mp4\nset.tar#gone.mp4\n")
    gone, there = discover([str(dataset.parent / "list.txt")]).inputs.to_pylist()
    assert (gone["size_bytes"], there["size_bytes"]) == (0, 1500)
    assert there["source_key"] in discover([str(dataset)]).inputs["source_key"].to_pylist()


@pytest.mark.parametrize("nbytes", [4300, 4610])  # inside the header of x/001.v2.JPG; inside its data
def test_a_tar_that_breaks_off_gives_its_whole_members_and_a_failing_row(dataset: Path, nbytes: int) -> None:
    dataset.write_bytes(dataset.read_bytes()[:nbytes])
    found = discover([str(dataset)])
    assert found.inputs["uri"].to_pylist() == [str(dataset), f"{dataset}#x/000.mp4"]
    assert found.notes
    with pytest.raises(MediaError, match="not a whole tar"), local_path(str(dataset)):
        pass
