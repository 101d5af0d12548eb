"""Messages between the decoding child and its parent, both ways: lengths, a JSON header, raw buffers.

In: a stream. Out: messages, under a deadline. Never: a pickle.
"""

import json
import os
import select
import struct
import time
from collections.abc import Iterable, Sequence
from typing import IO, Any

from pipeline.corpus.tables import SourceAnalysis
from pipeline.errors import StorageError
from pipeline.storage import Buffer

LENGTHS = struct.Struct("<QQ")  # bytes of the JSON header, bytes of the buffers that follow it


Message = tuple[dict[str, Any], memoryview]


def _analysis(header: dict[str, Any], data: Buffer) -> SourceAnalysis:
    at = 0
    for strip in header["strips"]:
        sizes = strip.pop("sizes")
        strip["frames"] = []
        for size in sizes:
            strip["frames"].append(data[at : at + size])
            at += size
        strip["print"] = strip["frames"].pop()
    return SourceAnalysis(source=header["source"], clips=header["clips"], strips=header["strips"])


def send(stream: IO[bytes], header: dict[str, Any], data: Iterable[Buffer], data_bytes: int) -> None:
    """One message: the lengths, a JSON header, the buffers (`data_bytes` in all). They are neither joined nor
    held: hours of film fill a GB."""
    text = json.dumps(header).encode()
    stream.write(LENGTHS.pack(len(text), data_bytes))
    stream.write(text)
    for part in data:
        stream.write(part)
        data_bytes -= len(part)
    if data_bytes:
        raise StorageError("the data to send has another size than was said", fix="run the command again")
    stream.flush()


def receive(stream: IO[bytes], ends_at: float | None) -> Message:
    """One message; EOFError when the other side is gone, TimeoutError after `ends_at` (monotonic)."""
    header_bytes, data_bytes = LENGTHS.unpack(_read(stream, LENGTHS.size, ends_at))
    header = json.loads(bytes(_read(stream, header_bytes, ends_at)))
    return header, _read(stream, data_bytes, ends_at)


def _read(stream: IO[bytes], count: int, ends_at: float | None) -> memoryview:
    parts = memoryview(bytearray(count))
    at = 0
    while at < count:
        if ends_at is not None:
            ready, _, _ = select.select([stream.fileno()], [], [], max(0.0, ends_at - time.monotonic()))
            if not ready:
                raise TimeoutError
        got = os.readv(stream.fileno(), [parts[at : at + (1 << 20)]])
        if not got:
            raise EOFError
        at += got
    return parts.toreadonly()


Answer = tuple[dict[str, Any], Sequence[Buffer]]


def _packed(found: SourceAnalysis) -> Answer:
    buffers = [[*strip["frames"], strip["print"]] for strip in found.strips]
    frames = [buffer for several in buffers for buffer in several]
    strips = [
        s | {"frames": None, "print": None, "sizes": [len(b) for b in several]}
        for s, several in zip(found.strips, buffers, strict=True)
    ]
    return {"source": found.source, "clips": found.clips, "strips": strips}, frames
