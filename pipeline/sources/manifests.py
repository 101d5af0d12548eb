"""Lists of sources and what their rows say about each: caption, licence, tags and anything else.

In: a text list (a uri a line, `#` starts a comment line), a CSV, TSV, JSON-lines or Parquet table with a
`uri` column, or the members of a WebDataset tar. Out: absolute uris with their facts, and a note for every
row that cannot be used. Opens no media.

Facts: `original` (column `original` or `caption`), `licence` (or `license`), `tags` (a list, or text with
commas), and `attributes`: every other column, as one JSON object.
"""

import csv
import io
import json
import math
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from pipeline.errors import UsageError
from pipeline.storage import is_remote, read_parquet
from pipeline.tars import Member
from pipeline.uris import open_range, read_uri

SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".jsonl", ".parquet"})
SIDECARS = frozenset({".txt", ".json"})  # beside a tar's media, under the same key
MAX_SIDECAR_BYTES = 1 << 20
NAMES = {"original": ("original", "caption"), "licence": ("licence", "license")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One listed source: an absolute uri and its facts (columns tables.PROVENANCE, absent = unknown)."""

    uri: str
    facts: Mapping[str, Any]


def read_manifest(uri: str) -> tuple[list[Entry], list[str]]:
    """The entries in the order of the file, and a note for each row without a usable uri.

    Raises:
        UsageError: the file cannot be parsed or has no column `uri`.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    folder = os.path.dirname(uri) if is_remote(uri) else os.path.dirname(os.path.abspath(uri))
    for number, record in _records(uri):
        named = record.pop("uri", None)
        if None in record or not isinstance(named, str) or not named.strip():
            problem = "more cells than the header" if None in record else "no uri"
            notes.append(f"{uri} row {number}: {problem}")
            continue
        entries.append(Entry(uri=resolve(named.strip(), folder), facts=facts_of(record)))
    return entries, notes


def resolve(uri: str, folder: str) -> str:
    """An absolute uri; a relative one starts from `folder`, the list's own."""
    if uri.startswith("file://"):
        return unquote(urlsplit(uri).path)
    if "://" in uri:
        return uri
    if is_remote(folder):
        bucket, _, prefix = folder.removeprefix("s3://").partition("/")
        return f"s3://{bucket}/" + posixpath.normpath(f"/{prefix}/{uri}").lstrip("/")
    return os.path.normpath(os.path.join(folder, uri))


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row's facts by their column names; what is empty is left out."""
    rest = {name: plain for name, value in record.items() if (plain := _plain(value)) not in (None, "")}
    facts: dict[str, Any] = {}
    for fact, names in NAMES.items():
        values = [rest.pop(name) for name in names if name in rest]
        if values:
            facts[fact] = str(values[0])
    if "tags" in rest:
        tags = rest.pop("tags")
        facts["tags"] = [str(t).strip() for t in (tags if isinstance(tags, list) else str(tags).split(","))]
    if rest:
        facts["attributes"] = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return facts


def tar_facts(tar: str, members: Sequence[Member]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """WebDataset key → facts from its `.json` (an object) and `.txt` (the caption), and notes."""
    facts: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    with open_range(tar) as stream:
        for member in members:
            if PurePosixPath(member.name).suffix.lower() not in SIDECARS:
                continue
            stream.seek(member.offset)
            try:
                if member.nbytes > MAX_SIDECAR_BYTES:
                    raise ValueError(f"larger than {MAX_SIDECAR_BYTES} bytes")
                facts_of_file = _sidecar(member.name, stream.read(member.nbytes).decode())
            except (ValueError, UnicodeDecodeError) as error:
                notes.append(f"{tar}#{member.name}: {error}")
                continue
            of_key = facts.setdefault(sample_key(member.name), {})
            is_text = member.name.lower().endswith(".txt")
            of_key |= (
                facts_of_file if is_text else {k: v for k, v in facts_of_file.items() if k not in of_key}
            )
    return facts, notes


def sample_key(name: str) -> str:
    """WebDataset's rule: the path up to the first dot of the file name."""
    folder, file = posixpath.split(name)
    return posixpath.join(folder, file.partition(".")[0])


def _sidecar(name: str, text: str) -> dict[str, Any]:
    if name.lower().endswith(".txt"):
        return facts_of({"caption": text.strip()})
    record = json.loads(text)
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return facts_of(record)


def _records(uri: str) -> Iterator[tuple[int, dict[Any, Any]]]:
    """(row number as a person counts it, columns) of every row."""
    suffix = PurePosixPath(uri).suffix.lower()
    data = read_uri(uri)
    try:
        if suffix == ".parquet":
            table = read_parquet(pa.BufferReader(data))
            _require_uri(uri, table.column_names)
            yield from enumerate(table.to_pylist(), start=1)
            return
        text = data.decode("utf-8-sig")
        if suffix == ".txt":
            lines = enumerate((line.strip() for line in text.splitlines()), start=1)
            yield from ((n, {"uri": line}) for n, line in lines if line and not line.startswith("#"))
        elif suffix == ".jsonl":
            for number, line in enumerate(text.splitlines(), start=1):
                if line.strip():
                    yield number, dict(json.loads(line))
        else:
            rows = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",")
            _require_uri(uri, rows.fieldnames or [])
            yield from enumerate(rows, start=2)
    except (UnicodeDecodeError, ValueError, TypeError, csv.Error) as error:  # pa.ArrowInvalid is a ValueError
        raise UsageError(
            f"{uri} cannot be read as a list of sources: {error}", expected=f"{suffix[1:]} in UTF-8"
        ) from error


def _require_uri(uri: str, columns: Iterable[str]) -> None:
    if "uri" not in columns:
        raise UsageError(
            f"{uri} has no column `uri`; it has {', '.join(columns) or 'none'}",
            expected="a column named uri; caption, licence, tags and others are carried along",
        )


def _plain(value: Any) -> Any:
    """The value as JSON knows it: what is not finite is null, what is foreign is text."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
