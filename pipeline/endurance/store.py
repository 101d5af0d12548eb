"""A store on this machine that speaks S3 and forgets all when it ends: moto's server, of the extra `test`.

Out: an environment in which `s3://bucket` is that store. Never: a request to any other store.
"""

import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import FramemillError, UsageError

BUCKET = "s3://bucket"
STARTED_S = 60.0


@contextmanager
def store_started() -> Iterator[int]:
    """The port of a store with an empty bucket. UsageError where moto is not installed."""
    command = str(Path(sys.executable).with_name("moto_server"))
    if not Path(command).is_file():
        raise UsageError("no moto_server beside this Python", fix="pip install 'framemill[test]'")
    port = free_port()
    server = subprocess.Popen([command, "-H", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL)
    try:
        _make_bucket(port)
        yield port
    finally:
        server.kill()
        server.wait()


def _make_bucket(port: int) -> None:
    ends_at = time.monotonic() + STARTED_S
    while time.monotonic() < ends_at:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("PUT", "/bucket")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.5)
    raise FramemillError(f"moto_server did not answer on port {port} for {STARTED_S:.0f} s")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def access(port: int) -> dict[str, str]:
    """The settings of whoever uses the store."""
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
    }


@contextmanager
def environment_set(settings: Mapping[str, str]) -> Iterator[None]:
    """These settings in the environment of this process and of those that it starts meanwhile."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
