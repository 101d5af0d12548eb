"""Lists of sources and what their rows say about each: caption, licence, tags and anything else.

In: a text list (a uri a line, `#` starts a comment line), a CSV, TSV, JSON-lines or Parquet table with a
`uri` column. Out: absolute uris with their facts, a note for every row that cannot be used. Opens no media.

Facts: `original` (column `original` or `caption`), `licence` (or `license`), `tags` (a list, or text with
commas), and `attributes`: every other column, as one JSON object.
"""

import json
import math
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from pipeline import tars
from pipeline.names import is_nameable, readable, whole_characters
from pipeline.sources.lists import BLANK, Row, read_rows
from pipeline.storage import is_remote

NAMES = {"original": ("original", "caption"), "licence": ("licence", "license")}
DEEPEST = 100  # levels of a fact; Python's own readers of JSON end near 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One listed source: an absolute uri and its facts (columns tables.PROVENANCE, absent = unknown)."""

    uri: str
    facts: Mapping[str, Any]


def read_manifest(uri: str) -> tuple[list[Entry], list[str]]:
    """The entries in the order of the file, and a note for each row that cannot be used, by its line.

    Raises:
        UsageError: the file cannot be parsed or has no column `uri`.
    """
    entries: list[Entry] = []
    notes: list[str] = []
    folder = os.path.dirname(uri) if is_remote(uri) else os.path.dirname(os.path.abspath(uri))
    for row in read_rows(uri):
        try:
            entries.append(_entry(row, folder))
        except ValueError as error:
            notes.append(f"{uri} {row.place}: {error}")
    return entries, notes


def _entry(row: Row, folder: str) -> Entry:
    """What the row says; ValueError with what is wrong with it."""
    if row.problem:
        raise ValueError(row.problem)
    named = row.columns.get("uri")
    if not isinstance(named, str) or not named.strip(BLANK):
        raise ValueError("no uri")
    uri = resolve(named.strip(BLANK), folder)
    if not is_nameable(uri):
        raise ValueError(f"{readable(uri)} is no name of a file: it holds NUL or is not UTF-8")
    parts = uri.removeprefix("s3://").split("/")
    if is_remote(uri) and not (len(parts) > 1 and all(parts)):
        raise ValueError(f"{uri} is no name of an object: s3://bucket/key without empty parts")
    return Entry(uri=uri, facts=facts_of({k: v for k, v in row.columns.items() if k != "uri"}))


def resolve(uri: str, folder: str) -> str:
    """An absolute uri; a relative one starts from `folder`, the list's own."""
    tar, member = tars.split_member(uri) or (uri, "")
    if member:  # no part of the path: `..` in it leads nowhere
        return f"{resolve(tar, folder)}#{tars.plain_name(member)}"
    if uri.startswith("file://"):
        rest = uri.removeprefix("file://")
        return unquote(rest[max(rest.find("/"), 0) :], errors="surrogateescape")
    if "://" in uri:
        return uri
    if is_remote(folder):
        bucket, _, prefix = folder.removeprefix("s3://").partition("/")
        return f"s3://{bucket}/" + posixpath.normpath(f"/{prefix}/{uri}").lstrip("/")
    return os.path.normpath(os.path.join(folder, uri))


def facts_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A row's facts by their column names; what is empty is left out. ValueError for what no reader of JSON
    could read back."""
    rest = {
        whole_characters(name): plain
        for name, value in record.items()
        if (plain := _plain(value)) not in (None, "")
    }
    facts: dict[str, Any] = {}
    for fact, names in NAMES.items():
        values = [rest.pop(name) for name in names if name in rest]
        if values:
            facts[fact] = _text(values[0])
    if "tags" in rest:
        tags = rest.pop("tags")
        given = tags if isinstance(tags, list) else str(tags).split(",")
        facts["tags"] = [tag for t in given if t is not None and (tag := str(t).strip())]
    if rest:
        facts["attributes"] = json.dumps(rest, sort_keys=True, ensure_ascii=False)
    return facts


def _text(value: Any) -> str:
    """A fact that is one text: of a list (several captions of one picture) the first."""
    while isinstance(value, list):
        value = next((item for item in value if item not in (None, "")), "")
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON knows it: what is not finite is null, what is foreign is text, half a character is
    U+FFFD."""
    if depth > DEEPEST:
        raise ValueError(f"nested deeper than {DEEPEST} levels")
    if isinstance(value, Mapping):
        return {whole_characters(str(k)): _plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, depth + 1) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, int | float | bool):
        return value
    return whole_characters(str(value))
