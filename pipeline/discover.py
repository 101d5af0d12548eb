"""What a run takes in: folders, files and s3:// prefixes → the inputs table.

In: one or more paths. Out: a row a file (uri, size, modification time) and the number of files left
out for want of a media extension. Opens no file: what a file really is, the decoder decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pyarrow as pa

from pipeline import tables
from pipeline.config import fingerprint
from pipeline.errors import UsageError
from pipeline.storage import FileInfo, Storage, is_remote, stat

VIDEO = "3gp avi flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv y4m"
IMAGE = "avif bmp jpeg jpg png tif tiff webp"
AUDIO = "aac flac m4a mp3 ogg wav"  # taken in so that they end as `failed: no video stream`
MEDIA_SUFFIXES = frozenset(f".{suffix}" for suffix in f"{VIDEO} {IMAGE} {AUDIO}".split())


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovered:
    """`inputs` has the schema tables.INPUTS, sorted by uri; `ignored` are uris without a media suffix."""

    inputs: pa.Table
    ignored: tuple[str, ...]


def discover(paths: Sequence[str]) -> Discovered:
    """Every media file below the given folders and prefixes, and every file that is named itself.

    Raises:
        UsageError: a path does not exist, or there is no media file below any of them.
    """
    taken: dict[str, FileInfo] = {}
    ignored: list[str] = []
    for path in paths:
        named = stat(path)
        found = [named] if named is not None else list(Storage(path).walk())
        if not found:
            raise UsageError(
                f"no files at {path}", expected="a media file, a folder or an s3:// prefix with media files"
            )
        for info in found:
            uri = info.uri if is_remote(info.uri) else str(PurePosixPath(info.uri))
            if named is not None or PurePosixPath(uri).suffix.lower() in MEDIA_SUFFIXES:
                taken[uri] = info
            else:
                ignored.append(uri)
    if not taken:
        raise UsageError(
            f"no media files at {', '.join(paths)}",
            expected=f"files like {', '.join(sorted(MEDIA_SUFFIXES)[:6])}, …",
        )
    rows = [_row(uri, taken[uri]) for uri in sorted(taken)]
    left_out = tuple(sorted(set(ignored) - set(taken)))
    return Discovered(inputs=tables.from_rows(rows, tables.INPUTS), ignored=left_out)


def _row(uri: str, info: FileInfo) -> dict[str, object]:
    key = fingerprint([uri, info.size_bytes, info.mtime_ns])
    return {"source_key": key, "uri": uri, "size_bytes": info.size_bytes, "mtime_ns": info.mtime_ns}
