"""Proof that whoever runs tasks sees the storage that the driver sees, and the driver theirs.

In: the root of a corpus. Out: a question (a small hidden file that lies there while a stage runs) and, of
each node, an answer beside it. Without a shared disk a node would commit its parts to a disk of its own, and
the run would end well with an empty corpus. Never: anything but hidden files, which no reader lists.
"""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pipeline.errors import StorageError
from pipeline.storage import TEMP_PREFIX, Storage, is_remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A file `name` in `root`, whose content is its name. Without a name nothing is asked."""

    root: str
    name: str = ""

    def read(self) -> None:
        """For a worker, before its first task: raises StorageError where the question does not lie."""
        if not self.name:
            return
        storage = Storage(self.root)
        if not storage.exists(self.name) or storage.read_bytes(self.name) != self.name.encode():
            raise not_shared(self.root)

    def answer(self) -> str:
        """For a node, before any task: reads the question, and writes an answer, whose name it returns."""
        self.read()
        name = f"{self.name}-{secrets.token_hex(8)}"
        Storage(self.root).write_bytes(name, name.encode())
        return name

    def hear(self, name: str, node: str) -> None:
        """For the driver: takes an answer in; StorageError where it cannot be seen from here."""
        storage = Storage(self.root)
        if not storage.exists(name):
            raise not_shared(self.root, node)
        storage.delete(name)


@contextmanager
def asked(root: str) -> Iterator[Question]:
    """A question that lies in `root` while the block runs."""
    question = Question(root=os.path.abspath(root) if not is_remote(root) else root, name=_new_name())
    Storage(root).write_bytes(question.name, question.name.encode())
    try:
        yield question
    finally:
        for name in Storage(root).unfinished(question.name):  # and answers that nobody waited for
            Storage(root).delete(name)


def not_shared(root: str, node: str = "") -> StorageError:
    """A node does not see the driver's storage, or the driver not the node's."""
    return StorageError(
        f"the node {node or socket.gethostname()} has another {root} than the command's own machine",
        expected="a corpus that every node reads and writes; no task was run there",
        fix="--out s3://BUCKET/PREFIX, or a folder on a disk that all nodes share",
    )


def _new_name() -> str:
    return f"{TEMP_PREFIX}question-{secrets.token_hex(8)}"
