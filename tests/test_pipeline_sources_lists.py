"""Lists: a row costs itself at most, is named by its line, and says exactly what stands there."""

import contextlib
import csv
import io
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.sources.discover import Discovered, discover
from pipeline.sources.lists import BLANK

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAME = TEXT.map(lambda text: text.replace("/", "").replace("\0", "").strip(BLANK)).filter(
    lambda name: name not in ("", ".", "..") and "://" not in name and len(name.encode()) < 200
)
QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def listed(folder: Path, name: str, data: bytes) -> Discovered:
    (folder / name).write_bytes(data)
    return discover([str(folder / name)])


def names(sources: Discovered) -> list[str]:
    return [os.path.basename(uri) for uri in sources.inputs["uri"].to_pylist()]


def captions(sources: Discovered) -> list[str | None]:
    return sources.inputs["original"].to_pylist()


@pytest.mark.parametrize("inside", ["\u2028", "\u2029", "\x85", "\x1c"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_json_line_ends_at_the_newline_only(folder: Path, inside: str, end: str) -> None:
    rows = [
        json.dumps({"uri": f"{name}.mp4", "caption": f"one{inside}two"}, ensure_ascii=False) for name in "ab"
    ]
    sources = listed(folder, "l.jsonl", (end.join(rows) + end).encode())
    assert names(sources) == ["a.mp4", "b.mp4"]
    assert captions(sources) == [f"one{inside}two"] * 2


@pytest.mark.parametrize("inside", ["\u2028", "\x85", "\x0b", "\x0c", "\x1d"])
def test_a_name_in_a_text_list_may_hold_what_other_readers_break_lines_at(folder: Path, inside: str) -> None:
    (folder / f"x{inside}y.mp4").write_bytes(b"1")
    sources = listed(folder, "l.txt", f"a.mp4\r\nx{inside}y.mp4\n".encode())
    assert names(sources) == ["a.mp4", f"x{inside}y.mp4"]
    assert all(sources.inputs["size_bytes"].to_pylist())


def test_half_a_character_is_replaced_and_both_rows_stay(folder: Path) -> None:
    text = '{"uri": "a.mp4", "caption": "smile \\ud83d", "k\\udc00": ["\\ud83d"]}\n{"uri": "b.mp4"}\n'
    sources = listed(folder, "l.jsonl", text.encode())
    assert names(sources) == ["a.mp4", "b.mp4"]
    first = sources.inputs.to_pylist()[0]
    assert first["original"] == "smile \ufffd"
    assert json.loads(first["attributes"]) == {"k\ufffd": ["\ufffd"]}


def test_bytes_that_are_not_utf_8_cost_a_uri_its_row_and_a_caption_a_character(folder: Path) -> None:
    sources = listed(folder, "l.csv", b"uri,caption\na.mp4,caf\xe9\ncaf\xe9.mp4,x\nb.mp4,y\n")
    assert names(sources) == ["a.mp4", "b.mp4"]
    assert captions(sources) == ["caf\ufffd", "y"]
    (note,) = sources.notes
    assert "line 3" in note
    assert r"caf\xe9.mp4" in note


def test_a_cell_may_be_longer_than_the_csv_module_likes(folder: Path) -> None:
    sources = listed(folder, "l.csv", f"uri,caption\na.mp4,{'x' * 200_000}\nb.mp4,y\n".encode())
    assert [len(caption or "") for caption in captions(sources)] == [200_000, 1]


BAD_ROWS = {  # suffix, rows before, bad row, rows after
    "nul": ("csv", "uri,caption\n", "a\0.mp4,x\n", 2),
    "empty uri": ("csv", "uri,caption\n", ",x\n", 2),
    "broken quote": ("csv", "uri,caption\n", '"a.mp4"x,"y"\n', 2),
    "open quote": ("csv", "uri,caption\n", 'a.mp4,"x\n', 2),
    "behind a cell of three lines": ("csv", 'uri,caption\nc.mp4,"1\n2\n3"\n', ",x\n", 5),
    "tsv": ("tsv", "uri\tcaption\n", "\tx\n", 2),
    "cut json": ("jsonl", "", '{"uri": "a.mp4", "cap\n', 1),
    "no object": ("jsonl", "", '["a.mp4"]\n', 1),
    "number": ("jsonl", "", '{"uri": 7}\n', 1),
    "deep": ("jsonl", "", '{"uri": "a.mp4", "x": ' + "[" * 100_000 + "]" * 100_000 + "}\n", 1),
    "rather deep": ("jsonl", "", '{"uri": "a.mp4", "x": ' + "[" * 400 + "]" * 400 + "}\n", 1),
    "huge number": ("jsonl", "", '{"uri": "a.mp4", "x": ' + "9" * 5000 + "}\n", 1),
    "half a character": ("jsonl", "", '{"uri": "a\\ud83d.mp4"}\n', 1),
    "text with nul": ("txt", "", "a\0.mp4\n", 1),
    "no key": ("txt", "", "s3://bucket\n", 1),
    "empty part": ("txt", "", "s3://bucket//x.mp4\n", 1),
    "file uri": ("txt", "", "file:///a%00.mp4\n", 1),
}


@pytest.mark.parametrize("is_last", [True, False])
@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_costs_itself_and_is_named_by_its_line(folder: Path, kind: str, is_last: bool) -> None:
    suffix, head, bad, line = BAD_ROWS[kind]
    good = {"csv": "b.mp4,y\n", "tsv": "b.mp4\ty\n", "jsonl": '{"uri": "b.mp4"}\n', "txt": "b.mp4\n"}[suffix]
    if is_last:
        rows = head + good + bad.rstrip("\n")
        line += 1
    else:
        rows = head + bad + good
    sources = listed(folder, f"l.{suffix}", rows.encode())
    assert [name for name in names(sources) if name != "c.mp4"] == ["b.mp4"]
    (note,) = sources.notes
    assert f"l.{suffix} line {line}: " in note


def test_a_csv_that_ends_in_the_middle_of_a_row_loses_that_row(folder: Path) -> None:
    for cut in ('b.mp4,"a cut capt', "b.m"):
        sources = listed(folder, "l.csv", f"uri,caption\na.mp4,x\n{cut}".encode())
        assert names(sources) == ["a.mp4"]
        assert "l.csv line 3: " in sources.notes[0]
    assert names(listed(folder, "l.csv", b"uri,caption\na.mp4,x\nb.mp4,y")) == ["a.mp4", "b.mp4"]


def test_uris_that_nobody_can_open_are_rows_that_fail(folder: Path) -> None:
    lines = ["gopher://x/y.mp4", "x" * 5000 + ".mp4", str(folder), "s3:/a.mp4", "b.mp4"]
    sources = listed(folder, "l.txt", "\n".join(lines).encode())
    assert sources.inputs.num_rows == len(lines)
    assert sorted(bool(size) for size in sources.inputs["size_bytes"].to_pylist()) == [False] * 4 + [True]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-16-le"])
def test_another_encoding_is_named_and_a_mark_of_utf_8_is_none(folder: Path, encoding: str) -> None:
    with pytest.raises(UsageError, match=r"UTF-16|no column `uri`"):
        listed(folder, "l.csv", "uri,caption\na.mp4,x\n".encode(encoding))
    assert names(listed(folder, "l.txt", "a.mp4\n".encode("utf-8-sig"))) == ["a.mp4"]


def test_a_parquet_list_is_whole_or_an_error_and_its_bad_text_costs_a_row(folder: Path) -> None:
    column = pa.array([b"a.mp4", b"caf\xe9.mp4", b"b.mp4"]).cast(pa.string(), safe=False)
    sink = io.BytesIO()
    pq.write_table(pa.table({"uri": column}), sink)
    sources = listed(folder, "l.parquet", sink.getvalue())
    assert names(sources) == ["a.mp4", "b.mp4"]
    assert "l.parquet row 2: " in sources.notes[0]
    with pytest.raises(UsageError, match=r"l\.parquet cannot be read"):
        listed(folder, "l.parquet", sink.getvalue()[:-50])


def test_the_reason_is_said_where_no_row_is_left(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"l\.jsonl line 1: not JSON"):
        listed(folder, "l.jsonl", b"{")


@QUICK
@given(st.lists(st.tuples(NAME, TEXT), min_size=1, max_size=4, unique_by=lambda row: row[0]))
def test_any_name_and_caption_come_back_from_json_and_csv(rows: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as at:
        records = [{"uri": f"./{name}", "caption": text} for name, text in rows]
        expected = {os.path.join(at, name): text or None for name, text in rows}
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        Path(at, "l.jsonl").write_text(lines, newline="")
        with open(Path(at, "l.csv"), "w", newline="") as stream:
            writer = csv.DictWriter(stream, ["uri", "caption"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(records)
        for name in ("l.jsonl", "l.csv"):
            sources = discover([str(Path(at, name))])
            taken = dict(zip(sources.inputs["uri"].to_pylist(), captions(sources), strict=True))
            assert taken == expected
            assert not sources.notes


@QUICK
@given(st.lists(NAME.filter(lambda name: "\n" not in name), min_size=1, max_size=4, unique=True))
def test_any_name_on_one_line_comes_back_from_a_text_list(rows: list[str]) -> None:
    with tempfile.TemporaryDirectory() as at:
        Path(at, "l.txt").write_text("".join(f"./{name}\n" for name in rows), newline="")
        sources = discover([str(Path(at, "l.txt"))])
        assert sorted(sources.inputs["uri"].to_pylist()) == sorted(os.path.join(at, name) for name in rows)


@QUICK
@given(st.binary(max_size=200), st.sampled_from(["txt", "csv", "tsv", "jsonl", "parquet"]))
def test_no_list_ends_in_a_traceback(data: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as at:
        Path(at, f"l.{suffix}").write_bytes(data if suffix == "parquet" else b"uri,caption\n" + data)
        with contextlib.suppress(UsageError):  # nothing else
            discover([str(Path(at, f"l.{suffix}"))])


def test_spaces_around_a_column_name_are_none_of_it(folder: Path) -> None:
    sources = listed(folder, "x.csv", b"uri, caption , mood\na.mp4,one,calm\n")
    assert captions(sources) == ["one"]
    assert sources.inputs["attributes"].to_pylist() == ['{"mood": "calm"}']


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
@pytest.mark.parametrize("twice", ["uri", "caption", "mood"])
def test_a_column_that_is_there_twice_is_no_guess(folder: Path, suffix: str, twice: str) -> None:
    header, row = ["uri", "caption", "mood", twice], ["a.mp4", "one", "calm", "b.mp4"]
    if suffix == "parquet":
        out = io.BytesIO()
        pq.write_table(pa.table([pa.array([cell]) for cell in row], names=header), out)
        data = out.getvalue()
    else:
        mark = {"csv": ",", "tsv": "\t"}[suffix]
        data = f"{mark.join(header)}\n{mark.join(row)}\n".encode()
    with pytest.raises(UsageError, match=f"more than one column `{twice}`"):
        listed(folder, f"x.{suffix}", data)
    assert names(listed(folder, "y.csv", b"uri,caption,,\na.mp4,one,,\n")) == ["a.mp4"]  # no names, no matter


def test_text_that_a_writer_stored_as_bytes_is_text(folder: Path) -> None:
    out = io.BytesIO()
    columns = {"uri": [b"a.mp4", b"\xff.mp4"], "caption": ["ein Käfer".encode(), b"b"]}
    pq.write_table(pa.table(columns), out)
    sources = listed(folder, "x.parquet", out.getvalue())
    assert (names(sources), captions(sources)) == (["a.mp4"], ["ein Käfer"])
    assert "row 2" in sources.notes[0]


def test_of_several_captions_of_one_picture_the_first_counts(folder: Path) -> None:
    rows = [
        {"uri": "a.mp4", "caption": ["a cat", "an animal"], "tags": ["pets", None, " "]},
        {"uri": "b.mp4", "caption": [None, "a dog"], "tags": "pets,,dogs"},
    ]
    sources = listed(folder, "x.jsonl", "\n".join(map(json.dumps, rows)).encode())
    assert captions(sources) == ["a cat", "a dog"]
    assert sources.inputs["tags"].to_pylist() == [["pets"], ["pets", "dogs"]]
