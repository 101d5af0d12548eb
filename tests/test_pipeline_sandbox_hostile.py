"""Files that name other files and hosts: each is refused with a reason, and nobody sees a request."""

import ctypes
import http.server
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config import AnalyzeConfig, Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import MediaError
from pipeline.progress import silent
from pipeline.sandbox.confine import has_landlock
from pipeline.sandbox.sandbox import DEFAULT_LIMITS, Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge_corpus

IN_OPEN = 0x20


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    with Sandbox(replace(DEFAULT_LIMITS, deadline_s=30.0)) as box:
        yield box


@pytest.fixture(scope="module")
def bait(tmp_path_factory: pytest.TempPathFactory, box: Sandbox) -> Path:
    """A sound video that hostile files name; decoded by itself it has 12 frames."""
    path = tmp_path_factory.mktemp("private") / "bait.mp4"
    box.write_video(path, np.full((12, 32, 32, 3), 90, np.uint8), 12.0)
    return path


@pytest.fixture
def web() -> Iterator[tuple[str, list[str]]]:
    """(address of a server on this machine, the requests it has seen)."""
    seen: list[str] = []

    class Log(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Log)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/bait.mp4", seen
    server.shutdown()
    thread.join()
    server.server_close()


def opens_of(path: Path, work: Callable[[], object]) -> int:
    """How often anybody opened the file while `work` ran."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    try:
        assert libc.inotify_add_watch(watch, os.fsencode(path), IN_OPEN) > 0
        work()
        try:
            return len(os.read(watch, 1 << 16)) // 16
        except BlockingIOError:
            return 0
    finally:
        os.close(watch)


TEXTS = {
    "hls": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\n{0}\n#EXT-X-ENDLIST\n",
    "hls-concat": "#EXTM3U\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1.0,\nconcat:{0}|{0}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{0}'\n",
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
    '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{0}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\na=control:{0}\n",
    "asx": "[Reference]\nRef1={0}\n",
    "smil": '<smil><body><video src="{0}"/></body></smil>',
    "subtitles": "1\n00:00:00,000 --> 00:00:01,000\n{0}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="{0}"/></svg>',
}


@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ts", ".avi", ".gif", ".jpg"])
@pytest.mark.parametrize("kind", TEXTS)
def test_a_text_that_names_others_is_no_video(
    box: Sandbox, bait: Path, web: tuple[str, list[str]], tmp_path: Path, kind: str, suffix: str
) -> None:
    for named in (str(bait), f"file://{bait}", "/etc/passwd", web[0]):
        path = tmp_path / f"hostile{suffix}"
        path.write_text(TEXTS[kind].format(named))
        assert opens_of(bait, lambda path=path: refused(box, path)) == 0  # type: ignore[misc]
    assert web[1] == []


@pytest.mark.parametrize("kind", [b"url ", b"alis"])
def test_a_movie_whose_data_lie_elsewhere_gives_no_frame(
    box: Sandbox, bait: Path, web: tuple[str, list[str]], tmp_path: Path, kind: bytes
) -> None:
    assert opens_of(bait, lambda: box.analyze(bait, AnalyzeConfig())) > 0  # the watch sees what happens
    for named in (str(bait), f"file://{bait}", web[0]):
        path = tmp_path / "hostile.mov"
        path.write_bytes(with_reference(bait.read_bytes(), kind, named))
        assert opens_of(bait, lambda path=path: refused(box, path)) == 0  # type: ignore[misc]
    assert web[1] == []


def test_a_pattern_in_a_name_is_a_name(box: Sandbox, bait: Path, tmp_path: Path) -> None:
    for number in range(1, 4):
        Image.new("RGB", (32, 32), "red").save(tmp_path / f"picture{number:03d}.jpg")
    for name in ("picture%03d.jpg", "picture*.jpg", "concat:picture001.jpg|picture002.jpg", "pipe:0"):
        (tmp_path / name).write_text("no picture")
        refused(box, tmp_path / name)
        copy = tmp_path / f"{name}.mp4"
        copy.write_bytes(bait.read_bytes())
        assert box.analyze(copy, AnalyzeConfig()).source["frames"] == 12


def test_every_bad_file_ends_as_its_truth_says(media_dir: Path, tmp_path: Path) -> None:
    truth = json.loads((media_dir / "truth" / "bad.json").read_text())
    folder = tmp_path / "bad"
    shutil.copytree(media_dir / "bad", folder)
    (folder / "dangling.mp4").symlink_to("/nonexistent")
    (folder / "folder.mp4").mkdir()
    corpus, config = Corpus(str(tmp_path / "corpus")), Config()
    analyze_corpus(corpus, discover([str(folder)]).inputs, config, LocalExecutor(), silent)
    judge_corpus(corpus, config)
    sources = {Path(row["uri"]).name: row for row in corpus.sources().to_pylist()}
    judged: dict[str, list[dict[str, Any]]] = {}
    for row in corpus.judged().to_pylist():
        judged.setdefault(row["source_id"], []).append(row)
    assert all(row["reason"] for row in sources.values() if row["status"] != "ok")
    for name, known in truth.items():
        if name.startswith("("):
            continue
        source = sources[Path(name).name]
        clips = judged.get(source["source_id"], [])
        kept = sum(clip["status"] == "kept" for clip in clips)
        if known["expect"] == "accept":  # several are one video in other guises: one of them is kept
            assert source["status"] == "ok"
            assert clips, name
            assert kept or "image" not in source["kind"], name
        elif known["expect"] == "reject":
            assert not kept, name
            assert source["status"] == "failed" or all(clip["reasons"] for clip in clips), name
        else:
            assert source["status"] in ("salvaged", "failed"), name
    assert sources["dangling.mp4"]["status"] == "failed"
    assert "no such file" in sources["dangling.mp4"]["reason"]


def test_the_child_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with Sandbox() as box:
        environment = Path(f"/proc/{box.pid}/environ").read_bytes()
    assert b"PATH=" in environment
    assert b"AWS_" not in environment


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_confined_process_has_no_sockets_and_no_programs() -> None:
    says = confined(
        "confine.forbid_sockets_and_programs()",
        "import socket; socket.socket()",
        "import socket; socket.socketpair()",
        "import os; os.execv('/bin/true', ['true'])",
        "import subprocess; subprocess.run(['true'])",
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "if libc.syscall(425, 1, None) < 0: raise OSError(ctypes.get_errno(), 'io_uring')",
        "import threading; threading.Thread(target=print).start(); open('/etc/passwd').close()",
    )
    assert says == ["PermissionError"] * 5 + ["fine"]


@pytest.mark.skipif(not has_landlock(), reason="the kernel has no Landlock")
def test_a_confined_thread_reads_its_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "yours").write_text("yours")
    says = confined(
        f"confine.read_only(Path('{tmp_path}/mine'))",
        f"open('{tmp_path}/mine').close()",
        "import wave",
        f"open('{tmp_path}/yours')",
        "open('/etc/passwd')",
        f"open('{tmp_path}/mine', 'a')",
        f"open('{tmp_path}/new', 'w')",
    )
    assert says == ["fine"] * 2 + ["PermissionError"] * 4


def confined(protection: str, *attempts: str) -> list[str]:
    """What came of each attempt in a process after `protection`."""
    code = f"from pathlib import Path\nfrom pipeline.sandbox import confine\nassert {protection}\n" + "".join(
        f"try: exec({attempt!r})\nexcept OSError as e: print(type(e).__name__)\nelse: print('fine')\n"
        for attempt in attempts
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return run.stdout.split()


def refused(box: Sandbox, path: Path) -> None:
    with pytest.raises(MediaError, match=r"not a video|no video|no frame|picture|cannot|no index") as error:
        box.analyze(path, AnalyzeConfig())
    assert "died" not in str(error.value)
    assert "longer" not in str(error.value)


def with_reference(movie: bytes, kind: bytes, named: str) -> bytes:
    """The movie without its data, which are said to lie in `named`, at the places they had. (Its moov lies
    behind its mdat, so that these do not move.)"""
    if kind == b"url ":
        entry = bytes(4) + named.encode() + b"\0"
    else:  # a Macintosh alias: volume, folder and file names, then typed strings; 2 is the absolute path
        name = named.encode()[:63]
        fixed = bytes(10) + bytes([0]) + bytes(27) + bytes(12) + bytes([len(name)]) + name.ljust(63, b"\0")
        typed = struct.pack(">HH", 2, len(named)) + named.encode() + bytes(len(named) % 2)
        entry = bytes(4) + fixed + bytes(16) + struct.pack(">HH", 1, 1) + bytes(16) + typed
        entry += struct.pack(">hH", -1, 0)
    new_dref = bytes(4) + struct.pack(">I", 1) + struct.pack(">I", 8 + len(entry)) + kind + entry
    return _replaced(movie, new_dref)


def _replaced(boxes: bytes, new_dref: bytes) -> bytes:
    made, at = b"", 0
    while at < len(boxes):
        size, name = struct.unpack(">I4s", boxes[at : at + 8])
        body = boxes[at + 8 : at + size]
        if name in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
            body = _replaced(body, new_dref)
        elif name == b"dref":
            body = new_dref
        elif name == b"mdat":
            body = bytes(len(body))
        made += struct.pack(">I4s", len(body) + 8, name) + body
        at += size
    return made
