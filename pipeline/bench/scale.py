"""What each verb costs as a corpus grows, on a corpus that a run has left (pipeline/bench/corpus.py).

In: numbers of sources, a folder. Out: for each verb CPU seconds (user and system), wall seconds and peak
memory of a process of its own that runs it, and the exponent of its CPU seconds between two sizes, less what
a command costs that does nothing. A verb that would begin to caption or to encode is planned instead: its
tasks are counted, and none is run. `judge` and `report` write what is there; nothing else is changed.
"""

import json
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from pipeline.bench.corpus import CORPUS, MEDIA
from pipeline.corpus.corpus import JUDGED_PATH, Corpus
from pipeline.errors import StorageError, UsageError
from pipeline.progress import Progress, silent
from pipeline.stages.judge import PAIRS_PATH

PLAN_CAPTIONS = """
import sys
from captioner.recaption import caption_tasks
from pipeline.corpus.corpus import Corpus
corpus = Corpus(sys.argv[1])
print(len(caption_tasks(corpus, "another", "0" * 16, corpus.config().caption.clips_per_task)))
"""
PLAN_SHARDS = """
import sys
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import LatentSet
from tokenizer_stage.open_shards import settle
from tokenizer_stage.sharding import KeptClips, plan_pieces
corpus = Corpus(sys.argv[1])
latents, clips = LatentSet(corpus.storage, "default"), KeptClips.of(corpus)
keys = clips.keys("0" * 16)
at = settle(latents.state(), latents.shards(), keys).open_at
print(sum(task.inputs.num_rows for task in plan_pieces(clips, keys, at, per_task=64, latent_bytes=15_000)))
"""
# Runs a command and prints what it took. A process of its own, which is small: the memory of a child is
# counted from the moment of its birth, when it is a copy of its parent.
LAUNCH = """
import json, resource, subprocess, sys, time
started = time.monotonic()
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps({
    "cpu_s": round(used.ru_utime + used.ru_stime, 2),
    "seconds": round(time.monotonic() - started, 2),
    "peak_mb": round(used.ru_maxrss / 1024),
    "code": done.returncode,
    "said": done.stderr.decode(errors="replace")[-600:],
}))
"""
MAKE = """
import sys
from pathlib import Path
from pipeline.bench.corpus import make_corpus
make_corpus(Path(sys.argv[1]), int(sys.argv[2]))
"""


def bench_corpus(
    sizes: list[int], out: Path, *, measure: bool = False, only: str = "", progress: Progress = silent
) -> dict[str, Any]:
    """Makes a corpus of each size that is not there yet, in `out`/<size>; with `measure` the verbs whose name
    holds `only` run over each."""
    if not sizes or min(sizes) < 1:
        raise UsageError(f"--sources {sizes}", expected="numbers above 0")
    figures: dict[str, dict[str, Any]] = {}
    for number, size in enumerate(sizes):
        progress(number, len(sizes), {"sources": size})
        root = out / str(size)
        figures[str(size)] = {}
        if not (root / CORPUS).exists():
            figures[str(size)]["make"] = _measured([sys.executable, "-c", MAKE, str(root), str(size)])
        if measure:
            figures[str(size)] |= measured(root, only)
    progress(len(sizes), len(sizes), {})
    return {"name": "corpus", "details": figures, "exponents": exponents(figures)}


def measured(root: Path, only: str = "") -> dict[str, Any]:
    """Verb → what it took over the corpus of a folder."""
    corpus = Corpus(str(root / CORPUS)).require()
    source_id = pc.drop_null(corpus.sources(["source_id"])["source_id"])[0].as_py()
    words = {
        "start": ["--version"],
        "run": ["run", str(root / MEDIA), "--out", corpus.root],
        "status": ["status", corpus.root],
        "caption": ["caption", corpus.root],
        "encode": ["encode", corpus.root],
        "verify --quick": ["verify", corpus.root, "--quick"],
        "takedown --dry-run": ["takedown", corpus.root, source_id, "--dry-run"],
        "report": ["report", corpus.root],
        "judge": ["judge", corpus.root],
    }
    commands = {name: [sys.executable, "-m", "framemill", *them] for name, them in words.items()}
    for name, program in (("caption, planning all", PLAN_CAPTIONS), ("encode, planning all", PLAN_SHARDS)):
        commands[name] = [sys.executable, "-c", program, corpus.root]
    figures = {}
    for name, command in commands.items():
        if only not in name and name != "start":
            continue
        if name == "judge":  # anew, copies included
            for path in (JUDGED_PATH, PAIRS_PATH):
                corpus.storage.delete(path)
        figures[name] = _measured(command)
    return figures


def _measured(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-S", "-c", LAUNCH, *command], capture_output=True, text=True, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    if code := figures.pop("code"):
        raise StorageError(f"{' '.join(command[2:])[:200]} ended with {code}: {figures['said']}")
    del figures["said"]
    return figures


def exponents(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """`small to large` → verb → the exponent of its CPU seconds, less those of an idle command."""
    sizes = sorted(figures, key=int)
    found: dict[str, dict[str, float]] = {}
    for small, large in pairwise(sizes):
        one, other = figures[small], figures[large]
        found[f"{small} to {large}"] = {
            name: round(math.log(_net(other, name) / _net(one, name)) / math.log(int(large) / int(small)), 2)
            for name in one
            if name in other and name not in ("start", "make")
        }
    return found


def _net(figures: dict[str, Any], name: str) -> float:
    return float(max(figures[name]["cpu_s"] - figures["start"]["cpu_s"], 0.01))


def lines(result: dict[str, Any]) -> list[str]:
    """A table a size, then the exponents, for people."""
    out = []
    for size, verbs in result["details"].items():
        out.append(f"{size} sources{'':<8}{'CPU s':>10}{'s':>10}{'peak MB':>10}")
        for name, took in verbs.items():
            out.append(f"  {name:<22}{took['cpu_s']:>10.2f}{took['seconds']:>10.2f}{took['peak_mb']:>10}")
    for pair, of in result["exponents"].items():
        out += [f"exponent {pair}: " + ", ".join(f"{name} {value:.2f}" for name, value in of.items())]
    return out
