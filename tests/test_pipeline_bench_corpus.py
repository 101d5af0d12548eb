"""The corpus of the bench is one that a run leaves: nothing is left to do, and no model is loaded for it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from pipeline.bench.corpus import COPY_EVERY, CORPUS, MEDIA, make_corpus
from pipeline.bench.scale import bench_corpus, exponents, measured
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.status import status
from pipeline.errors import UsageError

SOURCES = 60
HEAVY = ("torch", "ray", "av", "open_clip", "transformers", "boto3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bench") / str(SOURCES)
    make_corpus(root, SOURCES)
    return root


def run_verb(*words: str, code: str = "") -> str:
    """What a command prints on stdout; with `code` after it in the same process."""
    program = f"import sys, framemill\nassert framemill.main({list(words)!r}) == 0\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_over_it_has_nothing_to_do_and_loads_no_model(folder: Path) -> None:
    before = files(folder / CORPUS)
    code = f"print([name for name in {HEAVY!r} if name in sys.modules])"
    words = ["run", str(folder / MEDIA), "--out", str(folder / CORPUS), "--json"]
    result, heavy = run_verb(*words, code=code).splitlines()
    tasks = {row["stage"]: row["tasks"] for row in json.loads(result)["stages"]}
    assert tasks == {"analyze": 0, "judge": 0, "caption": 0, "encode": 0, "report": 1}
    assert heavy == "[]"
    after = files(folder / CORPUS)
    assert {name for name in after if after[name] != before.get(name)} == {"report/index.html"}


def files(folder: Path) -> dict[str, bytes]:
    paths = (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def test_its_copies_are_found_and_what_stays_is_captioned_and_encoded(folder: Path) -> None:
    counts = status(Corpus(str(folder / CORPUS)))
    kept = counts["clips"]["status"]["kept"]
    assert counts["sources"]["status"] == {"ok": SOURCES}
    assert SOURCES - kept == counts["clips"]["reasons"]["duplicate"] == SOURCES // COPY_EVERY
    assert counts["captions"]["builtin"]["status"] == counts["latents"]["default"]["status"] == {"ok": kept}


def test_status_counts_as_a_plain_program_does(folder: Path) -> None:
    corpus = Corpus(str(folder / CORPUS))
    counts, judged = status(corpus), corpus.judged().to_pylist()
    assert counts["clips"]["status"] == Counter(row["status"] for row in judged)
    assert counts["clips"]["kept_s"] == sum(row["duration_s"] for row in judged if row["status"] == "kept")
    assert counts["latents"]["default"]["shards"] == len(
        list((folder / CORPUS).glob("latents/default/*.tar"))
    )


def test_verbs_are_measured_in_processes_of_their_own(folder: Path) -> None:
    figures = measured(folder, only="quick")
    assert list(figures) == ["start", "verify --quick"]
    assert all(took["cpu_s"] > 0.05 and took["peak_mb"] > 10 for took in figures.values())
    assert exponents({"1": figures, "10": figures}) == {"1 to 10": {"verify --quick": 0.0}}


def test_an_exponent_is_that_of_the_work_without_the_start() -> None:
    start = {"cpu_s": 1.0}
    small, large = ({"start": start, "run": {"cpu_s": 1.0 + n**1.5}} for n in (4, 400))
    assert exponents({"4": small, "400": large}) == {"4 to 400": {"run": 1.5}}


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path) -> None:
    with pytest.raises(UsageError, match="not empty"):
        make_corpus(folder, 5)
    with pytest.raises(UsageError, match="above 0"):
        bench_corpus([0], folder)
