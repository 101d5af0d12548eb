"""What a run takes in: folders, files, globs, lists, manifests, tars and s3:// prefixes → the inputs table.

In: one or more paths. Out: a row a source (uri, size, modification time, and what a list says of it) and
what was left out. A source that a list names and that does not exist is a row too: it ends as `failed`
with the reason. Opens no media: what a file really is, the decoder decides.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from pipeline.corpus import tables
from pipeline.errors import StorageError, UsageError
from pipeline.settings import fingerprint
from pipeline.sources.manifests import SIDECARS, SUFFIXES, Entry, read_manifest, sample_key, tar_facts
from pipeline.storage import FileInfo, Storage, is_remote
from pipeline.uris import stat, stat_each, tar_members

VIDEO = "3gp apng avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
IMAGE = "avif bmp jpeg jpg png tif tiff webp"
AUDIO = "aac flac m4a mp3 ogg wav"  # taken in so that they end as `failed: no video stream`
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{VIDEO} {IMAGE} {AUDIO}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """`inputs` has the schema tables.INPUTS, sorted by uri; `ignored` are uris without a media suffix;
    `notes` say what else a person should know of: unusable rows, uris named twice, broken tars."""

    inputs: pa.Table
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()


def discover(paths: Sequence[str]) -> Discovered:
    """Every media file below the given folders, prefixes and globs, every source that a given list or
    tar names, and every file that is named itself.

    Raises:
        UsageError: a path does not exist, a list cannot be read, or there is no media below any of them.
    """
    sources = _Sources()
    for path in paths:
        info = stat(path)
        if info is not None:
            sources.take_named(info)
        else:
            sources.walk(path)
    if not sources.rows:
        raise UsageError(
            f"no media files at {', '.join(paths)}",
            expected=f"files like {', '.join(sorted(MEDIA_SUFFIXES)[:6])}, …",
        )
    rows = [sources.rows[uri] for uri in sorted(sources.rows)]
    left_out = tuple(sorted(set(sources.ignored) - set(sources.rows)))
    repeats = (
        [f"{sources.repeats} uris are named more than once; each is taken once"] if sources.repeats else []
    )
    return Discovered(
        inputs=tables.from_rows(rows, tables.INPUTS), ignored=left_out, notes=(*sources.notes, *repeats)
    )


class _Sources:
    """The sources so far, by uri. Of a uri named twice, the first word on each fact counts."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.ignored: list[str] = []
        self.notes: list[str] = []
        self.repeats = 0

    def take_named(self, info: FileInfo) -> None:
        """A file that the user named: a list, a tar, or media whatever its suffix."""
        if _suffix(info.uri) not in SUFFIXES:
            self.take(info.uri, info, {})
            return
        entries, notes = read_manifest(info.uri)
        self.notes += notes
        for entry, there in zip(entries, stat_each([e.uri for e in entries]), strict=True):
            self.take(entry.uri, there or _member_info(entry), entry.facts)

    def walk(self, path: str) -> None:
        """The media below a folder, a prefix or the folder part of a glob."""
        folder, pattern = _split_glob(path)
        infos = [i for i in Storage(folder).walk() if pattern is None or pattern.fullmatch(_uri(i))]
        gone = [p for p in Storage(folder).dangling() if pattern is None or pattern.fullmatch(p)]
        for link in gone:
            if _suffix(link) in MEDIA_SUFFIXES:
                self.take(link, None, {})
        if not infos and not gone:
            raise UsageError(
                f"no files at {path}", expected="media, a folder, a glob, a list or an s3:// prefix"
            )
        for info in infos:
            if _suffix(info.uri) in MEDIA_SUFFIXES | {".tar"}:
                self.take(_uri(info), info, {})
            else:
                self.ignored.append(_uri(info))

    def take(self, uri: str, info: FileInfo | None, facts: Mapping[str, Any]) -> None:
        """One source, or those inside a tar; `info` is None when there is no such file."""
        if info is not None and _suffix(uri) == ".tar":
            self._take_tar(uri, info, facts)
        else:
            self._add(uri, info, facts)

    def _take_tar(self, tar: str, info: FileInfo, facts: Mapping[str, Any]) -> None:
        members, problem = tar_members(tar)
        if problem:
            self.notes.append(f"{tar}: {problem}")
            self._add(tar, info, facts)  # fails with the problem; the members before it are taken
        of_keys, notes = tar_facts(tar, members)
        self.notes += notes
        for member in members:
            uri, suffix = f"{tar}#{member.name}", _suffix(member.name)
            if suffix in MEDIA_SUFFIXES and not any(p.startswith(".") for p in member.name.split("/")):
                inside = FileInfo(uri=uri, size_bytes=member.nbytes, mtime_ns=info.mtime_ns)
                self._add(uri, inside, {**facts, **of_keys.get(sample_key(member.name), {})})
            elif suffix not in SIDECARS:
                self.ignored.append(uri)

    def _add(self, uri: str, info: FileInfo | None, facts: Mapping[str, Any]) -> None:
        size_bytes, mtime_ns = (info.size_bytes, info.mtime_ns) if info else (None, None)
        key = fingerprint([uri, size_bytes, mtime_ns])  # facts are no part of it: they never decode again
        row = {"source_key": key, "uri": uri, "size_bytes": size_bytes or 0, "mtime_ns": mtime_ns or 0}
        known = self.rows.setdefault(uri, row)
        self.repeats += known is not row
        for name, value in facts.items():
            if known.setdefault(name, value) != value:
                self.notes.append(f"{uri}: named twice with another {name}; the first counts")


def _member_info(entry: Entry) -> FileInfo | None:
    """Of a listed `path.tar#member`; None when there is no such tar or member."""
    tar, separator, name = entry.uri.partition("#")
    try:
        members = tar_members(tar)[0] if separator and tar.endswith(".tar") else []
        around = stat(tar) if members else None
    except StorageError:
        return None
    sizes = {member.name: member.nbytes for member in members}
    if around is None or name not in sizes:
        return None
    return FileInfo(uri=entry.uri, size_bytes=sizes[name], mtime_ns=around.mtime_ns)


def _split_glob(path: str) -> tuple[str, re.Pattern[str] | None]:
    """(folder to walk, pattern of whole uris): `*` and `?` stay within a folder, `**` does not."""
    wild = re.search(r"[*?\[]", path)
    if wild is None:
        return path, None
    folder = path[: path.rfind("/", 0, wild.start()) + 1]
    root = folder if is_remote(path) else os.path.abspath(folder or ".")
    rest = path[len(folder) :]
    pieces = re.split(r"(\*\*/?|\*|\?|\[[^\]]+\])", rest)
    words = {"*": "[^/]*", "?": "[^/]", "**": ".*", "**/": "(?:.*/)?"}
    pattern = "".join(
        words.get(p) or (p if p.startswith("[") and p[-1:] == "]" else re.escape(p)) for p in pieces
    )
    return folder or ".", re.compile(re.escape(root.rstrip("/")) + "/" + pattern)


def _suffix(uri: str) -> str:
    return PurePosixPath(uri).suffix.lower()


def _uri(info: FileInfo) -> str:
    return info.uri if is_remote(info.uri) else str(PurePosixPath(info.uri))
