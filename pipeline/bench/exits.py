"""Short commands in loops, to see that each ends as quietly as it ran.

In: a number of commands. Out: how many ended with exit code 0 and nothing on stderr but progress; what
the others said. They take turns: analyze a file, analyze a tar, judge, status, verify. Beside busy loops, if
asked for: threads that outlive their work show on a machine that is not idle.
"""

import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pipeline.progress import Progress, silent
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

TOY = ToyWorldConfig(videos=2, images=1, seed=11, min_shots=1, max_shots=1)
WORDS_SHOWN = 300  # of what an unquiet command said


def bench_exits(runs: int, busy: int = 0, *, progress: Progress = silent) -> dict[str, Any]:
    """`ratio`: commands that ended with 0 and without a word beyond their progress, over all."""
    codes, unquiet = Counter[str](), list[dict[str, Any]]()
    with tempfile.TemporaryDirectory(prefix="framemill-exits-") as folder, ExitStack() as stack:
        root = Path(folder)
        render_corpus(root / "toy", TOY)
        with tarfile.open(root / "toy.tar", "w") as tar:
            for path in sorted((root / "toy" / "videos").iterdir()):
                tar.add(path, path.name)
        _run(["run", str(root / "toy"), "--out", str(root / "whole")])
        for _ in range(busy):
            stack.enter_context(_busy_loop())
        for number in range(runs):
            words = _words(root, number)
            done = _run(words)
            codes[f"{words[0]} exit {done.returncode}"] += 1
            said = [line for line in done.stderr.splitlines() if not line.startswith(f"{words[0]}: ")]
            if done.returncode or said:
                unquiet.append({"words": words, "code": done.returncode, "said": done.stderr[-WORDS_SHOWN:]})
            progress(number + 1, runs, {"unquiet": len(unquiet)})
    ratio = round((runs - len(unquiet)) / max(1, runs), 4)
    details = {"codes": dict(sorted(codes.items())), "unquiet": unquiet, "busy": busy}
    return {"name": "exits", "ratio": ratio, "against": "a quiet end", "details": details}


def _words(root: Path, number: int) -> list[str]:
    """The command of this turn; an analysis is into a folder of its own."""
    turn, round_ = number % 5, number // 5
    out = str(root / f"corpus-{round_}")
    if turn == 0:
        return ["analyze", str(root / "toy" / "videos" / "v000000.mp4"), "--out", out]
    if turn == 1:
        return ["analyze", str(root / "toy.tar"), "--out", f"{out}-tar"]
    return [["judge", out], ["status", out], ["verify", str(root / "whole"), "--decode-back", "1"]][turn - 2]


def _run(words: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "framemill", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextmanager
def _busy_loop() -> Iterator[None]:
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        loop.kill()
        loop.wait()
