"""Messages arrive whole or in time; a child that hangs, dies or cannot start costs one call."""

import os
import sys
import threading
import time
from pathlib import Path

import pytest

from pipeline.children.process import ChildProcess
from pipeline.children.wire import receive, send
from pipeline.errors import FramemillError, StorageError

ECHO = """
import os, sys, time
from pipeline.children.wire import receive, send
requests, answers = os.fdopen(0, "rb", buffering=0), os.fdopen(1, "wb", buffering=0)
send(answers, {"arguments": sys.argv[1:], "secrets": os.environ.get("SECRET")}, [], 0, None)
while True:
    header, data = receive(requests, None)
    if header.get("do") == "exit":
        os._exit(3)
    if header.get("do") == "close":
        os.close(1)
        time.sleep(600)
    if header.get("do") == "sleep":
        time.sleep(600)
    if header.get("do") == "stop reading":
        send(answers, {}, [], 0, None)
        time.sleep(600)
    send(answers, header, [data], len(data), None)
"""


@pytest.fixture
def echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ChildProcess:
    (tmp_path / "echo_child.py").write_text(ECHO)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SECRET", "hush")
    return ChildProcess("echo_child", label="the echo", arguments=["a"])


def test_what_is_said_is_answered_and_no_secret_is_passed_on(echo: ChildProcess) -> None:
    data = [os.urandom(300_000), b"", os.urandom(17)]
    header, answer = echo.ask({"n": 1}, data, 300_017, deadline_s=60.0)
    assert header == {"n": 1}
    assert bytes(answer) == b"".join(data)
    assert echo.hello == {"arguments": ["a"], "secrets": None}
    pid = echo.pid
    assert echo.ask({"n": 2}, deadline_s=60.0)[0] == {"n": 2}
    assert echo.pid == pid
    echo.close()


@pytest.mark.parametrize("do", ["sleep", "stop reading"])
def test_a_child_that_hangs_is_cut_off_and_the_next_call_has_another(echo: ChildProcess, do: str) -> None:
    if do == "stop reading":
        echo.ask({"do": do}, deadline_s=60.0)
    pid, began = echo.pid, time.monotonic()
    with pytest.raises(TimeoutError):
        echo.ask({"do": do}, [bytes(10_000_000)], 10_000_000, deadline_s=0.5)
    assert time.monotonic() - began < 10
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert echo.ask({"n": 3}, deadline_s=60.0)[0] == {"n": 3}
    echo.close()


def test_a_child_that_dies_says_how(echo: ChildProcess) -> None:
    with pytest.raises(EOFError, match="exit code 3"):
        echo.ask({"do": "exit"}, deadline_s=60.0)
    with pytest.raises(EOFError, match="closed its pipes"):
        echo.ask({"do": "close"}, deadline_s=60.0)
    echo.close()


def test_data_of_another_size_ends_the_child(echo: ChildProcess) -> None:
    with pytest.raises(StorageError, match="another size"):
        echo.ask({}, [b"12"], 3, deadline_s=60.0)
    assert echo.ask({"n": 4}, deadline_s=60.0)[0] == {"n": 4}
    echo.close()


def test_a_child_that_does_not_start_says_what_to_look_at() -> None:
    missing = ChildProcess("no_such_module", label="the child", quiet=True)
    with pytest.raises(FramemillError, match="the child does not start") as error:
        missing.ask({}, deadline_s=60.0)
    assert f"{sys.executable} -P -c" in error.value.fix


def test_a_message_larger_than_a_pipe_arrives_whole() -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    data = os.urandom(3_000_000)
    ends_at = time.monotonic() + 60
    with os.fdopen(read_end, "rb", buffering=0) as source, os.fdopen(write_end, "wb", buffering=0) as sink:
        writer = threading.Thread(target=send, args=(sink, {"a": "ä"}, [data], len(data), ends_at))
        writer.start()
        header, whole = receive(source, ends_at)
        writer.join()
    assert header == {"a": "ä"}
    assert bytes(whole) == data
