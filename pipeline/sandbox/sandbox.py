"""A child process that opens untrusted media under limits of time and memory.

In: calls on `Sandbox` (a local path and plain arguments), under one set of limits. Out: plain rows and
arrays. A crash, a hang, or a file that asks for too much memory costs that one call: it becomes a MediaError
with the reason, and the next call starts a new child. The child never imports torch, the parent never imports
a codec; they exchange one JSON header and raw buffers over pipes, never pickles. The child has none of the
parent's secrets (pipeline/children/process.py).
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.children.process import ChildProcess
from pipeline.children.wire import Message
from pipeline.config import AnalyzeConfig, DecodeLimits
from pipeline.corpus.tables import SourceAnalysis
from pipeline.engine.resources import thread_settings
from pipeline.errors import MediaError, UsageError
from pipeline.sandbox.answers import unpack_analyses, unpack_analysis, unpack_jpegs
from pipeline.shots.boundaries import Boundary
from pipeline.storage import Buffer

DEFAULT_LIMITS = AnalyzeConfig().limits()  # where no corpus has its own
STILLS_DEADLINE_S = 60.0  # of many stills in one call; whoever asks does without it
ENVIRONMENT = {
    # Few malloc arenas: each thread's own would count 64 MB of address space against the limit. Large blocks
    # are kept for the next batch of frames: faulting them in anew doubles its arithmetic.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_MMAP_THRESHOLD_": str(2**26),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    **thread_settings(1),
}


class Sandbox:
    """One decoding child, started on first use and again after a failure. Not shared between threads.

    `limits` hold for every call; those that a call's own config has do not count."""

    def __init__(self, limits: DecodeLimits = DEFAULT_LIMITS) -> None:
        self.limits = limits
        self._child = ChildProcess(
            "pipeline.sandbox.child",
            label="the decoding child",
            arguments=[json.dumps(asdict(limits))],
            environment=ENVIRONMENT,
            quiet=True,
        )

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def confined(self) -> tuple[str, ...]:
        """What the running child cannot reach: "sockets", "files"; nothing before the first call."""
        return tuple(self._child.hello.get("confined", ()))

    def analyze(
        self, path: str | Path, config: AnalyzeConfig, boundaries: Sequence[Boundary] | None = None
    ) -> SourceAnalysis:
        """Everything one pass over the file tells; a file that cannot be decoded raises MediaError.
        `boundaries`: those of its shots, where a detector by name has found them."""
        given = None if boundaries is None else [asdict(boundary) for boundary in boundaries]
        header, data = self._call("analyze", path=str(path), config=self._limited(config), boundaries=given)
        return unpack_analysis(header, data)

    def analyze_stills(
        self, contents: Sequence[Buffer], config: AnalyzeConfig
    ) -> list[SourceAnalysis | None]:
        """What `analyze` gives of each of many small files, whose bytes go with the message: the child opens
        none. None for a file of which only `analyze` can tell: no still, or one that cannot be read.
        MediaError when the child died or took too long: `analyze` of each tells which file's fault it is."""
        sizes = [len(content) for content in contents]
        request = {"function": "analyze_stills", "sizes": sizes, "config": self._limited(config)}
        deadline_s = min(self.limits.deadline_s, STILLS_DEADLINE_S)
        return unpack_analyses(*self._ask(request, contents, sum(sizes), deadline_s))

    def header(self, path: str | Path) -> dict[str, Any]:
        """What a file says of itself without being decoded (pipeline.onepass.pieces.header)."""
        return self._call("header", path=str(path))[0]

    def count_pieces(self, path: str | Path, config: AnalyzeConfig) -> int:
        """Into how many pieces (pipeline/onepass/pieces.py) a long file is cut."""
        return int(self._call("count_pieces", path=str(path), config=self._limited(config))[0]["pieces"])

    def watch_piece(self, path: str | Path, config: AnalyzeConfig, piece: int, pieces: int) -> Buffer:
        """The pass over one piece of a long file, packed; MediaError when pieces cannot be trusted."""
        limited = self._limited(config)
        return self._call("watch_piece", path=str(path), config=limited, piece=piece, pieces=pieces)[1]

    def join_pieces(
        self, path: str | Path, config: AnalyzeConfig, sizes: Sequence[int], packed: Iterable[Buffer]
    ) -> SourceAnalysis:
        """What `analyze` gives, from all pieces, whose sizes in bytes are known before they are read: one
        lies in memory at a time. MediaError when they do not fit."""
        arguments = {"path": str(path), "config": self._limited(config), "sizes": list(sizes)}
        return unpack_analysis(*self._call("join_pieces", packed, sum(sizes), **arguments))

    def read_span(
        self,
        path: str | Path,
        *,
        kind: str = "video",
        times_s: Sequence[float],
        crop: Sequence[int],
        width_px: int,
        height_px: int,
        expected_phash: int | None = None,
    ) -> np.ndarray:
        """uint8 [T, H, W, 3] RGB: the frames on screen at `times_s` (ascending), cropped and scaled.

        `crop` is [x, y, w, h] in display pixels. `expected_phash` is the clip's first; with it a late span is
        sought instead of decoded from the start, and checked against it.
        """
        header, data = self._call(
            "read_span",
            path=str(path),
            kind=kind,
            times_s=[float(t) for t in times_s],
            crop=[int(v) for v in crop],
            width_px=width_px,
            height_px=height_px,
            expected_phash=expected_phash,
        )
        return np.frombuffer(data, np.uint8).reshape(header["shape"])  # [T, H, W, 3]

    def read_strip(
        self,
        path: str | Path,
        *,
        kind: str = "video",
        times_s: Sequence[float],
        crop: Sequence[int],
        config: AnalyzeConfig,
    ) -> list[bytes]:
        """JPEG frames: the filmstrip that `analyze` makes of the frames on screen at `times_s` (ascending),
        where the active picture is `crop`, [x, y, w, h] in display pixels."""
        header, data = self._call(
            "read_strip",
            path=str(path),
            kind=kind,
            times_s=[float(t) for t in times_s],
            crop=[int(v) for v in crop],
            long_px=config.strip_long_px,
            quality=config.strip_quality,
        )
        return unpack_jpegs(header, data)

    def thumbnails(self, path: str | Path, *, width_px: int, height_px: int) -> np.ndarray:
        """uint8 [N, H, W, 3] RGB: every frame, whole and scaled. For sizes at which a whole video fits."""
        header, data = self._call("thumbnails", path=str(path), width_px=width_px, height_px=height_px)
        return np.frombuffer(data, np.uint8).reshape(header["shape"])  # [N, H, W, 3]

    def write_video(self, path: str | Path, frames: np.ndarray, fps: float, crf: int = 16) -> None:
        """Encode uint8 RGB [T, H, W, 3] (even sizes) to H.264 in MP4."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise UsageError(f"frames {frames.dtype} {frames.shape}", expected="uint8 [T, H, W, 3]")
        pixels = np.ascontiguousarray(frames)
        arguments = {"path": str(path), "shape": list(pixels.shape), "fps": float(fps), "crf": crf}
        self._call("write_video", [pixels.tobytes()], pixels.nbytes, **arguments)

    @property
    def pid(self) -> int:
        """The child's process id; it is started if need be."""
        return self._child.pid

    def close(self) -> None:
        """Ends the child; so does the end of this object."""
        self._child.close()

    def _limited(self, config: AnalyzeConfig) -> dict[str, Any]:
        return asdict(replace(config, **asdict(self.limits)))

    def _call(
        self, function: str, data: Iterable[Buffer] = (), data_bytes: int = 0, **arguments: Any
    ) -> Message:
        return self._ask({"function": function, **arguments}, data, data_bytes, self.limits.deadline_s)

    def _ask(
        self, request: dict[str, Any], data: Iterable[Buffer], data_bytes: int, deadline_s: float
    ) -> Message:
        try:
            header, answer = self._child.ask(request, data, data_bytes, deadline_s=deadline_s)
        except TimeoutError as error:
            raise MediaError(f"decoding took longer than {deadline_s:g} s") from error
        except EOFError as error:
            raise MediaError(f"the decoder died: {error}") from error
        if kind := header.pop("error", None):
            if kind == "MemoryError":
                self.close()  # what it has allocated so far may be fragmented
                raise MediaError(f"needs more than {self.limits.memory_gb:g} GB of memory")
            raise (UsageError if kind == "UsageError" else MediaError)(
                header["what"], expected=header["expected"], fix=header["fix"]
            )
        return header, answer
