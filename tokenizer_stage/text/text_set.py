"""A set of text features as it lies below text/, both ways.

In: a folder, local or s3://. Out: its description and the features of a text, checked. Never: an encoder.
"""

import io
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import FormatError
from pipeline.settings import build, to_toml
from pipeline.storage import Storage, sha256_hex

KINDS = ("detailed", "original", "short")
NULL_NAME, INFO_NAME = "null.npy", "text.toml"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextInfo:
    """text.toml: what made the features. `limit` is in tokens, of which a text had more than that the rest is
    in no features (`cut_tokens` of its row)."""

    encoder: str
    family: str
    identity: str
    width: int
    limit: int
    template: str
    compute_dtype: str
    captions: str
    dtype: str = "float16"
    format_version: int = FORMAT_VERSION


def set_name(captions: str, encoder: str) -> str:
    """The folder below text/ of a caption set's features by an encoder."""
    return f"{captions}.{encoder}"


def info_to_toml(info: TextInfo) -> bytes:
    return to_toml(info).encode()


class TextSet:
    """Reads one set: `root` is the folder text/<captions>.<encoder>."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        data = self.storage.read_if_there(INFO_NAME)
        if data is None:
            raise FormatError(f"no text features at {root}", expected=INFO_NAME, fix="run framemill text")
        values = tomllib.loads(data.decode())
        if values.get("format_version") != FORMAT_VERSION:
            raise FormatError(f"{root} has another format", expected=f"format_version {FORMAT_VERSION}")
        self.info = build(TextInfo, values)

    def null(self) -> np.ndarray:
        """float16 [L, D] of the empty text."""
        return _parsed(self.storage.read_bytes(NULL_NAME), self.info.width)

    def features(self, row: Mapping[str, Any]) -> np.ndarray:
        """float16 [L, D] of a row of TEXTS.

        Raises:
            FormatError: the bytes are not those that were written.
        """
        data = self.storage.read_bytes(row["shard"], offset=row["offset"], nbytes=row["nbytes"])
        if sha256_hex(data) != row["sha256"]:
            raise FormatError(
                f"the features of {row['clip_id']} in {row['shard']} are damaged",
                expected=f"sha256 {row['sha256'][:12]}…",
                fix="delete that file and its rows: framemill text --retry-failed",
            )
        return _parsed(data, self.info.width)


def _parsed(data: bytes, width: int) -> np.ndarray:
    features: np.ndarray = np.load(io.BytesIO(data), allow_pickle=False)
    if features.dtype != np.float16 or features.ndim != 2 or features.shape[1] != width:
        raise FormatError(f"features {features.dtype} {features.shape}", expected=f"float16 [L, {width}]")
    return features
