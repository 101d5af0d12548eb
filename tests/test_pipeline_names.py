"""Names: a name that exists is itself; a tree is walked once; what is not UTF-8 is named in words."""

import fnmatch
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError, UsageError
from pipeline.names import is_nameable, readable, whole_characters
from pipeline.sources.discover import discover
from pipeline.sources.globs import translate
from pipeline.storage import Storage

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
WILD = st.text("ab[]!?*^-.\\ {}", min_size=1, max_size=6).filter(lambda name: not name.startswith("."))
LATIN = os.fsdecode(b"caf\xe9.mp4")


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


def taken(folder: Path, *paths: str) -> list[str]:
    uris = discover([str(folder / path) for path in paths]).inputs["uri"].to_pylist()
    return [os.path.relpath(uri, folder) for uri in uris]


def test_a_name_that_exists_is_that_folder_and_globs_work_below_it(tmp_path: Path) -> None:
    make(tmp_path, "[2020] trip/v.mp4", "[2020] trip/w.png", "2 trip/no.mp4", "a?.mp4", "ab.mp4", "*/z.mp4")
    assert taken(tmp_path, "[2020] trip") == ["[2020] trip/v.mp4", "[2020] trip/w.png"]
    assert taken(tmp_path, "[2020] trip/*.mp4") == ["[2020] trip/v.mp4"]
    assert taken(tmp_path, "[2020] trip/[!v]*") == ["[2020] trip/w.png"]
    assert taken(tmp_path, "a?.mp4") == ["a?.mp4"]
    assert taken(tmp_path, "*/*.mp4") == ["*/z.mp4"]
    assert taken(tmp_path, "[0-9] trip/*") == ["2 trip/no.mp4"]
    assert sorted(taken(tmp_path, "**/[nz]*")) == ["*/z.mp4", "2 trip/no.mp4"]


@pytest.mark.parametrize(
    ("glob", "matches", "others"),
    [
        ("[!a]*.mp4", ["b1.mp4", "!.mp4"], ["a1.mp4", "/1.mp4"]),
        ("[a-c]", ["a", "b"], ["d", "-"]),
        ("[]a]", ["]", "a"], ["b"]),
        ("[!]a]", ["b"], ["]", "a"]),
        ("[a-]", ["a", "-"], ["b"]),
        ("[^a]", ["^", "a"], ["b"]),
        ("[.-0]", [".", "0"], ["/"]),
        ("[c-a]x", [], ["bx", "x"]),
        ("[", ["["], [""]),
        ("[a", ["[a"], ["a"]),
        ("[\\w]", ["\\", "w"], ["b"]),
        ("**/x", ["x", "a/x", "a\n/b/x"], ["ax"]),
        ("a**", ["a", "ab/c"], ["b"]),
    ],
)
def test_globs_say_what_shells_say(glob: str, matches: list[str], others: list[str]) -> None:
    pattern = translate(glob)
    assert all(pattern.fullmatch(name) for name in matches)
    assert not any(pattern.fullmatch(name) for name in others)


@QUICK
@given(WILD.filter(lambda name: "**" not in name), WILD)
def test_a_part_matches_as_fnmatch_says(glob: str, name: str) -> None:
    if "[^" not in glob.replace("[!", ""):  # only fnmatch of later versions differs there
        assert bool(translate(glob).fullmatch(name)) == fnmatch.fnmatchcase(name, glob)


@QUICK
@given(WILD, st.lists(WILD, max_size=3))
def test_an_existing_file_or_folder_is_itself_whatever_is_in_its_name(name: str, others: list[str]) -> None:
    with tempfile.TemporaryDirectory() as at:
        folder = make(Path(at), f"{name}/v.mp4", f"{name}.mp4", *(f"{other}/x.mp4" for other in others))
        wanted = sorted([f"{name}/v.mp4", *([f"{name}/x.mp4"] if name in others else [])])
        assert taken(folder, name) == wanted
        assert taken(folder, f"{name}/v*") == [f"{name}/v.mp4"]
        assert taken(folder, f"{name}.mp4") == [f"{name}.mp4"]


def test_a_link_to_a_folder_above_ends_and_one_to_a_sibling_is_followed(tmp_path: Path) -> None:
    make(tmp_path, "in/good.mp4", "in/sub/deep.mp4", "out/far.mp4", "in/zoo/z.mp4")
    (tmp_path / "in/sub/up").symlink_to("..")
    (tmp_path / "in/self").symlink_to(".")
    (tmp_path / "in/far").symlink_to("../out")
    (tmp_path / "in/far2").symlink_to("../out")
    (tmp_path / "in/a").symlink_to("zoo")  # comes before the folder by name, not by right
    (tmp_path / "in/twin.mp4").symlink_to("good.mp4")
    (tmp_path / "in/gone.mp4").symlink_to("nowhere.mp4")
    (tmp_path / "in/round.mp4").symlink_to("round.mp4")
    rows = discover([str(tmp_path / "in")]).inputs.to_pylist()
    sizes = {os.path.relpath(row["uri"], tmp_path / "in"): row["size_bytes"] for row in rows}
    assert sorted(name for name, size in sizes.items() if size) == [
        "far/far.mp4",
        "good.mp4",
        "sub/deep.mp4",
        "twin.mp4",
        "zoo/z.mp4",
    ]
    assert sorted(name for name, size in sizes.items() if not size) == ["gone.mp4", "round.mp4"]


@QUICK
@given(
    st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=5),
)
def test_any_tree_with_any_links_is_walked_once(paths: list[list[str]], links: list[tuple[int, int]]) -> None:
    with tempfile.TemporaryDirectory() as at:
        folder = make(Path(at), *("/".join(path) + "/f.mp4" for path in paths))
        folders = sorted(path for path in folder.rglob("*") if path.is_dir())
        for number, (where, to) in enumerate(links):
            target = [folder, *folders][to % (len(folders) + 1)]
            (folders[where % len(folders)] / f"link{number}").symlink_to(target)
        expected = sorted(str(path) for path in folder.rglob("f.mp4"))  # rglob follows no link
        assert [info.uri for info in Storage(at).walk()] == expected


def test_what_is_not_utf_8_is_named_in_words_and_the_good_go_through(tmp_path: Path) -> None:
    make(tmp_path, "good.mp4", LATIN, f"{os.fsdecode(b'd' + bytes([0xFC]))}/x.mp4")
    sources = discover([str(tmp_path)])
    assert [os.path.basename(uri) for uri in sources.inputs["uri"].to_pylist()] == ["good.mp4"]
    assert r"caf\xe9.mp4" in sources.notes[0]
    assert r"d\xfc" in sources.notes[0]
    with pytest.raises(UsageError, match=r"caf\\xe9.mp4 cannot be a source"):
        discover([str(tmp_path / LATIN)])
    with pytest.raises(StorageError, match=r"caf\\xe9.mp4"):
        Storage(str(tmp_path / LATIN))


def test_a_command_ends_in_one_line_where_a_name_is_not_utf_8(tmp_path: Path) -> None:
    make(tmp_path, f"{LATIN}/good.mp4")
    log = str(tmp_path / "log")
    words = [
        [str(tmp_path / LATIN), "--out", str(tmp_path / "o")],
        [str(tmp_path), "--out", str(tmp_path / LATIN)],
    ]
    for word in words:
        command = [sys.executable, "-m", "framemill", "analyze", *word, "--log-file", log, "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode in (1, 2)
        assert "Traceback" not in ended.stderr
        assert r"caf\xe9.mp4" in ended.stderr


@pytest.mark.parametrize("path", ["", "a\0b.mp4", "s3://bucket/a\ud83d"])
def test_what_no_file_can_be_named_is_wrong_use(path: str) -> None:
    with pytest.raises(UsageError):
        discover([path])


@QUICK
@given(st.binary(min_size=1, max_size=12))
def test_a_readable_form_is_text_and_text_is_its_own(name: bytes) -> None:
    text = os.fsdecode(name)
    assert readable(text).encode()
    assert is_nameable(readable(text))
    assert whole_characters(text).encode()
    if is_nameable(text):
        assert readable(text) == text == whole_characters(text)
    assert readable("\ud83d").encode()
