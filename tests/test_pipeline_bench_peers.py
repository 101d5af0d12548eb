"""What the bench of peers calls found, lost and failed; what it measures; that a peer can be skipped."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.bench.peers import PEERS, PROGRAMS, duplicate_groups, environment, make_images, quality
from pipeline.bench.shots import Truth
from pipeline.children.trees import run_measured
from pipeline.errors import FramemillError
from pipeline.sandbox.sandbox import Sandbox

TRUTH = Truth(file="clips/a.mp4", hard=(10, 20), gradual=(), ignored=())


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """a, b and c differ; d has the bytes of c."""
    for name, data in (("a", b"1"), ("b", b"2"), ("c", b"3"), ("d", b"3")):
        (tmp_path / f"{name}.mp4").write_bytes(data)
    return [str(tmp_path / f"{name}.mp4") for name in "abcd"]


def said(
    files: list[str], kept: str, rows: str = "abcd", cuts: tuple[int, ...] = (10, 21)
) -> dict[str, object]:
    of = {Path(file).stem: file for file in files}
    return {
        "rows": [{"file": of[name], "cuts": list(cuts) if name == "a" else []} for name in rows],
        "kept": [of[name] for name in kept],
        "failed": [],
    }


def test_copies_are_found_where_they_are_not_kept_and_lost_where_none_is(files: list[str]) -> None:
    groups = [["x/a.mp4", "x/b.mp4"], ["c.mp4", "d.mp4"]]
    for kept, found, lost in (("abcd", 0, 0), ("ac", 2, 0), ("abc", 1, 0), ("cd", 1, 1), ("", 2, 2)):
        figures = quality(said(files, kept), files, [TRUTH], groups)
        assert (figures["copies"], figures["copies_found"], figures["lost"]) == (2, found, lost), kept


def test_shots_are_scored_where_the_truth_is_known(files: list[str]) -> None:
    for cuts, f1 in (((10, 20), 1.0), ((10, 21), 1.0), ((10, 23), 0.5)):
        figures = quality(said(files, "abcd", cuts=cuts), files, [TRUTH], [])
        assert (figures["shots_f1"], figures["shots_files"]) == (f1, 1)
    assert quality(said(files, "abcd", cuts=()), files, [TRUTH], [])["shots_f1"] is None  # it cuts nothing


def test_a_file_without_a_row_is_missing_unless_its_bytes_are_spoken_of(files: list[str]) -> None:
    """A peer may swallow what it cannot do and call the run a success."""
    assert quality(said(files, "abc", rows="abc"), files, [], [])["missing"] == 0
    assert quality(said(files, "ab", rows="ab"), files, [], [])["missing"] == 2
    assert quality(said(files, "", rows=""), files, [], [])["missing"] == 4


def test_mirrored_members_are_no_copies(tmp_path: Path) -> None:
    truth = tmp_path / "duplicates.json"
    truth.write_text(
        '{"groups": [{"base": "x/a.mp4", "members": [{"file": "x/b.mp4", "expect": "duplicate"},'
        ' {"file": "x/c.mp4", "expect": "mirrored"}]}]}'
    )
    assert duplicate_groups(truth) == [["x/a.mp4", "x/b.mp4"]]


def test_images_are_made_in_groups_of_four(tmp_path: Path) -> None:
    video = tmp_path / "v.mp4"
    with Sandbox() as box:
        box.write_video(video, np.full((50, 32, 48, 3), 90, np.uint8), 10.0)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    images, groups = make_images([str(video), str(tmp_path / "no.mp4")], tmp_path / "images")
    assert [len(group) for group in groups] == [4, 4]
    assert images == sorted(name for group in groups for name in group)
    first, same, half, low = (Path(name) for name in groups[0])
    assert first.read_bytes() == same.read_bytes() != low.read_bytes()
    assert np.array(Image.open(first).size) // 2 == pytest.approx(np.array(Image.open(half).size))


def test_every_peer_has_a_program_and_pinned_requirements() -> None:
    for peer in PEERS:
        assert (PROGRAMS / f"{peer.program}.py").exists()
        lines = (PROGRAMS / f"{peer.program}.txt").read_text().split()
        assert all("==" in line for line in lines), peer.name


def test_what_cannot_be_installed_says_why(tmp_path: Path) -> None:
    wanted = tmp_path / "none.txt"
    wanted.write_text(f"{tmp_path}/no-such-package\n")
    with pytest.raises(FramemillError, match=r"not installable: .*no-such-package"):
        environment(wanted, tmp_path / "cache")
    with pytest.raises(FramemillError, match="checkout"):
        environment(tmp_path / "absent.txt", tmp_path / "cache")


BURN = "import time\nwhile time.process_time() < {0}: pass\n"
TREE = (
    "import subprocess, sys, time\n"
    "held = bytearray(100 << 20)\n"
    f"subprocess.run([sys.executable, '-c', {BURN.format(0.4)!r}])\n"
    "idle = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
    "left = subprocess.Popen(idle, start_new_session=True)\n"
    "print(left.pid, flush=True)\n" + BURN.format(0.4)
)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone has it")
def test_a_whole_tree_is_counted_and_ended(tmp_path: Path) -> None:
    usage = run_measured([sys.executable, "-c", TREE], tmp_path / "log", 60.0)
    assert usage.exit_code == 0
    assert 0.6 < usage.cpu_s < 1.3
    assert 0.1 < usage.peak_gb < 0.3
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "log").read_text()), 0)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux alone has it")
def test_what_takes_too_long_is_ended(tmp_path: Path) -> None:
    usage = run_measured([sys.executable, "-c", "import time; time.sleep(600)"], tmp_path / "log", 0.5)
    assert usage.exit_code != 0
    assert usage.wall_s < 10
