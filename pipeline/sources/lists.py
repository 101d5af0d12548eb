"""The rows of a list file, each with the line it begins on; a row that cannot be read costs itself only.

In: a `.txt`, `.csv`, `.tsv`, `.jsonl` or `.parquet` file in UTF-8. Out: rows as they stand there, or what is
wrong with one. Never: an opinion on what a column means.

A line ends at `\\n` or `\\r\\n` and nowhere else: JSON allows U+2028 and U+0085 inside a string, and a name
may hold them. A byte that is not UTF-8 comes out as a half character, which only its own row answers for.
"""

import codecs
import csv
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.storage import read_parquet
from pipeline.uris import read_uri

SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".parquet"})
BLANK = " \t\r\n\v\f"  # around a line or a uri; other white space is part of a name
OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # of UTF-32 too, in one order of bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row: where it stands (`line 3`, the first of its lines; `row 3` in Parquet) and its columns; or
    the problem that it has instead."""

    place: str
    columns: dict[str, Any]
    problem: str = ""


def read_rows(uri: str) -> list[Row]:
    """Every row of the list, in order.

    Raises:
        UsageError: the file is in another encoding or format, has no column `uri`, or a column twice.
    """
    suffix = PurePosixPath(uri).suffix.lower()
    data = read_uri(uri)
    if suffix == ".parquet":
        return list(_parquet_rows(uri, data))
    if data.startswith(OTHER_ENCODINGS):
        raise UsageError(f"{uri} is in UTF-16 or UTF-32", expected=f"{suffix[1:]} in UTF-8")
    text = data.decode("utf-8-sig", "surrogateescape")
    if suffix == ".txt":
        return list(_text_rows(text))
    return list(_json_rows(text) if suffix == ".jsonl" else _csv_rows(uri, text, suffix))


def _text_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        name = line.strip(BLANK)
        if name and not name.startswith("#"):
            yield Row(place=f"line {number}", columns={"uri": name})


def _json_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip(BLANK):
            continue
        columns, problem = parse_object(line)
        yield Row(place=f"line {number}", columns=columns, problem=problem)


def parse_object(text: str) -> tuple[dict[str, Any], str]:
    """(the JSON object, ""), or ({}, what the text is instead)."""
    try:
        value = json.loads(text)
    except RecursionError:
        return {}, "JSON that is nested too deep"
    except ValueError as error:
        return {}, f"not JSON: {error}"
    return (value, "") if isinstance(value, dict) else ({}, "not a JSON object")


def _csv_rows(uri: str, text: str, suffix: str) -> Iterator[Row]:
    """RFC 4180, strictly: a quote that does not close would silently take the rows below into its cell.
    After such a row the reader begins again on the line below its first."""
    csv.field_size_limit(sys.maxsize)  # the module's own is 131,072 characters
    lines = io.StringIO(text, newline="").readlines()
    records = _csv_records(lines, "\t" if suffix == ".tsv" else ",")
    _, header, problem = next(records, (1, [], ""))
    if problem:
        raise UsageError(f"{uri}: {problem} in the header", expected=f"{suffix[1:]} in UTF-8")
    header = [name.strip(BLANK) for name in header]
    _check_columns(uri, header)
    for number, cells, problem in records:
        place, columns = f"line {number}", dict(zip(header, cells, strict=False))
        if not problem and len(cells) > len(header):
            problem = "more cells than the header"
        is_last = not problem and len(cells) < len(header) and lines[-1][-1:] not in "\r\n"
        if is_last and number == len(lines):
            problem = "cut off"
        yield Row(place=place, columns={} if problem else columns, problem=problem)


def _csv_records(lines: list[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(number of its first line, cells, what is wrong) of every record that is not blank."""
    start = 0
    while start < len(lines):
        reader = csv.reader((lines[i] for i in range(start, len(lines))), delimiter=delimiter, strict=True)
        read = 0  # lines of whole records
        try:
            for cells in reader:
                if cells:
                    yield start + read + 1, cells, ""
                read = reader.line_num
            return
        except csv.Error as error:
            yield start + read + 1, [], f"not CSV: {error}"
        start += read + 1


def _parquet_rows(uri: str, data: bytes) -> Iterator[Row]:
    try:
        table = read_parquet(pa.BufferReader(data))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UsageError(
            f"{uri} cannot be read as a list of sources: {error}", expected="a whole Parquet file"
        ) from error
    _check_columns(uri, table.column_names)
    for number in range(table.num_rows):
        if number % 1000 == 0:
            rows = _values(table.slice(number, 1000))
        columns = rows[number % 1000]
        if isinstance(columns, str):
            yield Row(place=f"row {number + 1}", columns={}, problem=columns)
        else:  # writers that know no text store it as bytes
            columns = {
                k: v.decode(errors="surrogateescape") if isinstance(v, bytes) else v
                for k, v in columns.items()
            }
            yield Row(place=f"row {number + 1}", columns=columns)


def _values(table: pa.Table) -> list[Any]:
    """The rows as dicts; of one that Python cannot hold (text that is not UTF-8) what is wrong with it."""
    try:
        return table.to_pylist()
    except (ValueError, OverflowError) as error:
        if table.num_rows == 1:
            return [str(error)]
        return [row for number in range(table.num_rows) for row in _values(table.slice(number, 1))]


def _check_columns(uri: str, columns: Sequence[str]) -> None:
    """UsageError where there is no uri, or a name twice: of two captions either may be the right one."""
    if "uri" not in columns:
        raise UsageError(
            f"{uri} has no column `uri`; it has {', '.join(columns) or 'none'}",
            expected="a column named uri; caption, licence, tags and others are carried along",
        )
    twice = [name for name, count in Counter(columns).items() if name and count > 1]
    if twice:
        raise UsageError(f"{uri} has more than one column `{twice[0]}`", expected="one column of a name")
