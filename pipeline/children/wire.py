"""Messages between a process and its child, both ways: lengths, a JSON header, raw buffers.

In: a pipe. Out: messages, each under a deadline: a side that neither reads nor writes is not waited for.
Never: a pickle.
"""

import json
import os
import select
import struct
import time
from collections.abc import Iterable
from typing import IO, Any

from pipeline.errors import StorageError
from pipeline.storage import Buffer

LENGTHS = struct.Struct("<QQ")  # bytes of the JSON header, bytes of the buffers that follow it
CHUNK_BYTES = 1 << 20  # read at a time

Message = tuple[dict[str, Any], memoryview]


def send(
    stream: IO[bytes], header: dict[str, Any], data: Iterable[Buffer], data_bytes: int, ends_at: float | None
) -> None:
    """One message: the lengths, a JSON header, the buffers (`data_bytes` in all). They are neither joined nor
    held: hours of film fill a GB.

    TimeoutError when the other side has not read it by `ends_at` (monotonic; None: never), BrokenPipeError
    when it is gone. With a deadline the stream must not block (os.set_blocking)."""
    text = json.dumps(header).encode()
    _write(stream, LENGTHS.pack(len(text), data_bytes) + text, ends_at)
    for buffer in data:
        _write(stream, buffer, ends_at)
        data_bytes -= len(buffer)
    if data_bytes:
        raise StorageError("the data to send has another size than was said", fix="run the command again")


def receive(stream: IO[bytes], ends_at: float | None) -> Message:
    """One message; EOFError when the other side is gone, TimeoutError after `ends_at` (monotonic)."""
    header_bytes, data_bytes = LENGTHS.unpack(_read(stream, LENGTHS.size, ends_at))
    header = json.loads(bytes(_read(stream, header_bytes, ends_at)))
    return header, _read(stream, data_bytes, ends_at)


def _write(stream: IO[bytes], buffer: Buffer, ends_at: float | None) -> None:
    left = memoryview(buffer)
    while left:
        _wait(stream, select.POLLOUT, ends_at)
        try:
            left = left[os.write(stream.fileno(), left) :]
        except BlockingIOError:  # room for less than the system writes at once
            continue


def _read(stream: IO[bytes], count: int, ends_at: float | None) -> memoryview:
    whole = memoryview(bytearray(count))
    at = 0
    while at < count:
        _wait(stream, select.POLLIN, ends_at)
        read_bytes = os.readv(stream.fileno(), [whole[at : at + CHUNK_BYTES]])
        if not read_bytes:
            raise EOFError
        at += read_bytes
    return whole.toreadonly()


def _wait(stream: IO[bytes], event: int, ends_at: float | None) -> None:
    """Until the stream is ready; poll, not select: a worker may have more than a thousand files open."""
    if ends_at is None:
        return
    poller = select.poll()
    poller.register(stream.fileno(), event)
    if not poller.poll(1000 * max(0.0, ends_at - time.monotonic())):
        raise TimeoutError
