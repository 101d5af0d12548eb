"""The synthetic table of the judge bench: judged whole, its copies among what is rejected."""

from pathlib import Path

from pipeline.bench.corpus import COPY_EVERY, make_analyzed
from pipeline.config import Config
from pipeline.stages.judge import judge_corpus

ROWS = 400


def test_every_row_is_judged_and_the_copies_go(tmp_path: Path) -> None:
    corpus = make_analyzed(tmp_path, ROWS)
    summary = judge_corpus(corpus, Config())
    assert summary.counts["kept"] + summary.counts["rejected"] == ROWS
    copies = corpus.judged().filter(
        [reason == ["duplicate"] for reason in corpus.judged()["reasons"].to_pylist()]
    )
    assert copies.num_rows >= 0.9 * (ROWS // COPY_EVERY)
