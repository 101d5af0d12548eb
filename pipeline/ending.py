"""How a command ends: by itself, by Ctrl-C, by SIGTERM (a spot notice, a scheduler), by a closed terminal.

In: signals. Out: `Stopped` in the main thread, which unwinds the work in hand; an exit code as a shell gives
it. Never a traceback, never a second end inside the first: another signal meanwhile ends the process at once.
"""

import atexit
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
BROKEN_PIPE = 128 + signal.SIGPIPE  # 141, as of any tool whose reader has gone
REASSERT_S = 0.02  # what a library's C code makes of a signal is set right so soon
AGAIN_S = 0.05  # a Stopped that a finaliser swallowed is raised again after so long


class Stopped(KeyboardInterrupt):
    """A signal asked for the end. What heeds Ctrl-C heeds it."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum

    @property
    def exit_code(self) -> int:
        return 128 + self.signum


@contextmanager
def stopping_on_signals() -> Iterator[None]:
    """While it is open the first of SIGNALS raises Stopped in the main thread, and one that comes while that
    unwinds ends the process at once. A signal that was ignored before (nohup) stays ignored. In another
    thread than the main one it changes nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unwinding, came = False, list[int]()

    def stop(signum: int, _: FrameType | None) -> None:
        nonlocal unwinding
        if unwinding:
            os._exit(128 + signum)
        unwinding = True
        came.append(signum)
        raise Stopped(signum)

    def swallowed(unraisable: "sys.UnraisableHookArgs") -> None:
        """An exception in a finaliser goes nowhere; this one must go on."""
        nonlocal unwinding
        if isinstance(stopped := unraisable.exc_value, Stopped):
            unwinding = False
            threading.Timer(AGAIN_S, send_to_main, [stopped.signum]).start()
        else:
            hook_before(unraisable)

    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    hook_before, sys.unraisablehook = sys.unraisablehook, swallowed
    for signum, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(signum, stop)
    try:
        yield
    except KeyboardInterrupt as error:  # Ray's C++ makes a plain one of what a handler raised in it
        if came and not isinstance(error, Stopped):
            raise Stopped(came[0]) from error
        raise
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        sys.unraisablehook = hook_before


def send_to_main(signum: int) -> None:
    """A signal to this process's main thread: a call that waits there is interrupted too."""
    main = threading.main_thread().ident
    assert main is not None
    signal.pthread_kill(main, signum)


def undisturbed(work: Callable[[], object]) -> None:
    """Runs what must not be stopped half way (a cluster that is half there leaves processes behind): on a
    thread, where it can set no handlers of its own. A signal that comes meanwhile counts when it is done; a
    second one ends the process at once: the work may never be done. (Only the main thread hears signals.)

    The thread stays: Linux can be told to end a process with the thread that started it, and Ray's are."""
    came: list[int] = []
    outcome = Future[object]()

    def run() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)
        threading.Event().wait()

    if threading.current_thread() is not threading.main_thread():
        threading.Thread(target=run, daemon=True).start()
        outcome.result()
        return

    def note(signum: int, _: FrameType | None) -> None:
        if came:
            os._exit(128 + signum)
        came.append(signum)

    before = {signum: signal.getsignal(signum) for signum in SIGNALS}
    for signum, handler in before.items():
        if callable(handler):
            signal.signal(signum, note)
    try:
        threading.Thread(target=run, daemon=True).start()
        outcome.result()
    finally:
        for signum, handler in before.items():  # also over those that a library's C code has set
            signal.signal(signum, handler)
    if came:
        signal.raise_signal(came[0])


def occupy_closed_streams() -> None:
    """Where stdin, stdout or stderr was closed before the start (`2>&-`), the null device takes its number:
    else the next file that is opened gets it, and what a library says goes into that file."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", errors="backslashreplace")


def ignore_signals() -> None:
    """From here on SIGNALS change nothing. For a child process: who sends a signal to a whole group or job
    means the command, and that ends its children itself. A decoder that died of it first would look like a
    file that kills decoders."""
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """Ends the process with what Python registered for its end, but without tearing the interpreter down:
    a thread of Arrow's or Ray's that asks for the interpreter then aborts the process after all its work
    («terminate called without an active exception», exit code 134). Output that cannot be written any more
    is an end of its own. All is done by now: a signal that still comes changes nothing."""
    ignore_signals()
    farewells = threading.Thread(target=atexit._run_exitfuncs, daemon=True)
    farewells.start()
    while farewells.is_alive():
        ignore_signals()  # again and again: Ray's C++ sets SIGTERM back to deadly while it shuts down
        farewells.join(REASSERT_S)
    for stream in filter(None, (sys.stdout, sys.stderr)):  # None: closed from the start
        try:
            stream.flush()
        except BrokenPipeError:
            code = code or BROKEN_PIPE
        except (OSError, ValueError) as error:  # full, or closed
            if not code:  # else its error was said
                code = 1
                with contextlib.suppress(OSError, ValueError):
                    print(f"framemill: cannot write to {stream.name}: {error}", file=sys.stderr)
    os._exit(code)
