"""Which tars a change of the corpus writes again: `framemill bench growth`.

In: a number of images, which are drawn. Out: for 0.1, 1 and 5 % more of them, one that is taken down and one
whose content changed, how many tars there were, how many are gone or not what they were, how many are new.
Each change is made by commands of their own, on a copy of the same corpus. `ratio`: of the tars that were
there before more images came, those that are still there, byte for byte.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.errors import StorageError
from pipeline.progress import Progress, silent
from pipeline.storage import sha256_hex

SHARES = (0.001, 0.01, 0.05)
SIDES = ((96, 64), (64, 96), (72, 72))
SETTINGS = ("judge.preset=keep-all", "judge.dedup=false", "encode.clips_per_task=16", "encode.shard_mb=0.2")


def bench_growth(images: int, progress: Progress = silent) -> dict[str, Any]:
    """The table of changes, and the share of tars that growing left alone."""
    with tempfile.TemporaryDirectory(prefix="framemill-growth-") as folder:
        root = Path(folder)
        draw(root / "first", range(images))
        run(root / "first", root / "corpus")
        changes: list[tuple[str, Callable[[Path, Path], None]]] = [
            (f"+{share:.1%} clips", _more(images, max(1, round(images * share)))) for share in SHARES
        ]
        changes += [("one source taken down", _taken_down), ("one source changed", _changed(images))]
        rows = []
        for number, (name, change) in enumerate(changes, 1):
            rows.append({"change": name} | _changed_tars(root, change))
            progress(number, len(changes), {"change": name})
    grown = rows[: len(SHARES)]
    kept = sum(row["tars"] - row["rewritten"] for row in grown) / sum(row["tars"] for row in grown)
    details = {"images": images, "changes": rows}
    return {"name": "growth", "ratio": round(kept, 4), "against": "the tars before", "details": details}


def draw(folder: Path, numbers: range) -> None:
    """Images of these numbers, no two alike."""
    folder.mkdir(exist_ok=True)
    for number in numbers:
        noise = np.random.default_rng(number).integers(0, 255, (8, 12, 3)).astype(np.uint8)
        picture = Image.fromarray(noise).resize(SIDES[number % len(SIDES)], Image.Resampling.BILINEAR)
        picture.save(folder / f"{number:06d}.png")


def run(media: Path, corpus: Path) -> None:
    """Analyzes, judges and encodes."""
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command("analyze", str(media), "--out", str(corpus), *settings)
    command("judge", str(corpus), *settings)
    command("encode", str(corpus), *settings)


def command(*words: str) -> str:
    """What a command says that must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", "framemill", *words], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise StorageError(f"framemill {' '.join(words)[:200]} failed: {done.stderr[-1000:]}")
    return done.stdout


def _changed_tars(root: Path, change: Callable[[Path, Path], None]) -> dict[str, Any]:
    media, corpus = root / "media", root / "copy"
    for source, copy in ((root / "first", media), (root / "corpus", corpus)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
    command("analyze", str(media), "--out", str(corpus))  # the same files at another place
    before = _tars(corpus)
    change(media, corpus)
    after, report = _tars(corpus), json.loads(command("verify", str(corpus), "--json"))
    return {
        "tars": len(before),
        "rewritten": sum(after.get(name) != digest for name, digest in before.items()),
        "new": len(after.keys() - before.keys()),
        "samples": report["samples"],
        "errors": report["error_count"],
    }


def _tars(corpus: Path) -> dict[str, str]:
    """Name → hash of every tar."""
    paths = (corpus / "latents" / "default").glob("*.tar")
    return {path.name: sha256_hex(path.read_bytes()) for path in sorted(paths)}


def _more(images: int, count: int) -> Callable[[Path, Path], None]:
    def change(media: Path, corpus: Path) -> None:
        draw(media, range(images, images + count))
        run(media, corpus)

    return change


def _taken_down(media: Path, corpus: Path) -> None:
    command("takedown", str(corpus), str(media / "000000.png"))
    run(media, corpus)


def _changed(images: int) -> Callable[[Path, Path], None]:
    def change(media: Path, corpus: Path) -> None:
        draw(media, range(images, images + 1))
        (media / f"{images:06d}.png").replace(media / "000000.png")
        run(media, corpus)

    return change
