"""A command ends as quietly as it ran: signals, closed pipes, full and read-only places; real processes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from framemill import main
from pipeline.corpus.corpus import Corpus
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "framemill"]
SMALL = ["--set", "analyze.sources_per_task=1", "--workers", "2"]

pytestmark = pytest.mark.usefixtures("signals_heeded")


def start(words: list[str], **streams: object) -> "subprocess.Popen[str]":
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    options = {
        "env": buffered,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
        "cwd": ROOT,
    } | streams
    return subprocess.Popen([*COMMAND, *words], **options)


def run(words: list[str], **streams: object) -> tuple[int, str, str]:
    process = start(words, **streams)
    out, err = process.communicate(timeout=120)
    return process.returncode, out or "", err or ""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    render_corpus(folder, ToyWorldConfig(videos=3, images=1, seed=3, min_shots=1, max_shots=1))
    return folder


@pytest.fixture(scope="module")
def corpus(toy: Path) -> Path:
    out = toy.parent / "corpus"
    assert main(["analyze", str(toy / "videos"), "--out", str(out), "--workers", "1"]) == 0
    return out


def family(pid: int) -> set[int]:
    """The process and all below it."""
    pids, below = set(), [pid]
    while below:
        pids.add(parent := below.pop())
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            below += [int(child) for child in task.read_text().split()]
    return pids


def alive(pids: set[int]) -> set[int]:
    return {pid for pid in pids if os.path.exists(f"/proc/{pid}/exe")}  # a zombie has none


@pytest.mark.parametrize(
    ("sent", "word"), [("TERM", "terminated"), ("INT", "interrupted"), ("HUP", "terminated")]
)
def test_a_signal_ends_a_run_in_one_line_and_leaves_nothing(
    sent: str, word: str, toy: Path, tmp_path: Path
) -> None:
    out = tmp_path / "corpus"
    process = start(["analyze", str(toy), "--out", str(out), *SMALL], process_group=0)
    assert process.stderr is not None
    while "analyze: 0/" not in (line := process.stderr.readline()):
        assert line
    until_s = time.monotonic() + 20
    while len(pids := family(process.pid)) <= 2 and time.monotonic() < until_s:
        time.sleep(0.01)
    assert len(pids) > 2  # the workers are at it
    os.killpg(process.pid, signal.Signals[f"SIG{sent}"])
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.Signals[f"SIG{sent}"]
    assert err.splitlines()[-1] == f"framemill: {word}; the same command goes on from here"
    assert "Traceback" not in err
    deadline_s = time.monotonic() + 3
    while alive(pids) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    assert not alive(pids)
    assert not list(out.rglob(".tmp-*"))
    if sent == "TERM":
        assert run(["analyze", str(toy), "--out", str(out), *SMALL])[0] == 0


def test_a_signal_during_the_imports_is_no_traceback(tmp_path: Path) -> None:
    for after_s in (0.05, 0.15, 0.3, 0.6, 1.2):
        process = start(["vae", "train", "--media", str(tmp_path), "--out", str(tmp_path / "vae")])
        time.sleep(after_s)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
        assert "Traceback" not in err
        assert process.returncode in (
            143,
            -15,
            1,
            2,
        )  # by itself, before its handlers stood, or after its end
        assert "goes on from here" not in err  # another --out is asked for


ENDING = "import os, signal, sys, time\nfrom pipeline.ending import Stopped, leave, stopping_on_signals\n"


def script(code: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", ENDING + code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_second_signal_ends_at_once() -> None:
    code = """
try:
    with stopping_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
finally:
    print("too late", flush=True)
"""
    assert script(code) == (130, "", "")


def test_a_signal_that_a_finaliser_swallows_comes_again() -> None:
    code = """
class Owner:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
try:
    with stopping_on_signals():
        owner = Owner()
        del owner
        time.sleep(30)
except Stopped as stopped:
    print(stopped.exit_code)
"""
    assert script(code) == (0, "143\n", "")


def test_a_library_that_makes_a_plain_interrupt_of_it_changes_no_exit_code() -> None:
    code = """
import os, signal, time
try:
    with stopping_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
except Stopped as stopped:
    print(stopped.exit_code)
"""
    assert script(code) == (0, "143\n", "")


def test_leaving_does_what_was_registered_and_flushes() -> None:
    code = "import atexit; atexit.register(print, 'registered'); print('out'); leave(3)"
    assert script(code) == (3, "out\nregistered\n", "")


def test_a_signal_while_leaving_changes_nothing() -> None:
    """Ray's C++ sets SIGTERM back to deadly while it shuts down, which Python's handlers do not hear of."""
    code = """
import atexit, ctypes, os, signal, time
def late():
    ctypes.CDLL(None).signal(signal.SIGTERM, 0)  # SIG_DFL
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
atexit.register(late)
print("out")
leave(0)
"""
    assert script(code) == (0, "out\n", "")


@pytest.mark.parametrize("words", ["status {} --json", "--help", "status {}"])
def test_a_reader_that_has_gone_is_no_error(words: str, corpus: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        code, _, err = run(shlex.split(words.format(corpus)), stdout=write)
    finally:
        os.close(write)
    assert (code, err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("words", ["status {} --json", "--help"])
def test_a_full_output_is_one_line(words: str, corpus: Path) -> None:
    with open("/dev/full", "w") as full:
        code, _, err = run(shlex.split(words.format(corpus)), stdout=full)
    assert code == 1
    assert "cannot write" in err
    assert "No space left on device" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("verb", ["analyze", "status"])
@pytest.mark.parametrize(("closed", "exit_code"), [(">&-", 1), ("2>&-", 0), ("<&-", 0), ("<&- >&- 2>&-", 1)])
def test_streams_that_were_closed_before(
    toy: Path, corpus: Path, tmp_path: Path, verb: str, closed: str, exit_code: int
) -> None:
    video = min((toy / "videos").iterdir())
    words = {"analyze": ["analyze", video, "--out", tmp_path / "c"], "status": ["status", corpus]}[verb]
    line = shlex.join(map(str, [*COMMAND, *words]))
    ended = subprocess.run(["bash", "-c", f"{line} {closed}"], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == exit_code
    assert "Traceback" not in ended.stderr
    if exit_code == 0:
        assert "sources" in ended.stdout
    elif closed == ">&-":
        assert ended.stderr.splitlines()[-1] == "framemill: cannot write the result to stdout: it is closed"
    if verb == "analyze":
        assert Corpus(str(tmp_path / "c")).sources().num_rows > 0


READ_ONLY = ["judge {}", "analyze {toy} --out {}", "caption {}", "encode {}", "report {}", "takedown {} x"]


def test_a_read_only_corpus(toy: Path, corpus: Path) -> None:
    """Verbs that write name the place and the cause in one line, those that read go on."""
    mount = f"mount --bind {corpus} {corpus} && mount -o remount,ro,bind {corpus}"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")

    def there(words: str) -> tuple[int, str]:
        command = shlex.join([*COMMAND, *shlex.split(words.format(corpus, toy=toy / "videos"))])
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", f"{mount} && {command}"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=False,
        )
        return done.returncode, done.stderr

    for words in READ_ONLY:
        code, err = there(words)
        assert code == 1, (words, err)
        assert len(err.strip().splitlines()) == 1, (words, err)
        assert str(corpus) in err
        assert "Read-only file system" in err
    for words in ("status {}", "judge {} --what-if signals.motion.min=0.2"):
        assert there(words) == (0, ""), words


@pytest.mark.slow
def test_short_commands_end_quietly(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "exits", "--runs", "5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ratio"] == 1.0


@pytest.mark.slow
@pytest.mark.ray
def test_sigterm_on_ray_ends_in_one_line_too(toy: Path, tmp_path: Path) -> None:
    """Its own handler ends with 15 behind a stack trace; also while it starts."""
    words = ["analyze", str(toy), "--out", str(tmp_path / "corpus"), "--executor", "ray", *SMALL]
    for after_s in (1.5, 7.0):
        process = start(words)
        assert process.stderr is not None
        while "analyze: 0/" not in (line := process.stderr.readline()):
            assert line
        time.sleep(after_s)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        if "sources" in out:  # it was done
            continue
        assert process.returncode == 143
        assert err.splitlines()[-1] == "framemill: terminated; the same command goes on from here"
        assert "SIGTERM received" not in err
        assert "Traceback" not in err
    assert run(words)[0] == 0
