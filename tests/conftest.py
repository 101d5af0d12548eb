"""Shared fixtures: where the large media set lies, when it is there; signals that processes heed."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import s3, server_port  # noqa: F401  (fixtures of several files)

from pipeline.engine.resources import let_waiting_threads_sleep

let_waiting_threads_sleep(os.environ)  # before a test imports torch, and for the processes that tests start


@pytest.fixture(scope="session")
def media_dir() -> Path:
    """The real-media test set: $FRAMEMILL_MEDIA, or ../shared/media beside the checkout."""
    default = Path(__file__).resolve().parents[2] / "shared" / "media"
    folder = Path(os.environ.get("FRAMEMILL_MEDIA", default))
    if not (folder / "clips").is_dir():
        pytest.skip(f"no media set at {folder}; set FRAMEMILL_MEDIA")
    return folder


@pytest.fixture
def signals_heeded() -> Iterator[None]:
    """Processes that the test starts end on Ctrl-C and SIGHUP, also where nohup or a script's background
    started the tests: such a start ignores these signals, and children inherit that."""
    ignored = [s for s in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(s) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
