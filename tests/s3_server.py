"""A real S3 server (moto's), and a proxy before it that fails as a store in trouble does."""

import http.client
import http.server
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from email.utils import formatdate

import pytest

from pipeline.endurance.store import BUCKET, access, store_started
from pipeline.errors import UsageError

__all__ = ["BUCKET", "FaultyProxy", "point_at", "s3", "server_port"]
FAULTS = {  # name → status, code
    "500": (500, "InternalError"),
    "503": (503, "SlowDown"),
    "403": (403, "AccessDenied"),
    "expired": (400, "ExpiredToken"),
    "skewed": (403, "RequestTimeTooSkewed"),
}
SKEW_S = 3600  # of the store's clock, by the Date of its refusals


@pytest.fixture(scope="module")
def server_port() -> Iterator[int]:
    """A fresh S3 server with one bucket."""
    try:
        with store_started() as port:
            yield port
    except UsageError as error:
        pytest.skip(str(error))


class FaultyProxy(http.server.ThreadingHTTPServer):
    """Passes requests on, but answers a share of them as a store in trouble does."""

    daemon_threads = True

    def __init__(self, server_port: int, share: float, faults: tuple[str, ...], seed: int = 0) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behind, self.share, self.faults = server_port, share, faults
        self.draw, self.lock, self.seen = random.Random(seed), threading.Lock(), Counter[str]()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def next_fault(self, path: str) -> str:
        with self.lock:
            fault = self.draw.choice(self.faults) if self.draw.random() < self.share else "none"
            self.seen[fault] += 1
            return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """A connection that was dropped on purpose is no news."""


HOP_BY_HOP = {"content-length", "transfer-encoding", "connection", "expect"}


class Handler(http.server.BaseHTTPRequestHandler):
    server: FaultyProxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        body = self._body()
        fault = self.server.next_fault(self.path)
        if fault in FAULTS:
            status, code = FAULTS[fault]
            date = {"Date": formatdate(time.time() - SKEW_S, usegmt=True)}
            self._answer(status, date, f"<Error><Code>{code}</Code></Error>".encode())
        elif fault != "drop":
            behind = http.client.HTTPConnection("127.0.0.1", self.server.behind)
            passed = {k: v for k, v in self.headers.items() if k.lower() not in HOP_BY_HOP}
            behind.request(self.command, self.path, body, passed)
            found = behind.getresponse()
            data = found.read()
            self._answer(found.status, dict(found.getheaders()), data, cut_off=fault == "cut")
        if fault in ("drop", "cut"):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

    def _answer(self, status: int, headers: dict[str, str], data: bytes, *, cut_off: bool = False) -> None:
        self.send_response_only(status)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(data))
        for name, value in headers.items():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut_off else data)


@pytest.fixture
def s3(server_port: int, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment that points at the server, to point elsewhere with."""
    for name, value in access(server_port).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def point_at(patch: pytest.MonkeyPatch, port: int) -> None:
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
