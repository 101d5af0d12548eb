"""A child process that answers messages (pipeline/children/wire.py), one after another.

In: the name of a module that serves messages on stdin and stdout. Out: answers, under a deadline for both
ways. A child that hangs or dies costs that one call; the next starts a new one. The child has none of the
parent's secrets: of the environment it gets what PASSED_ON names. Never: a shell, code from the current
folder.
"""

import os
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.children.wire import Message, receive, send
from pipeline.errors import FramemillError
from pipeline.storage import Buffer

START_S = 120.0  # a child that has not said hello by then is not going to
END_S = 5.0  # a child that has closed its pipes has so long to end by itself
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR", "PYTHONHOME", "OMP_WAIT_POLICY")


class ChildProcess:
    """`python -P -m module`, started on first use and again after its end. Not shared between threads.

    `label` names it in errors. The child's first message is a hello; its header is kept in `hello`."""

    def __init__(
        self,
        module: str,
        *,
        label: str,
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        quiet: bool = False,
    ) -> None:
        self.module, self.label, self.arguments = module, label, tuple(arguments)
        self.environment, self.quiet = dict(environment or {}), quiet
        self.hello: dict[str, Any] = {}
        self._child: subprocess.Popen[bytes] | None = None
        self._end: Callable[[], object] = lambda: None

    @property
    def pid(self) -> int:
        """The child's process id; it is started if need be."""
        return self._running().pid

    def ask(
        self,
        header: dict[str, Any],
        data: Iterable[Buffer] = (),
        data_bytes: int = 0,
        *,
        deadline_s: float,
    ) -> Message:
        """The child's answer to one message. TimeoutError when that takes longer than `deadline_s`, EOFError
        (with how) when the child dies; what reading `data` raises passes through. After any of them the child
        is gone."""
        child = self._running()
        assert child.stdin is not None
        assert child.stdout is not None
        ends_at = time.monotonic() + deadline_s
        try:
            send(child.stdin, header, data, data_bytes, ends_at)
            return receive(child.stdout, ends_at)
        except (EOFError, BrokenPipeError) as error:
            reason = _death(child)
            self.close()
            raise EOFError(reason) from error
        except BaseException:  # half a message is on its way: nothing that follows would be understood
            self.close()
            raise

    def close(self) -> None:
        """Ends the child; so does the end of this object."""
        self._child = None
        self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._child = self._start()
        return self._child

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        environment = self.environment | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment["PYTHONPATH"] = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", self.module, *self.arguments],  # -P: no code from the cwd
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if self.quiet else None,
            env=environment,
            bufsize=0,
        )
        self._end = weakref.finalize(self, _end, child)
        assert child.stdin is not None
        assert child.stdout is not None
        os.set_blocking(child.stdin.fileno(), False)
        try:
            self.hello, _ = receive(child.stdout, time.monotonic() + START_S)
        except (EOFError, TimeoutError) as error:
            self.close()
            check = f'PYTHONPATH={root} {sys.executable} -P -c "import {self.module}"'
            raise FramemillError(
                f"{self.label} does not start", fix=f"see what this says: {check}"
            ) from error
        return child


def _end(child: subprocess.Popen[bytes]) -> None:
    """A Popen that nobody holds does not end its child: it is kept until the child ends by itself."""
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        assert pipe is not None
        pipe.close()


def _death(child: subprocess.Popen[bytes]) -> str:
    try:
        code = child.wait(END_S)
    except subprocess.TimeoutExpired:
        return "it has closed its pipes"
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
