"""Like clips have near vectors, a head scores them, and one of a group of like clips stays."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from captioner.embed import embed_corpus, load_embedder, read_head
from pipeline.config import Config, load_config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.dedup.semantic import semantic_pairs
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import ModelError
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge_corpus

MEDIA = Path(__file__).parents[1] / "infra" / "media"


def vectors(groups: int, each: int, spread: float) -> np.ndarray:
    """float32 [groups * each, 32] unit vectors around random ones."""
    rng = np.random.default_rng(0)
    centres = np.repeat(rng.normal(size=(groups, 32)), each, axis=0)
    found = centres + rng.normal(size=centres.shape) * spread
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_semantic_pairs_are_those_of_like_vectors() -> None:
    pytest.importorskip("usearch")
    rows = np.arange(200) * 3
    table = semantic_pairs(vectors(50, 4, 0.05), rows, 0.02)
    a, b = table["a"].to_numpy(), table["b"].to_numpy()
    assert table.num_rows == 50 * 6
    assert (a < b).all()
    assert np.array_equal(a // 12, b // 12)
    assert max(table["distance"].to_pylist()) <= 0.02
    assert semantic_pairs(vectors(50, 4, 0.05), rows, 0.0).num_rows == 0


def test_a_corpus_is_embedded_once_scored_and_judged(tmp_path: Path) -> None:
    pytest.importorskip("usearch")
    corpus = Corpus(str(tmp_path / "c"))
    analyze_corpus(corpus, discover([str(MEDIA)]).inputs, Config(), LocalExecutor(), silent)
    head = tmp_path / "head.safetensors"
    width = len(corpus_vectors(corpus)["vector"][0])
    save_file({"weight": np.eye(1, width, dtype=np.float32), "bias": np.full(1, 5.0, np.float32)}, head)
    rules = ["judge.embedder=builtin:", f"judge.aesthetic_head={head}", "judge.preset=keep-all"]
    config = load_config(None, [*rules, "judge.semantic_distance=2.0", "judge.rules.aesthetic.max=10"])
    summary, found = embed_corpus(corpus, config, LocalExecutor(), silent)
    assert summary.counts["ok"] == corpus.clips().num_rows
    scores = found["aesthetic"].to_numpy()
    assert np.allclose(scores, 5 + np.array(found["vector"].to_pylist())[:, 0], atol=1e-5)
    assert embed_corpus(corpus, config, LocalExecutor(), silent)[0].tasks == 0

    def broken(rows: pa.Table) -> pa.Table:
        failed = [row | {"status": "failed", "vector": None} for row in rows.to_pylist()]
        return tables.from_rows(failed, tables.EMBEDDINGS)

    corpus.edit("embeddings/builtin", found["clip_id"][:1].combine_chunks(), broken)
    assert embed_corpus(corpus, config, LocalExecutor(), silent)[0].tasks == 0
    again, vectors_again = embed_corpus(corpus, config, LocalExecutor(), silent, retry_failed=True)
    assert again.counts == {"ok": 1, "failed": 0}
    assert vectors_again["vector"].equals(found["vector"])

    judge_corpus(corpus, config, embeddings=found)  # everything is near everything: one video stays
    kept = [r for r in corpus.judged().to_pylist() if r["status"] == "kept"]
    assert [r["kind"] for r in kept].count("video") == 1
    picky = load_config(None, ["judge.rules.aesthetic.max=0"], config)
    judge_corpus(corpus, picky, embeddings=found)
    assert {tuple(r["reasons"]) for r in corpus.judged().to_pylist()} == {("high aesthetic",)}


def corpus_vectors(corpus: Corpus) -> pa.Table:
    config = load_config(None, ["judge.embedder=builtin:"])
    return embed_corpus(corpus, config, LocalExecutor(), silent)[1]


def test_wrong_names_say_what_is_right(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="clip:MODEL/TAG"):
        load_embedder("clip")
    with pytest.raises(ModelError, match="safetensors with weight"):
        read_head(str(tmp_path / "none.safetensors"))
