"""A Ray cluster on this machine whose nodes come and go: a raylet a node, each in processes of its own.

In: how many CPUs a node has. Out: nodes that can be killed as a lost machine would be. Never: an import of
Ray, a port of a range that workers or other programs use, a process that was not started here. Linux only.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipeline.endurance.kill import descendants
from pipeline.endurance.store import free_port
from pipeline.errors import FramemillError

STARTED_S = 90.0
PORTS = 200  # of the workers of a node; Ray's own default, from 10002 to 19999, may be another cluster's
FIRST_PORT = 20100


class Raylets:
    """Use it as a context. `folder` must be short: Ray puts sockets below it, whose paths have 107 bytes."""

    def __init__(self, folder: Path, *, head_cpus: int = 0, token: str = "") -> None:
        """With a `token` the cluster refuses who does not bring it."""
        self._folder, self._head_cpus, self._nodes = folder, head_cpus, list[subprocess.Popen[bytes]]()
        self._port = free_port()
        self.environment = {
            **os.environ,
            "RAY_ADDRESS": f"127.0.0.1:{self._port}",
            "RAY_AUTH_MODE": "disabled",
        }
        if token:
            (folder / "token").write_text(token)
            path = str(folder / "token")
            self.environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": path}

    def __enter__(self) -> "Raylets":
        head = [
            "--head",
            f"--port={self._port}",
            f"--num-cpus={self._head_cpus}",
            "--include-dashboard=false",
        ]
        try:
            self._start(*head, f"--temp-dir={self._folder / 'ray'}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in reversed(self._nodes):
            self.kill(node)

    def add(self, cpus: int = 1) -> subprocess.Popen[bytes]:
        """One more node."""
        return self._start(f"--address=127.0.0.1:{self._port}", f"--num-cpus={cpus}")

    def named(self, name: str) -> subprocess.Popen[bytes]:
        """The node that workers on it call so: `host (the first digits of its id)`."""
        digits = name.rpartition("(")[2].rstrip(")")
        return next(node for node in self._nodes if _raylet_id(node).startswith(digits))

    def kill(self, node: subprocess.Popen[bytes]) -> None:
        """Takes a node away at once, its raylet before its workers."""
        pids = [pid for pid, _ in descendants(node.pid)]
        for pid in [*pids, node.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        node.wait()

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        number = len(self._nodes)
        first = FIRST_PORT + os.getpid() % 40 * 1000 // 2 + number * PORTS % 5000
        log = self._folder / f"node-{number}.log"
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", *words]
        command += [f"--min-worker-port={first}", f"--max-worker-port={first + PORTS - 1}"]
        command += ["--disable-usage-stats", "--object-store-memory=100000000"]
        with open(log, "wb") as out:
            node = subprocess.Popen(
                command,
                env=self.environment | {"RAY_worker_niceness": "0"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._nodes.append(node)
        ends_at = time.monotonic() + STARTED_S
        while b"Ray runtime started" not in log.read_bytes():
            if node.poll() is not None or time.monotonic() > ends_at:
                said = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise FramemillError(f"no Ray node could be started: {' '.join(said)}")
            time.sleep(0.1)
        return node


def _raylet_id(node: subprocess.Popen[bytes]) -> str:
    """The id of a node, as its raylet was given it; a word that no id begins with where it has none."""
    lines = [words for _, words in descendants(node.pid) if words.split(b"\0")[0].endswith(b"/raylet")]
    ids = [re.search(rb"--node_id=(\w+)", words) for words in lines]
    return next((match[1].decode() for match in ids if match), "none")
