"""The child of `pipeline.sandbox.sandbox`: answers its calls under limits of memory, one after another.

In: the limits, as an argument; messages on stdin. Out: messages on stdout. Runs a few functions and no
others: analyze, the same of small stills sent with the message (analyze_stills), and in pieces (header,
count_pieces, watch_piece, join_pieces), read_span, read_strip, thumbnails, write_video. Never: torch, the
network, another program, a pickle; and it does not outlive its parent. Each file is decoded in a thread that
can read only that file, or none (pipeline.sandbox.confine, as far as the kernel can).
"""

import ctypes
import json
import os
import resource
import select
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from pipeline.children.wire import receive, send
from pipeline.config import AnalyzeConfig, DecodeLimits, ShotConfig
from pipeline.ending import ignore_signals
from pipeline.engine.stage import Failure, guard
from pipeline.errors import FramemillError, UsageError
from pipeline.media.encode import write_video
from pipeline.media.spans import read_crop, read_strip, read_thumbnails
from pipeline.onepass import pieces, rows
from pipeline.onepass.stills import analyze_stills
from pipeline.sandbox.answers import Answer, pack_analyses, pack_analysis, pack_jpegs
from pipeline.sandbox.confine import forbid_sockets_and_programs, has_landlock, read_only
from pipeline.shots.boundaries import Boundary
from pipeline.storage import Buffer

LARGE_BYTES = 64 << 20  # of an answer
ANALYSES = ("analyze", "analyze_stills", "count_pieces", "watch_piece", "join_pieces")


def _answer(request: dict[str, Any], data: Buffer, limits: DecodeLimits) -> Answer:
    """Runs one of the functions a parent may ask for; there are no others."""
    function = request.pop("function")
    if function in ANALYSES:
        return _analysis_answer(function, request, data)
    if function == "header":
        return dict(pieces.header(Path(request["path"]))), []
    if function == "read_span":
        span = read_crop(**request, limits=limits)
        return {"shape": list(span.shape)}, [span.tobytes()]
    if function == "read_strip":
        return pack_jpegs(read_strip(**request, limits=limits))
    if function == "thumbnails":
        small = read_thumbnails(**request, limits=limits)
        return {"shape": list(small.shape)}, [small.tobytes()]
    if function == "write_video":
        pixels = np.frombuffer(data, np.uint8).reshape(request["shape"])
        fps = Fraction(request["fps"]).limit_denominator(1001)
        write_video(request["path"], pixels, fps, crf=request["crf"])
        return {}, []
    raise UsageError(f"no function {function!r}")


def _analysis_answer(function: str, request: dict[str, Any], data: Buffer) -> Answer:
    """Those that take an analyze config; the parent has put its limits into that."""
    config = request["config"]
    config = AnalyzeConfig(**(config | {"shots": ShotConfig(**config["shots"])}))
    if function == "analyze_stills":
        return pack_analyses(analyze_stills([bytes(file) for file in _split(data, request["sizes"])], config))
    path = Path(request["path"])
    if function == "count_pieces":
        return {"pieces": pieces.count_pieces(path, config)}, []
    if function == "watch_piece":
        return {}, [pieces.watch_piece(path, config, request["piece"], request["pieces"])]
    if function == "join_pieces":
        return pack_analysis(pieces.join_pieces(path, config, _split(data, request["sizes"])))
    given = request["boundaries"]
    boundaries = None if given is None else [Boundary(**row) for row in given]
    return pack_analysis(rows.analyze_file(path, config, boundaries))


def _split(data: Buffer, sizes: Sequence[int]) -> list[Buffer]:
    """The parts of a message's data, which have these sizes."""
    return [data[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]


def _serve(limits: DecodeLimits) -> None:
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not talk into the protocol
    memory_bytes = int(limits.memory_gb * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    confined = {"sockets": forbid_sockets_and_programs(), "files": has_landlock()}
    send(answers, {"confined": [what for what, holds in confined.items() if holds]}, [], 0, None)
    threading.Thread(target=_die_with, args=(os.getppid(),), daemon=True).start()
    try:
        while True:
            _serve_one(requests, answers, limits)
    except EOFError:
        return


def _serve_one(requests: IO[bytes], answers: IO[bytes], limits: DecodeLimits) -> None:
    """Answers the next request; nothing of it stays in memory."""
    header, buffers = _confined(*receive(requests, None), limits)
    answer_bytes = sum(len(buffer) for buffer in buffers)
    if answer_bytes > LARGE_BYTES:
        _give_back()  # before the parent holds the answer too
    send(answers, header, buffers, answer_bytes, None)
    if answer_bytes > LARGE_BYTES:
        del header, buffers
        _give_back()


def _give_back() -> None:
    """Hands freed memory back to the system, which the allocator would keep for what comes next."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc has it
        trim(0)


def _confined(request: dict[str, Any], data: Buffer, limits: DecodeLimits) -> Answer:
    """The answer, from a thread that can read nothing but the file in question, nothing where the data came
    with the request; one that writes can."""
    ended: list[Answer | Failure] = []

    def work() -> None:
        if request["function"] != "write_video":
            read_only(*([Path(request["path"])] if "path" in request else []))
        ended.append(guard(partial(_answer_or_error, request, data, limits)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if isinstance(ended[0], Failure):  # whatever else a decoder raises becomes this input's reason
        return {"error": "MediaError", "what": ended[0].reason, "expected": "", "fix": ""}, []
    return ended[0]


def _answer_or_error(request: dict[str, Any], data: Buffer, limits: DecodeLimits) -> Answer:
    try:
        return _answer(request, data, limits)
    except MemoryError:
        return {"error": "MemoryError"}, []
    except FramemillError as error:
        texts = {"what": error.what, "expected": error.expected, "fix": error.fix}
        return {"error": type(error).__name__} | texts, []
    except (
        OSError
    ) as error:  # FFmpeg's codes for damaged data are the system's: here, EIO is the file's fault
        what = f"{type(error).__name__}: {error}"
        return {"error": "MediaError", "what": what, "expected": "", "fix": ""}, []


def _die_with(parent: int) -> None:
    """A killed parent cannot kill its child: the child watches for it. Its end of stdin closes with it; the
    parent's id is for one whose end another process holds."""
    hung_up = select.poll()
    hung_up.register(0, 0)  # nothing but a hang-up
    while os.getppid() == parent and not hung_up.poll(1000):
        pass
    os._exit(1)


if __name__ == "__main__":
    ignore_signals()
    _serve(DecodeLimits(**json.loads(sys.argv[1])))
