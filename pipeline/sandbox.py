"""A child process that opens untrusted media under limits of time and memory.

In: calls on `Sandbox` (a local path and plain arguments). Out: plain rows and arrays. A crash, a hang, or
a file that asks for too much memory costs that one call: it becomes a MediaError with the reason, and the
next call starts a new child. The child never imports torch, the parent never imports a codec; they
exchange one JSON header and raw buffers over pipes, never pickles.
"""

import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.config import AnalyzeConfig, ShotConfig
from pipeline.errors import FramemillError, MediaError, UsageError
from pipeline.stage import Failure, guard

LENGTHS = struct.Struct("<QQ")  # bytes of the JSON header, bytes of the buffers that follow it
MAX_PIXELS = 100_000_000  # of one frame, where no config says otherwise


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAnalysis:
    """Rows of the sources, clips and strips tables for one file, without the columns that name the file."""

    source: dict[str, Any]
    clips: list[dict[str, Any]]
    strips: list[dict[str, Any]]


class Sandbox:
    """One decoding child, started on first use and again after a failure. Not shared between threads."""

    def __init__(self, *, deadline_s: float = 600.0, memory_gb: float = 4.0) -> None:
        self.deadline_s, self.memory_gb = deadline_s, memory_gb
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def analyze(self, path: str | Path, config: AnalyzeConfig) -> SourceAnalysis:
        """Everything one pass over the file tells; a file that cannot be decoded raises MediaError."""
        header, data = self._call("analyze", path=str(path), config=asdict(config))
        at = 0
        for strip in header["strips"]:
            sizes = strip.pop("sizes")
            strip["frames"] = []
            for size in sizes:
                strip["frames"].append(data[at : at + size])
                at += size
        return SourceAnalysis(source=header["source"], clips=header["clips"], strips=header["strips"])

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

    def write_video(self, path: str | Path, frames: np.ndarray, fps: float, crf: int = 16) -> None:
        """Encode uint8 RGB [T, H, W, 3] (even sizes) to H.264 in MP4."""
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3:
            raise UsageError(f"frames {frames.dtype} {frames.shape}", expected="uint8 [T, H, W, 3]")
        pixels = np.ascontiguousarray(frames)
        self._call(
            "write_video", pixels.tobytes(), path=str(path), shape=list(pixels.shape), fps=float(fps), crf=crf
        )

    def close(self) -> None:
        """Ends the child."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                assert pipe is not None
                pipe.close()

    def _call(self, function: str, data: bytes = b"", **arguments: Any) -> tuple[dict[str, Any], bytes]:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        ends_at = time.monotonic() + self.deadline_s
        try:
            _send(child.stdin, {"function": function, **arguments}, data)
            header, answer = _receive(child.stdout, ends_at)
        except TimeoutError as error:
            self.close()
            raise MediaError(f"decoding took longer than {self.deadline_s:g} s") from error
        except (EOFError, BrokenPipeError) as error:
            child.wait()
            reason = _death(child.returncode)
            self.close()
            raise MediaError(f"the decoder died: {reason}") from error
        if kind := header.pop("error", None):
            if kind == "MemoryError":
                self.close()  # what it has allocated so far may be fragmented
                raise MediaError(f"needs more than {self.memory_gb:g} GB of memory")
            raise (UsageError if kind == "UsageError" else MediaError)(
                header["what"], expected=header["expected"], fix=header["fix"]
            )
        return header, answer

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            root = str(Path(__file__).resolve().parent.parent)
            paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            # Few malloc arenas: each thread's own would count 64 MB of address space against the limit.
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "MALLOC_ARENA_MAX": "2"}
            environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            self._child = subprocess.Popen(
                [sys.executable, "-m", "pipeline.sandbox", str(int(self.memory_gb * 2**30))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
        return self._child


def _send(stream: IO[bytes], header: dict[str, Any], data: bytes) -> None:
    text = json.dumps(header).encode()
    stream.write(LENGTHS.pack(len(text), len(data)))
    stream.write(text)
    stream.write(data)
    stream.flush()


def _receive(stream: IO[bytes], ends_at: float | None) -> tuple[dict[str, Any], bytes]:
    """One message; EOFError when the other side is gone, TimeoutError after `ends_at` (monotonic)."""
    header_bytes, data_bytes = LENGTHS.unpack(_read(stream, LENGTHS.size, ends_at))
    header = json.loads(_read(stream, header_bytes, ends_at))
    return header, _read(stream, data_bytes, ends_at)


def _read(stream: IO[bytes], count: int, ends_at: float | None) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        if ends_at is not None:
            ready, _, _ = select.select([stream.fileno()], [], [], max(0.0, ends_at - time.monotonic()))
            if not ready:
                raise TimeoutError
        part = os.read(stream.fileno(), min(count - len(parts), 1 << 20))
        if not part:
            raise EOFError
        parts += part
    return bytes(parts)


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


# --- the child's side
# -------------------------------------------------------------------------------------------


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Runs one of the functions a parent may ask for; there are no others."""
    from pipeline import media, onepass

    function = request.pop("function")
    if function == "analyze":
        config = request["config"]
        config["shots"] = ShotConfig(**config["shots"])
        found = onepass.analyze_file(Path(request["path"]), AnalyzeConfig(**config))
        frames = [frame for strip in found.strips for frame in strip["frames"]]
        strips = [s | {"frames": None, "sizes": [len(f) for f in s["frames"]]} for s in found.strips]
        return {"source": found.source, "clips": found.clips, "strips": strips}, b"".join(frames)
    if function == "read_span":
        span = onepass.read_crop(**request, max_pixels=MAX_PIXELS)
        return {"shape": list(span.shape)}, span.tobytes()
    if function == "write_video":
        pixels = np.frombuffer(data, np.uint8).reshape(request["shape"])
        fps = Fraction(request["fps"]).limit_denominator(1001)
        media.write_video(request["path"], pixels, fps, crf=request["crf"])
        return {}, b""
    raise UsageError(f"no function {function!r}")


def _serve(memory_bytes: int) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not talk into the protocol
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    while True:
        try:
            request, data = _receive(requests, None)
        except EOFError:
            return
        answer = guard(partial(_answer_or_error, request, data))
        if isinstance(answer, Failure):  # whatever else a decoder raises becomes this input's reason
            answer = {"error": "MediaError", "what": answer.reason, "expected": "", "fix": ""}, b""
        _send(answers, *answer)


def _answer_or_error(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    try:
        return _answer(request, data)
    except MemoryError:
        return {"error": "MemoryError"}, b""
    except FramemillError as error:
        texts = {"what": error.what, "expected": error.expected, "fix": error.fix}
        return {"error": type(error).__name__} | texts, b""


def _die_with(parent: int) -> None:
    """A killed parent cannot kill its child: the child watches for it."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
