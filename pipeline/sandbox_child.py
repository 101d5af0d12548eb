"""The child of `pipeline.sandbox`: answers its calls under limits of memory, one after another.

In: messages on stdin. Out: messages on stdout. Runs three functions and no others: analyze, read_span,
write_video. Never: torch, the network, a pickle; and it does not outlive its parent.
"""

import os
import resource
import sys
import threading
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline import media, onepass
from pipeline.config import AnalyzeConfig, ShotConfig
from pipeline.errors import FramemillError, UsageError
from pipeline.sandbox import receive, send
from pipeline.stage import Failure, guard

MAX_PIXELS = 100_000_000  # of one frame, where no config says otherwise


def _answer(request: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Runs one of the functions a parent may ask for; there are no others."""
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
            request, data = receive(requests, None)
        except EOFError:
            return
        answer = guard(partial(_answer_or_error, request, data))
        if isinstance(answer, Failure):  # whatever else a decoder raises becomes this input's reason
            answer = {"error": "MediaError", "what": answer.reason, "expected": "", "fix": ""}, b""
        send(answers, *answer)


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
