"""What a run takes in: folders, files, globs, lists, manifests, tars and s3:// prefixes → the inputs table.

In: one or more paths. Out: a row a source (uri, size, modification time, and what a list says of it) and
what was left out. A source that a list names and that does not exist is a row too: it ends as `failed`
with the reason. Opens no media: what a file really is, the decoder decides.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.corpus import tables
from pipeline.errors import StorageError, UsageError
from pipeline.names import FileInfo, is_nameable, readable
from pipeline.settings import fingerprint
from pipeline.sources.globs import split_glob
from pipeline.sources.lists import SUFFIXES
from pipeline.sources.manifests import Entry, read_manifest
from pipeline.sources.sidecars import SIDECARS, sidecar_facts
from pipeline.storage import Storage, is_remote
from pipeline.tars import split_member
from pipeline.uris import is_folder, stat, stat_each, tar_contents, tar_members

VIDEO = "3gp apng avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
IMAGE = "avif bmp jpeg jpg png tif tiff webp"
AUDIO = "aac flac m4a mp3 ogg wav"  # taken in so that they end as `failed: no video stream`
IMAGE_SUFFIXES = tuple(f".{suffix}" for suffix in IMAGE.split())
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{VIDEO} {IMAGE} {AUDIO}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """`inputs` has the schema tables.INPUTS, sorted by uri; `ignored` are uris without a media suffix;
    `notes` say what else a person should know of: unusable rows, uris named twice, broken tars; `closed` are
    folders that could not be listed."""

    inputs: pa.Table
    ignored: tuple[str, ...]
    notes: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()


def discover(paths: Sequence[str]) -> Discovered:
    """Every media file below the given folders, prefixes and globs, every source that a given list or
    tar names, and every file that is named itself.

    Raises:
        UsageError: a path does not exist, a list cannot be read, or there is no media below any of them.
    """
    sources = _Sources()
    for path in paths:
        if not path or not is_nameable(path if is_remote(path) else os.path.abspath(path)):
            raise UsageError(
                f"{readable(path)} cannot be a source" if path else "an empty name is no source",
                expected="a name in UTF-8, also of the folders above",
            )
        info = stat(path)
        if info is not None:
            sources.take_named(info)
        else:
            sources.walk(path)
    if not sources.rows:
        why = f" ({sources.notes[0]})" if sources.notes else ""
        raise UsageError(
            f"no media files at {', '.join(paths)}{why}",
            expected=f"files like {', '.join(sorted(MEDIA_SUFFIXES)[:6])}, …",
        )
    rows = [sources.rows[uri] for uri in sorted(sources.rows)]
    left_out = tuple(sorted(set(sources.ignored) - set(sources.rows)))
    repeats = (
        [f"{sources.repeats} uris are named more than once; each is taken once"] if sources.repeats else []
    )
    return Discovered(
        inputs=tables.from_rows(rows, tables.INPUTS),
        ignored=left_out,
        notes=(*sources.notes, *repeats),
        closed=tuple(sources.closed),
    )


class _Sources:
    """The sources so far, by uri. Of a uri named twice, the first word on each fact counts."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.ignored: list[str] = []
        self.closed: list[str] = []
        self.notes: list[str] = []
        self.repeats = 0

    def take_named(self, info: FileInfo) -> None:
        """A file that the user named: a list, a tar, or media whatever its suffix."""
        if _suffix(info.uri) not in SUFFIXES:
            self.take(info.uri, info, {})
            return
        entries, notes = read_manifest(info.uri)
        self.notes += notes
        members = _member_infos(entries)
        for entry, there in zip(entries, stat_each([e.uri for e in entries]), strict=True):
            self.take(entry.uri, there or members.get(entry.uri), entry.facts)

    def walk(self, path: str) -> None:
        """The media below a folder, a prefix or the folder part of a glob."""
        folder, pattern = split_glob(path, is_folder)
        storage = Storage(folder)
        root = "" if is_remote(folder) else os.path.abspath(folder).rstrip("/")

        def is_asked_for(uri: str) -> bool:
            below = uri.removeprefix(f"{storage.root}/" if is_remote(uri) else f"{root}/")
            return pattern is None or pattern.fullmatch(below) is not None

        tree = storage.tree()
        infos = [info for info in tree.files if is_asked_for(info.uri)]
        gone = [link for link in tree.dangling if is_asked_for(link)]
        self._say_left_out(tree.unnameable, "files or folders left out, their names are not UTF-8")
        self.closed += tree.closed
        self._say_left_out(tree.closed, "folders left out, this user may not list or enter them")
        for link in gone:
            if _suffix(link) in MEDIA_SUFFIXES:
                self.take(link, None, {})
        if not infos and not gone:
            why = f"; {tree.unnameable[0]} is not UTF-8" if tree.unnameable else ""
            why += f"; {tree.closed[0]} may not be listed" if tree.closed else ""
            raise UsageError(
                f"no files at {path}{why}", expected="media, a folder, a glob, a list or an s3:// prefix"
            )
        for info in infos:
            if _suffix(info.uri) in MEDIA_SUFFIXES | {".tar"}:
                self.take(info.uri, info, {})
            else:
                self.ignored.append(info.uri)

    def _say_left_out(self, names: Sequence[str], why: str) -> None:
        if names:
            named = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
            self.notes.append(f"{len(names)} {why}: {named}")

    def take(self, uri: str, info: FileInfo | None, facts: Mapping[str, Any]) -> None:
        """One source, or those inside a tar; `info` is None when there is no such file."""
        if info is not None and _suffix(uri) == ".tar":
            self._take_tar(uri, info, facts)
        else:
            self._add(uri, info, facts)

    def _take_tar(self, tar: str, info: FileInfo, facts: Mapping[str, Any]) -> None:
        contents = tar_contents(tar)
        self.notes += [f"{tar}{note}" for note in contents.notes]
        if contents.problem:
            self.notes.append(f"{tar}: {contents.problem}")
            self._add(tar, info, facts)  # fails with the problem; the members before it are taken
        open_members = [m for m in contents.members if not _is_hidden(m.name)]
        media = [m for m in open_members if _suffix(m.name) in MEDIA_SUFFIXES]
        sidecars = [m for m in open_members if _suffix(m.name) in SIDECARS]
        of_member, notes = sidecar_facts(tar, media, sidecars)
        self.notes += notes
        for member in media:
            uri = f"{tar}#{member.name}"
            inside = FileInfo(uri=uri, size_bytes=member.nbytes, mtime_ns=info.mtime_ns)
            self._add(uri, inside, {**facts, **of_member.get(member.name, {})})
        taken = {member.name for member in (*media, *sidecars)}
        self.ignored += [f"{tar}#{m.name}" for m in contents.members if m.name not in taken]

    def _add(self, uri: str, info: FileInfo | None, facts: Mapping[str, Any]) -> None:
        size_bytes, mtime_ns = (info.size_bytes, info.mtime_ns) if info else (None, None)
        key = fingerprint([uri, size_bytes, mtime_ns])  # facts are no part of it: they never decode again
        row = {"source_key": key, "uri": uri, "size_bytes": size_bytes or 0, "mtime_ns": mtime_ns or 0}
        known = self.rows.setdefault(uri, row)
        self.repeats += known is not row
        for name, value in facts.items():
            if known.setdefault(name, value) != value:
                self.notes.append(f"{uri}: named twice with another {name}; the first counts")


def _member_infos(entries: Sequence[Entry]) -> dict[str, FileInfo]:
    """Uri → what is known of each listed `path.tar#member` that there is; each tar is looked into once."""
    of_tar: dict[str, set[str]] = {}
    for entry in entries:
        tar, name = split_member(entry.uri) or ("", "")
        if tar:
            of_tar.setdefault(tar, set()).add(name)
    infos: dict[str, FileInfo] = {}
    for tar, names in of_tar.items():
        try:
            members, around = tar_members(tar)[0], stat(tar)
        except StorageError:  # whoever reads it will say why
            continue
        for member in members if around else ():
            if around and member.name in names:
                uri = f"{tar}#{member.name}"
                infos[uri] = FileInfo(uri=uri, size_bytes=member.nbytes, mtime_ns=around.mtime_ns)
    return infos


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") and part != ".." for part in name.split("/"))


def is_image(uri: str) -> bool:
    """Whether a file is a picture by its name."""
    return uri.lower().endswith(IMAGE_SUFFIXES)


def _suffix(uri: str) -> str:
    """As pathlib says it, at a tenth of its time: a run asks it of every file, twice."""
    name = uri.rstrip("/").rpartition("/")[2]
    dot = name.rfind(".")
    return name[dot:].lower() if 0 < dot < len(name) - 1 else ""
