"""What files say of themselves: the length and the pixels that a run over them would decode.

In: rows of the inputs table. Out: a `Header` for each that was asked. Never: a decoded picture beyond a
video's first. What lies on S3 or in a tar is copied to be asked, so of such files no more are asked than fit
into COPIED_BYTES.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.engine.stage import Failure, guard
from pipeline.sandbox.sandbox import Sandbox
from pipeline.uris import local_path

ASKED = 512  # files, of which a laptop asks some fifty a second
COPIED_BYTES, FEWEST = 4 << 30, 8
USUAL_FPS, MOST_FPS = 25.0, 1000.0  # of a video that does not say, or says the clock of its times
# What the analysis costs, in the time of a decoded million pixels: a source, and a frame, which is scaled and
# described whatever its size. Fitted to the CPU seconds of 108 real files, with which it correlates by 0.95.
# (Pixels alone do as well, but small pictures then cost several times as much a pixel as large ones.)
WORK_SOURCE, WORK_FRAME = 8.0, 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One file and what its header says; `kind` is empty where it cannot be read, `length_s` 0 of a still and
    of what does not say."""

    source_key: str
    uri: str
    size_bytes: int
    kind: str = ""  # video | image
    width: int = 0
    height: int = 0
    length_s: float = 0.0
    fps: float = 0.0
    may_be_cut: bool = False

    @property
    def frames(self) -> float:
        """As many as a video of this length and rate has; 1 of a still."""
        fps = self.fps if 0 < self.fps < MOST_FPS else USUAL_FPS
        return max(1.0, self.length_s * fps)

    def work(self, seconds: float) -> float:
        """What analysing so many of its seconds costs, a still whole: in decoded millions of pixels."""
        frames = self.frames * (seconds / self.length_s if self.length_s else 1.0)
        return WORK_SOURCE + frames * (WORK_FRAME + self.width * self.height / 1e6)


def read_headers(rows: Sequence[dict[str, Any]], box: Sandbox, seed: int) -> list[Header]:
    """Of as many sources as ASKED and COPIED_BYTES allow: all, or a random part of them."""
    order = sorted(rows, key=lambda row: hashlib.sha256(f"{seed} {row['source_key']}".encode()).digest())
    headers: list[Header] = []
    copied = 0
    for row in order[:ASKED]:
        copied += (row["size_bytes"] or 0) if "://" in row["uri"] or "#" in row["uri"] else 0
        if copied > COPIED_BYTES and len(headers) >= FEWEST:
            break
        headers.append(_header(row, box))
    return headers


def _header(row: dict[str, Any], box: Sandbox) -> Header:
    def ask() -> dict[str, Any]:
        with local_path(row["uri"]) as path:
            return box.header(path)

    said = guard(ask)
    known = {"source_key": row["source_key"], "uri": row["uri"], "size_bytes": row["size_bytes"] or 0}
    return Header(**known) if isinstance(said, Failure) else Header(**known, **said)
