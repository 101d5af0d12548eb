"""Names of files and folders, lists and tars: each source once, under its own name, with its own caption.

In: the corners. Out: cases of pictures that are told apart by their colours, and what is said of the rest.
"""

import csv
import io
import json
import os
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from PIL import Image

from pipeline.zoo.case import Case, Corners, Expected, failed, still
from pipeline.zoo.pictures import SIZE, place, quadrants

NAMES: tuple[str, ...] = (
    "ünïcode.png",
    "two words.png",
    "a#b.png",
    "100%.png",
    "[2020].png",
    "what?.png",
    "star*.png",
    "-x.png",
)
NAMES += (
    "new\nline.png",
    "quote'\".png",
    "a.b.c.png",
    "UPPER.PNG",
    "日本.png",
    "x" * 200 + ".png",
    "$HOME.png",
)
FOLDERS = ("[2020] trip", "a*b", "what?", "two words", "ünï", "#1")


def cases(corners: Corners) -> list[Case]:
    """All of them."""
    return [*_named(corners), *_trees(corners), *_lists(corners), *_tars(corners)]


def png(corners: Corners) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(quadrants(corners)).save(buffer, "PNG")
    return buffer.getvalue()


def turned(corners: Corners) -> Corners:
    return place(corners, (3, 2, 1, 0))


def _named(corners: Corners) -> list[Case]:
    """Named itself, and in a folder that is named."""
    listed = []
    for number, name in enumerate(NAMES):
        for word, given in (("file", name), ("folder", "")):

            def make(folder: Path, name: str = name) -> None:
                (folder / name).write_bytes(png(corners))

            sources = {name: still(corners, SIZE)}
            listed.append(Case(name=f"names/{word}-{number}", make=make, given=(given,), sources=sources))
    for number, name in enumerate(FOLDERS):

        def below(folder: Path, name: str = name) -> None:
            (folder / name).mkdir()
            (folder / name / "a1.png").write_bytes(png(corners))
            (folder / name / "b1.png").write_bytes(png(turned(corners)))

        both = {f"{name}/a1.png": still(corners, SIZE), f"{name}/b1.png": still(turned(corners), SIZE)}
        listed.append(Case(name=f"names/below-{number}", make=below, given=(name,), sources=both))
        one = {f"{name}/b1.png": still(turned(corners), SIZE)}
        listed.append(
            Case(name=f"names/glob-below-{number}", make=below, given=(f"{name}/[!a]*.png",), sources=one)
        )
    return listed


def _trees(corners: Corners) -> list[Case]:
    def not_utf8(folder: Path) -> None:
        (folder / "good.png").write_bytes(png(corners))
        with open(os.fsencode(folder) + b"/caf\xe9.png", "wb") as stream:
            stream.write(png(corners))

    def loop(folder: Path) -> None:
        (folder / "good.png").write_bytes(png(corners))
        (folder / "sub").mkdir()
        (folder / "sub" / "up").symlink_to(folder, target_is_directory=True)

    good = {"good.png": still(corners, SIZE)}
    return [
        Case(name="names/not-utf8", make=not_utf8, given=("",), sources=good, notes=(r"caf\\xe9",)),
        Case(name="names/loop", make=loop, given=("",), sources=good),
    ]


def _two(corners: Corners, captions: tuple[str | None, str | None]) -> dict[str, Expected]:
    return {
        "a.png": still(corners, SIZE, caption=captions[0]),
        "b.png": still(turned(corners), SIZE, caption=captions[1]),
    }


def _lists(corners: Corners) -> list[Case]:
    """Two pictures, a row each, and a row that cannot be used."""
    long = "word " * 30_000
    rows: dict[str, tuple[str, bytes, Mapping[str, Expected], tuple[str, ...]]] = {
        "separator": (
            "x.jsonl",
            '{"uri": "a.png", "caption": "one\u2028two"}\n{"uri": "b.png"}\n'.encode(),
            _two(corners, ("one\u2028two", None)),
            (),
        ),
        "surrogate": (
            "x.jsonl",
            b'{"uri": "a.png", "caption": "smile \\ud83d"}\n{"uri": "b.png", "caption": "ok"}\n',
            _two(corners, ("smile \ufffd", "ok")),
            (),
        ),
        "cut-row": (
            "x.jsonl",
            b'{"uri": "a.png"}\n{"uri": "b.png"}\n{"uri": "c.p',
            _two(corners, (None, None)),
            ("line 3",),
        ),
        "long-cell": (
            "x.csv",
            f"uri,caption\na.png,{long}\nb.png,y\n".encode(),
            _two(corners, (long, "y")),
            (),
        ),
        "nul": (
            "x.csv",
            b"uri,caption\na\x00.png,x\na.png,one\nb.png,two\n",
            _two(corners, ("one", "two")),
            ("line 2",),
        ),
        "lines-in-cells": (
            "x.csv",
            _table({"a.png": "one\ntwo", "b.png": 'say "hi"'}),
            _two(corners, ("one\ntwo", 'say "hi"')),
            (),
        ),
        "crlf-bom": (
            "x.csv",
            b"\xef\xbb\xbfuri,caption\r\na.png,one\r\nb.png,two\r\n",
            _two(corners, ("one", "two")),
            (),
        ),
        "tabs": ("x.tsv", b"uri\tcaption\na.png\tone\nb.png\ttwo\n", _two(corners, ("one", "two")), ()),
        "text": ("x.txt", b"# two\na.png\n\nb.png\n", _two(corners, (None, None)), ()),
        "missing": (
            "x.txt",
            b"a.png\nb.png\nnone.png\n",
            _two(corners, (None, None)) | {"none.png": failed("no such file")},
            (),
        ),
        "deep": (
            "x.jsonl",
            b'{"uri": "a.png"}\n' + b"[" * 9000 + b'\n{"uri": "b.png"}\n',
            _two(corners, (None, None)),
            ("line 2",),
        ),
    }
    refused = {
        "no-uri": (b"path,caption\na.png,x\n", "no column `uri`"),
        "column-twice": (b"uri,caption,caption\na.png,x,y\n", "more than one column"),
        "utf-16": ("uri\na.png\n".encode("utf-16"), "UTF-"),
    }
    return [
        *(_list(corners, name, *row) for name, row in rows.items()),
        *(_list(corners, name, "x.csv", data, {}, (), says) for name, (data, says) in refused.items()),
    ]


def _table(captions: Mapping[str, str]) -> bytes:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("uri", "caption"), *captions.items()])
    return buffer.getvalue().encode()


def _list(
    corners: Corners,
    name: str,
    file: str,
    data: bytes,
    sources: Mapping[str, Expected],
    notes: tuple[str, ...],
    refused: str = "",
) -> Case:
    def make(folder: Path) -> None:
        (folder / "a.png").write_bytes(png(corners))
        (folder / "b.png").write_bytes(png(turned(corners)))
        (folder / file).write_bytes(data)

    return Case(name=f"lists/{name}", make=make, given=(file,), sources=sources, notes=notes, refused=refused)


Member = tuple[str, bytes]


def _tars(corners: Corners) -> list[Case]:
    a, b = png(corners), png(turned(corners))
    right = still(corners, SIZE, caption="first"), still(turned(corners), SIZE, caption="second")
    plain: dict[str, list[Member]] = {
        "plain": [("a.png", a), ("a.txt", b"first"), ("b.png", b), ("b.txt", b"second")],
        "dot-slash": [("./a.png", a), ("./a.txt", b"first"), ("./b.png", b), ("./b.txt", b"second")],
        "json": [
            ("a.png", a),
            ("a.json", json.dumps({"caption": "first"}).encode()),
            ("b.png", b),
            ("b.txt", b"second"),
        ],
        "hidden": [
            ("a.png", a),
            ("a.txt", b"first"),
            ("b.png", b),
            ("b.txt", b"second"),
            (".c.png", a),
            (".d/e.png", a),
        ],
        "captions-first": [("b.txt", b"second"), ("a.txt", b"first"), ("a.png", a), ("b.png", b)],
    }
    names = {"a.png": right[0], "b.png": right[1]}
    listed = [_tar(name, members, names) for name, members in plain.items()]
    dotted = [
        ("t.to.rome.png", a),
        ("t.to.rome.txt", b"first"),
        ("t.to.oslo.png", b),
        ("t.to.oslo.txt", b"second"),
    ]
    listed.append(_tar("dotted", dotted, {"t.to.rome.png": right[0], "t.to.oslo.png": right[1]}))
    long = "d" * 90 + "/" + "f" * 90
    deep = [(f"{long}.png", a), (f"{long}.txt", b"first")]
    listed += [
        _tar(f"long-{word}", deep, {f"{long}.png": right[0]}, kind)
        for word, kind in (("pax", tarfile.PAX_FORMAT), ("gnu", tarfile.GNU_FORMAT))
    ]
    halves = plain["plain"][:2], plain["plain"][2:]
    listed.append(_tar("concatenated", [], names, data=lambda: _packed(halves[0]) + _packed(halves[1])))
    whole = {"a.png": right[0], "": failed("cut|end|tar")}
    listed.append(_tar("cut", [], whole, data=lambda: _cut_inside(_packed(plain["plain"]), "b.png")))
    return listed


def _cut_inside(tar: bytes, name: str) -> bytes:
    return tar[: tar.index(name.encode()) + 512 + 64]


def _packed(members: list[Member], kind: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _tar(
    name: str,
    members: list[Member],
    sources: Mapping[str, Expected],
    kind: int = tarfile.PAX_FORMAT,
    data: Callable[[], bytes] | None = None,
) -> Case:
    def make(folder: Path) -> None:
        (folder / "x.tar").write_bytes(data() if data else _packed(members, kind))

    inside = {f"x.tar#{member}" if member else "x.tar": right for member, right in sources.items()}
    return Case(name=f"tars/{name}", make=make, given=("x.tar",), sources=inside)
