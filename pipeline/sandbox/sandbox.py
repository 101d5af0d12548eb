"""A child process that opens untrusted media under limits of time and memory.

In: calls on `Sandbox` (a local path and plain arguments). Out: plain rows and arrays. A crash, a hang, or
a file that asks for too much memory costs that one call: it becomes a MediaError with the reason, and the
next call starts a new child. The child never imports torch, the parent never imports a codec; they
exchange one JSON header and raw buffers over pipes, never pickles. The child has none of the parent's
secrets: of the environment it gets what PASSED_ON names.
"""

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import AnalyzeConfig
from pipeline.corpus.tables import SourceAnalysis
from pipeline.engine.resources import WAIT_POLICY, set_threads
from pipeline.errors import FramemillError, MediaError, StorageError, UsageError
from pipeline.sandbox.wire import Message, _analysis, receive, send
from pipeline.shots.boundaries import Boundary
from pipeline.storage import Buffer

START_S = 120.0  # a child that has not said hello by then is not going to
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONHOME", WAIT_POLICY)


class Sandbox:
    """One decoding child, started on first use and again after a failure. Not shared between threads."""

    def __init__(self, *, deadline_s: float = 600.0, memory_gb: float = 4.0) -> None:
        self.deadline_s, self.memory_gb = deadline_s, memory_gb
        self.confined: tuple[str, ...] = ()  # what the running child cannot reach: "sockets", "files"
        self._child: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def analyze(
        self, path: str | Path, config: AnalyzeConfig, named: Sequence[Boundary] | None = None
    ) -> SourceAnalysis:
        """Everything one pass over the file tells; a file that cannot be decoded raises MediaError. `named`:
        shot boundaries that another detector has found."""
        rows = None if named is None else [asdict(boundary) for boundary in named]
        return _analysis(*self._call("analyze", path=str(path), config=asdict(config), named=rows))

    def count_parts(self, path: str | Path, config: AnalyzeConfig) -> int:
        """Into how many parts (pipeline/onepass/pieces.py) a long file is cut."""
        return int(self._call("count_parts", path=str(path), config=asdict(config))[0]["parts"])

    def length_s(self, path: str | Path) -> float:
        """How long a video says it is, in seconds; 0 for a still."""
        return float(self._call("length_s", path=str(path))[0]["length_s"])

    def watch_part(self, path: str | Path, config: AnalyzeConfig, part: int, parts: int) -> Buffer:
        """The pass over one part of a long file, packed; MediaError when parts cannot be trusted."""
        config_row = asdict(config)
        return self._call("watch_part", path=str(path), config=config_row, part=part, parts=parts)[1]

    def join_parts(
        self, path: str | Path, config: AnalyzeConfig, sizes: Sequence[int], packed: Iterable[Buffer]
    ) -> SourceAnalysis:
        """What `analyze` gives, from all parts, whose sizes in bytes are known before they are read: one lies
        in memory at a time. MediaError when they do not fit."""
        arguments = {"path": str(path), "config": asdict(config), "sizes": list(sizes)}
        return _analysis(*self._call("join_parts", packed, sum(sizes), **arguments))

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
        return self._running().pid

    def close(self) -> None:
        """Ends the child; so does the end of this object."""
        self._child = None
        self._end()

    def _call(
        self, function: str, data: Iterable[Buffer] = (), data_bytes: int = 0, **arguments: Any
    ) -> Message:
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        ends_at = time.monotonic() + self.deadline_s
        try:
            send(child.stdin, {"function": function, **arguments}, data, data_bytes)
            header, answer = receive(child.stdout, ends_at)
        except TimeoutError as error:
            self.close()
            raise MediaError(f"decoding took longer than {self.deadline_s:g} s") from error
        except (EOFError, BrokenPipeError) as error:
            child.wait()
            reason = _death(child.returncode)
            self.close()
            raise MediaError(f"the decoder died: {reason}") from error
        except StorageError:  # while the data was read: the child waits for the rest of it
            self.close()
            raise
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
            root = str(Path(__file__).resolve().parents[2])
            paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
            # Few malloc arenas: each thread's own would count 64 MB of address space against the limit. Large
            # blocks are kept for the next batch of frames: faulting them in anew doubles its arithmetic.
            environment = {"PYTHONPATH": os.pathsep.join(paths), "MALLOC_ARENA_MAX": "2"}
            environment |= {"MALLOC_MMAP_THRESHOLD_": str(2**26), "MALLOC_TRIM_THRESHOLD_": str(2**28)}
            set_threads(environment, 1)
            environment |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
            limit = str(int(self.memory_gb * 2**30))
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", "pipeline.sandbox.child", limit],  # -P: no code from the cwd
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
            )
            self._end = weakref.finalize(self, _end, self._child)
            assert self._child.stdout is not None
            try:
                hello, _ = receive(self._child.stdout, time.monotonic() + START_S)
            except (EOFError, TimeoutError) as error:
                self.close()
                check = f'PYTHONPATH={root} {sys.executable} -P -c "import pipeline.sandbox.child"'
                raise FramemillError(
                    "the decoding child does not start", fix=f"see what this says: {check}"
                ) from error
            self.confined = tuple(hello["confined"])
        return self._child


def _end(child: subprocess.Popen[bytes]) -> None:
    """A Popen that nobody holds does not end its child: it is kept until the child ends by itself."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def _death(code: int | None) -> str:
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"
