"""A worker of pipeline/engine/pool.py: `python -m pipeline.engine.pool_worker FD`.

In (a socket, FD): where modules lie, (stage, question, level of the log), then (task, commit) after (task,
commit). Out: an answer to each task. Ends with its parent, also when that was killed: then the socket closes.
Never: stdin or stdout.
"""

import os
import queue
import sys
import threading
from multiprocessing.connection import Connection
from typing import Any

from pipeline.ending import ignore_signals
from pipeline.engine.answers import AnsweringWorker


def _serve(connection: Connection) -> None:
    sys.path[:] = connection.recv()
    stage, question, level = connection.recv()
    worker = AnsweringWorker(stage, question, level=level)
    messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(connection, messages), daemon=True).start()
    while True:
        task, commit = messages.get()
        connection.send(worker.run(task, commit=commit).to_dict())


def _read(connection: Connection, messages: "queue.SimpleQueue[Any]") -> None:
    """Reads on while the worker works, so that the end of the parent is noticed at once."""
    try:
        while True:
            messages.put(connection.recv())
    finally:
        os._exit(1)


if __name__ == "__main__":
    ignore_signals()
    _serve(Connection(int(sys.argv[1])))
