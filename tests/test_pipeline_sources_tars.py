"""Tars: every member that can be read is taken under one plain name, with its own caption or with none."""

import io
import tarfile
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import MediaError
from pipeline.sources.discover import Discovered, discover
from pipeline.sources.sidecars import SIDECARS
from pipeline.tars import plain_name, scan
from pipeline.uris import local_path, tar_contents

QUICK = settings(max_examples=60, deadline=None, derandomize=True, database=None)
PART = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=12)


def tar_of(*members: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return out.getvalue()


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def taken(folder: Path, data: bytes) -> Discovered:
    (folder / "x.tar").write_bytes(data)
    return discover([str(folder / "x.tar")])


def contents(sources: Discovered) -> dict[str, bytes]:
    """Member → the bytes that a decoder gets to see."""
    read = {}
    for uri in sources.inputs["uri"].to_pylist():
        with local_path(uri) as path:
            read[uri.partition("#")[2]] = path.read_bytes()
    return read


def captions(sources: Discovered) -> dict[str, str | None]:
    rows = sources.inputs.to_pylist()
    return {row["uri"].partition(".tar#")[2]: row["original"] for row in rows}


def test_members_bear_one_plain_name_whatever_leads_it(tmp_path: Path) -> None:
    names = ["./a.mp4", "/b.mp4", "c//d/./e.mp4", "../f.mp4", "./.g.mp4", "./.h/i.mp4"]
    sources = taken(tmp_path, tar_of(*((name, name.encode()) for name in names), ("./a.txt", b"its caption")))
    expected = {"a.mp4": "./a.mp4", "b.mp4": "/b.mp4", "c/d/e.mp4": "c//d/./e.mp4", "../f.mp4": "../f.mp4"}
    assert contents(sources) == {name: raw.encode() for name, raw in expected.items()}
    assert captions(sources)["a.mp4"] == "its caption"
    assert [uri.rpartition("#")[2] for uri in sources.ignored] == [".g.mp4", ".h/i.mp4"]
    (tmp_path / "l.txt").write_text("".join(f"x.tar#{name}\n" for name in names[:4]))
    assert discover([str(tmp_path / "l.txt")]).inputs["source_key"] == sources.inputs["source_key"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["trip.to.rome.png", "trip.to.rome.txt", "trip.to.oslo.png", "trip.to.oslo.txt"], "own"),
        (["trip.to.rome.png", "trip.to.oslo.png", "trip.to.oslo.txt"], "own"),
        (["trip.to.rome.png", "trip.to.oslo.txt"], "own"),
        (["trip.png", "trip.txt", "trip.to.oslo.png"], "own"),
        (["trip.to.rome.png", "trip.to.oslo.png", "trip.txt"], "own"),
        (["001.v2.jpg", "001.txt"], {"001.v2.jpg": "001.txt"}),
        (["001.v2.jpg", "001.txt", "001.v2.txt"], {"001.v2.jpg": "001.v2.txt"}),
        (["a/001.jpg", "b/001.txt"], "own"),
    ],
)
def test_no_picture_has_the_caption_of_another(
    tmp_path: Path, files: list[str], expected: str | dict[str, str]
) -> None:
    sources = taken(tmp_path, tar_of(*((name, name.encode()) for name in files)))
    media = [name for name in files if not name.endswith(SIDECARS)]
    own = {name: name[:-3] + "txt" for name in media}
    wanted = {m: t if t in files else None for m, t in own.items()} if expected == "own" else expected
    assert captions(sources) == wanted
    unused = {name for name in files if name.endswith(SIDECARS)} - set(wanted.values())
    assert all(any(name in note for note in sources.notes) for name in unused)


def test_links_are_read_as_what_they_point_to_or_noted(tmp_path: Path) -> None:
    sources = taken(
        tmp_path,
        tar_of(
            link("early.mp4", "d/a.mp4", tarfile.SYMTYPE),
            ("d/a.mp4", b"first"),
            link("hard.mp4", "./d/a.mp4", tarfile.LNKTYPE),
            link("d/soft.mp4", "../hard.mp4", tarfile.SYMTYPE),
            link("gone.mp4", "/etc/passwd", tarfile.SYMTYPE),
            link("lost.mp4", "nowhere.mp4", tarfile.LNKTYPE),
            link("round.mp4", "round.mp4", tarfile.SYMTYPE),
        ),
    )
    assert contents(sources) == dict.fromkeys(["early.mp4", "d/a.mp4", "hard.mp4", "d/soft.mp4"], b"first")
    for name in ("gone.mp4", "lost.mp4", "round.mp4"):
        assert any(f"#{name}: left out, a link to" in note for note in sources.notes)


def test_archives_one_behind_the_other_are_all_taken(tmp_path: Path) -> None:
    parts = [tar_of((f"{name}.mp4", name.encode() * 700)) for name in "abc"]
    sources = taken(tmp_path, b"".join(parts))
    assert contents(sources) == {f"{name}.mp4": name.encode() * 700 for name in "abc"}
    assert sum("another archive begins" in note for note in sources.notes) == 2
    cut = taken(tmp_path, parts[0] + parts[1][:700])
    assert "cut off inside b.mp4" in cut.notes[-1]
    assert "a.mp4" in captions(cut)
    followed = taken(tmp_path, parts[0] + b"\xff" * 2000)
    assert list(contents(followed)) == ["a.mp4"]
    assert "no tar" in followed.notes[0]


def test_of_two_members_with_a_name_the_last_counts(tmp_path: Path) -> None:
    sources = taken(
        tmp_path, tar_of(("a.mp4", b"old"), ("./a.mp4", b"new"), ("a.txt", b"x"), ("a.txt", b"y"))
    )
    assert contents(sources) == {"a.mp4": b"new"}
    assert captions(sources) == {"a.mp4": "y"}
    assert any("a.mp4: twice" in note for note in sources.notes)


def test_what_has_no_readable_name_or_is_sparse_is_noted(tmp_path: Path) -> None:
    raw = tar_of(("good.mp4", b"1"), ("caf?.mp4", b"2"), ("hole.mp4", b""), form=tarfile.GNU_FORMAT)
    out = bytearray(raw)
    for name, at, value in ((b"caf?.mp4", 3, 0xE9), (b"hole.mp4", 156, ord("S"))):
        header = out.index(name)
        out[header + at] = value
        out[header + 148 : header + 156] = b" " * 8
        out[header + 148 : header + 156] = b"%06o\0 " % sum(out[header : header + 512])
    sources = taken(tmp_path, bytes(out))
    assert list(contents(sources)) == ["good.mp4"]
    assert any(r"caf\xe9.mp4: left out" in note for note in sources.notes)
    assert any("hole.mp4: left out, it is sparse" in note for note in sources.notes)


def test_a_sidecar_that_cannot_be_read_costs_its_facts(tmp_path: Path) -> None:
    deep = b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    half = b'{"caption": "smile \\ud83d"}'
    data = tar_of(("a.mp4", b"1"), ("a.json", deep), ("b.mp4", b"2"), ("b.json", half), ("c.mp4", b"3"))
    sources = taken(tmp_path, data)
    assert captions(sources) == {"a.mp4": None, "b.mp4": "smile \ufffd", "c.mp4": None}
    assert "a.json: JSON that is nested too deep" in sources.notes[0]


@QUICK
@given(
    st.lists(st.lists(PART, min_size=1, max_size=3), min_size=1, max_size=4),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_any_member_name_comes_back_with_its_own_caption(parts: list[list[str]], form: int) -> None:
    stems = sorted({plain_name("/".join(part)).strip("/") for part in parts} - {""})
    hidden = [s for s in stems if any(p.startswith(".") and p != ".." for p in s.split("/"))]
    stems = [s for s in stems if s not in hidden and not s.endswith("..")]
    files = [(f"./{stem}.{kind}", stem.encode()) for stem in stems for kind in ("mp4", "txt")]
    with tempfile.TemporaryDirectory() as at:
        data = tar_of(("0.png", b"0"), *files, form=form)
        sources = taken(Path(at), data)
        assert contents(sources) == {"0.png": b"0"} | {f"{stem}.mp4": stem.encode() for stem in stems}
        assert captions(sources) == {"0.png": None if "0" not in stems else "0"} | {
            f"{stem}.mp4": stem.strip() or None for stem in stems
        }


@QUICK
@given(st.binary(max_size=1500), st.integers(0, 3000))
def test_a_damaged_tar_is_a_problem_in_words(noise: bytes, at: int) -> None:
    data = bytearray(tar_of(("a.mp4", b"1" * 600), ("b.mp4", b"2" * 600)))
    data[at : at + len(noise)] = noise
    read = scan(io.BytesIO(bytes(data)), len(data))
    assert all(member.offset + member.nbytes <= len(data) for member in read.members)


def test_to_read_a_member_costs_the_same_in_a_tar_of_many(tmp_path: Path) -> None:
    """100,000 small pictures in one tar are usual; a look at all names for each is quadratic."""
    seconds = []
    for members in (100, 30_000):
        tar = tmp_path / f"{members}.tar"
        tar.write_bytes(tar_of(*((f"{n}.png", b"x") for n in range(members)), form=tarfile.USTAR_FORMAT))
        assert len(tar_contents(str(tar)).members) == members
        runs = []
        for first in (0, 40, 60):
            began = time.perf_counter()
            for n in range(first, first + 40):
                with local_path(f"{tar}#{n}.png") as path:
                    assert path.read_bytes() == b"x"
            runs.append(time.perf_counter() - began)
        seconds.append(min(runs))
    assert seconds[1] < 3 * seconds[0]


def test_a_byte_order_mark_is_no_part_of_a_caption(tmp_path: Path) -> None:
    mark = "\N{BYTE ORDER MARK}"
    data = tar_of(
        ("a.png", b"a"),
        ("a.txt", f"{mark}a cat".encode()),
        ("b.png", b"b"),
        ("b.json", f'{mark}{{"caption": "a dog"}}'.encode()),
    )
    sources = taken(tmp_path, data)
    assert sources.inputs["original"].to_pylist() == ["a cat", "a dog"]
    assert sources.notes == ()


def test_a_tar_in_capitals_is_a_tar(tmp_path: Path) -> None:
    (tmp_path / "X.TAR").write_bytes(tar_of(("a.png", b"a"), ("a.txt", b"a cat")))
    (tmp_path / "l.txt").write_text("X.TAR#a.png\n")
    for source in (tmp_path, tmp_path / "X.TAR", tmp_path / "l.txt"):
        assert contents(discover([str(source)])) == {"a.png": b"a"}
    (tmp_path / "CUT.TAR").write_bytes(b"no tar")
    with pytest.raises(MediaError, match="not a whole tar"), local_path(f"{tmp_path}/CUT.TAR"):
        pass
