"""Metrics over HTTP, for a Prometheus that scrapes: GET /metrics, and nothing else.

In: what gives the text of the metrics now. Out: a server until the process is stopped. An error of the
storage is an answer of 503 with its words, and the server goes on. Never: a file, a request that changes
something.
"""

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pipeline.errors import FramemillError, UsageError
from pipeline.operation.metrics import CONTENT_TYPE

HERE = "127.0.0.1"  # who may scrape, unless told otherwise: there is no login


def address(text: str) -> tuple[str, int]:
    """`9178` is a port of this machine alone; `0.0.0.0:9178` (or `:9178`) one that others reach."""
    host, colon, port = text.rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise ValueError(text)
    return (host or "0.0.0.0") if colon else HERE, int(port)


def server(at: tuple[str, int], metrics: Callable[[], str]) -> ThreadingHTTPServer:
    """A server that is bound and not yet serving; port 0 is any that is free."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "only /metrics is here")
                return
            try:
                code, text = 200, metrics()
            except FramemillError as error:
                code, text = 503, f"{error}\n"
            data = text.encode()
            self.send_response(code)
            self.send_header("Content-Type", CONTENT_TYPE if code == 200 else "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """A scrape every quarter minute is no news."""

    try:
        return ThreadingHTTPServer(at, Handler)
    except OSError as error:
        where = f"{at[0]}:{at[1]}"
        raise UsageError(f"cannot serve at {where}: {error.strerror}", fix="--serve another port") from error
