"""Sources that are not there: a failed row each, thousands to a task, beside the same parts of the others."""

import time
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import MISSING_PER_TASK, analyze_corpus


def test_missing_files_cost_a_row_each_and_few_tasks(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((64, 96, 3), np.uint8)).save(tmp_path / "there.png")
    gone = [f"gone{number:05}.mp4" for number in range(2 * MISSING_PER_TASK + 1)]
    (tmp_path / "list.txt").write_text("\n".join(["there.png", *gone]))
    corpora = []
    started_s = time.process_time()
    for sources in ("list.txt", "there.png"):
        corpus = Corpus(str(tmp_path / f"of {sources}"))
        inputs = discover([str(tmp_path / sources)]).inputs
        corpora.append((corpus, analyze_corpus(corpus, inputs, Config(), LocalExecutor(), silent)))
    (many, of_many), (one, _) = corpora
    assert of_many.tasks == 4
    assert of_many.counts == {"ok": 1, "salvaged": 0, "failed": len(gone), "clips": 1}
    assert set(one.storage.list("strips")) < set(many.storage.list("strips"))
    reasons = many.sources().filter(many.sources()["status"].to_numpy(zero_copy_only=False) == "failed")
    assert set(reasons["reason"].to_pylist()) == {"no such file"}
    assert len(gone) / (time.process_time() - started_s) > 500  # thousands a second of CPU
