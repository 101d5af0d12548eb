"""Seeded mutations of real files, each analyzed in the sandbox: nothing may crash the run, hang it, or eat
its memory.

In: a folder of media, a count, a seed. Out: counts by outcome, the slowest file and the largest child. The
same seed makes the same files. Never: a change to the folder.
"""

import random
import re
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.config import AnalyzeConfig
from pipeline.errors import MediaError, UsageError
from pipeline.progress import Progress, silent
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover

MAX_BYTES = 320_000  # of a file to mutate: small ones reach as much code in less time
GRACE_S = 5.0  # beyond the deadline, until the run goes on: the child is killed and waited for
Mutation = Callable[[random.Random, bytearray], None]


def _flip_bits(draw: random.Random, data: bytearray) -> None:
    """One bit in a thousand bytes, at least one, anywhere."""
    for _ in range(1 + len(data) // draw.choice((100, 1000, 10_000))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _edit_header(draw: random.Random, data: bytearray) -> None:
    """A few bytes of the first or last two thousand become extreme: boxes, sizes and counts lie there."""
    for _ in range(draw.randint(1, 12)):
        at = draw.randrange(min(2000, len(data)))
        at = len(data) - 1 - at if draw.random() < 0.5 else at
        width = draw.choice((1, 2, 4, 8))
        value = draw.choice(
            (bytes(width), b"\xff" * width, b"\x7f" + b"\xff" * (width - 1), draw.randbytes(width))
        )
        data[at : at + width] = value[: len(data) - at]


def _truncate(draw: random.Random, data: bytearray) -> None:
    del data[draw.randrange(1, len(data)) :]


def _swap_chunks(draw: random.Random, data: bytearray) -> None:
    """Two pieces of equal size change places."""
    size = draw.randint(1, max(1, len(data) // 8))
    a, b = (draw.randrange(len(data) - size + 1) for _ in range(2))
    if abs(a - b) >= size:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def _repeat_chunk(draw: random.Random, data: bytearray) -> None:
    """A piece is said twice: what follows moves."""
    size = draw.randint(1, max(1, len(data) // 8))
    at = draw.randrange(len(data) - size + 1)
    data[at:at] = data[at : at + size]


def _drop_chunk(draw: random.Random, data: bytearray) -> None:
    size = draw.randint(1, max(1, len(data) // 8))
    at = draw.randrange(len(data) - size + 1)
    del data[at : at + size]


def _grow_numbers(draw: random.Random, data: bytearray) -> None:
    """The 32-bit numbers behind some four-letter names (boxes, chunks) become huge."""
    names = [name.start() for name in re.finditer(rb"[a-zA-Z ]{4}", data[:200_000])]
    for at in draw.sample(names, min(len(names), draw.randint(1, 4))):
        at += draw.choice((-4, 4, 8, 12, 16, 20))
        if 0 <= at <= len(data) - 4:
            data[at : at + 4] = draw.choice(
                (b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\0\0\xff\xff", bytes(4))
            )


MUTATIONS: tuple[Mutation, ...] = (
    _flip_bits,
    _edit_header,
    _truncate,
    _swap_chunks,
    _repeat_chunk,
    _drop_chunk,
    _grow_numbers,
)


def mutate(data: bytes, seed: int) -> tuple[bytes, str]:
    """(the mutated bytes, the mutations by name): one to three of them."""
    draw, changed, names = random.Random(seed), bytearray(data), []
    for _ in range(draw.choice((1, 1, 2, 3))):
        mutation = draw.choice(MUTATIONS)
        if len(changed) > 1:
            mutation(draw, changed)
            names.append(mutation.__name__.strip("_"))
    return bytes(changed), "+".join(names)


def bench_fuzz(
    media: str,
    count: int,
    seed: int,
    *,
    deadline_s: float = 20.0,
    memory_gb: float = 2.0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """`ratio`: the slowest file over the deadline. A run that ends says that nothing crashed it."""
    inputs = [
        row["uri"] for row in discover([media]).inputs.to_pylist() if 0 < row["size_bytes"] <= MAX_BYTES
    ]
    if not inputs:
        raise UsageError(
            f"no media file of at most {MAX_BYTES} bytes in {media}", expected="a folder of clips"
        )
    draw, config = random.Random(seed), AnalyzeConfig(deadline_s=deadline_s, memory_gb=memory_gb)
    outcomes: Counter[str] = Counter()
    costly: list[dict[str, Any]] = []
    times_s: list[float] = []
    slowest: dict[str, Any] = {"seconds": 0.0}
    with (
        tempfile.TemporaryDirectory(prefix="framemill-fuzz-") as folder,
        Sandbox(config.limits()) as box,
    ):
        for number in range(count):
            source, case = Path(draw.choice(inputs)), draw.getrandbits(48)
            data, how = mutate(source.read_bytes(), case)
            path = Path(folder) / f"mutant{source.suffix}"
            path.write_bytes(data)
            started = time.monotonic()
            outcome = _outcome(box, path, config)
            times_s.append(time.monotonic() - started)
            mutant = {"file": source.name, "case": case, "how": how, "outcome": outcome}
            outcomes[outcome.split(":")[0]] += 1
            if not outcome.startswith(("ok", "salvaged", "refused")):
                costly.append(mutant)
            if times_s[-1] > slowest["seconds"]:
                slowest = {"seconds": round(times_s[-1], 2), **mutant}
            progress(number + 1, count, dict(outcomes))
        confined = list(box.confined)
    peak_gb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    details = {
        "files": len(inputs),
        "count": count,
        "seed": seed,
        "outcomes": dict(sorted(outcomes.items())),
        "costly": costly,
        "slowest": slowest,
        "mean_s": round(sum(times_s) / len(times_s), 3),
        "deadline_s": deadline_s,
        "memory_gb": memory_gb,
        "peak_rss_gb": round(peak_gb, 3),
        "confined": confined,
        "within_limits": max(times_s) <= deadline_s + GRACE_S and peak_gb <= memory_gb,
    }
    ratio = round(slowest["seconds"] / deadline_s, 4)
    return {"name": "fuzz", "ratio": ratio, "against": "the deadline of a file", "details": details}


def _outcome(box: Sandbox, path: Path, config: AnalyzeConfig) -> str:
    """ok | salvaged | refused: reason | unforeseen: exception | too slow | too large | died: how."""
    try:
        return str(box.analyze(path, config).source["status"])
    except MediaError as error:
        for words, outcome in (("took longer", "too slow"), ("GB of memory", "too large"), ("died", "died")):
            if words in error.what:
                return f"{outcome}: {error.what}"
        return f"{'unforeseen' if re.match(r'[A-Za-z]+Error: ', error.what) else 'refused'}: {error.what}"
