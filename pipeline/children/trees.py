"""What a command costs with all the processes it starts: CPU seconds and memory, watched from outside.

In: a command. Out: `Usage`. Linux only: /proc, and this process takes in the orphans of the tree meanwhile,
so that what a daemon like Ray's leaves behind is still counted, and ended.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UsageError

EVERY_S, MEMORY_EVERY = 0.1, 5  # memory is dear to ask for: each fifth time
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """`peak_gb` is the most that the tree held at one time, shared memory counted once (PSS)."""

    exit_code: int
    cpu_s: float
    wall_s: float
    peak_gb: float

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            exit_code=self.exit_code or other.exit_code,
            cpu_s=self.cpu_s + other.cpu_s,
            wall_s=self.wall_s + other.wall_s,
            peak_gb=max(self.peak_gb, other.peak_gb),
        )


def run_measured(command: list[str], log: Path, limit_s: float) -> Usage:
    """Runs it to its end, its output in the file `log`; what is left of its tree is ended."""
    if not Path("/proc/self/stat").exists():
        raise UsageError("this measures by /proc", expected="Linux")
    with _taking_in_orphans():
        return _watched(command, log, limit_s)


@contextlib.contextmanager
def _taking_in_orphans() -> Iterator[None]:
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def _watched(command: list[str], log: Path, limit_s: float) -> Usage:
    others = _tree(os.getpid())
    began = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        seconds, before, peak_gb, turn = 0.0, 0.0, 0.0, 0
        while process.poll() is None and time.monotonic() - began < limit_s:
            processes = _tree(os.getpid()) - others
            now = sum(map(_cpu_s, processes))
            # Of a process whose parent never takes its end in, the seconds vanish: only growth counts.
            seconds, before = seconds + max(0.0, now - before), now
            if turn % MEMORY_EVERY == 0:
                peak_gb = max(peak_gb, sum(map(_gb, processes)))
            turn += 1
            time.sleep(EVERY_S)
        wall_s = time.monotonic() - began
        for pid in _tree(os.getpid()) - others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = process.wait()
        while _orphan_ended(others):
            pass
    return Usage(exit_code=code, cpu_s=seconds, wall_s=wall_s, peak_gb=peak_gb)


def _orphan_ended(others: set[int]) -> bool:
    """Whether one more process of the tree was reaped."""
    for pid in _tree(os.getpid()) - others - {os.getpid()}:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
            return True
    return False


def _tree(root: int) -> set[int]:
    """A process and all below it."""
    parent_of = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            parent_of[int(entry.name)] = int(fields[1])
    tree, found = {root}, {root}
    while found:
        found = {pid for pid, parent in parent_of.items() if parent in found} - tree
        tree |= found
    return tree


def _cpu_s(pid: int) -> float:
    """Its own, and of the children whose end it has taken in."""
    fields = _stat(pid)
    return sum(map(int, fields[11:15])) * TICK_S if fields else 0.0


def _gb(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")) / 2**20


def _stat(pid: int) -> list[str]:
    """The fields behind the name; none of a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
