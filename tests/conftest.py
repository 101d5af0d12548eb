"""Shared fixtures: where the large media set lies, when it is there."""

import os
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
