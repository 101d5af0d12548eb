"""Training: it learns, it is reproducible, it goes on from saved weights, and evaluation counts right."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from captioner.filmstrip import Filmstrip
from captioner.model import load_model, save_model
from captioner.training.evaluate import evaluate, evaluate_examples
from captioner.training.examples import toy_example
from captioner.training.tags import tags_of
from captioner.training.train import ENDLESS, HELD_OUT_SEED, TrainConfig, train
from pipeline.bundle import RECORD_NAME
from pipeline.errors import ConfigError, FramemillError, UsageError
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

TINY = TrainConfig(
    steps=6,
    frames_per_batch=8,
    max_batch=4,
    eval_every=3,
    eval_examples=2,
    tag_steps=2,
    frame_counts=(2, 1),
    warmup_steps=1,
    tokenizer_examples=50,
)
SIZES = {  # the same architecture at a size that trains in a second
    "image_px": 32,
    "width": 32,
    "heads": 2,
    "layers": 2,
    "time_layers": 1,
    "text_layers": 1,
    "decoder_layers": 1,
    "pool_queries": 4,
}
train_small = partial(train, sizes=SIZES)


def rows(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_the_loss_falls(tmp_path: Path) -> None:
    train_small(ENDLESS, tmp_path, replace(TINY, steps=60, tag_steps=0, eval_every=20, learning_rate=3e-3))
    losses = [row["captioning"] for row in rows(tmp_path)]
    assert losses[-1] < 0.75 * losses[0]


def test_the_same_run_gives_the_same_weights(tmp_path: Path) -> None:
    for name in "ab":
        train_small(ENDLESS, tmp_path / name, TINY)
    assert load_model(tmp_path / "a").weights_sha256 == load_model(tmp_path / "b").weights_sha256
    train_small(ENDLESS, tmp_path / "c", replace(TINY, seed=1))
    assert load_model(tmp_path / "a").weights_sha256 != load_model(tmp_path / "c").weights_sha256


def test_a_frozen_text_tower_keeps_its_hash(tmp_path: Path) -> None:
    train_small(ENDLESS, tmp_path / "fresh", TINY)
    model = load_model(tmp_path / "fresh")
    model.text.ln_final.bias.data[0] = -0.0  # averaging it with itself would give 0.0
    save_model(model, tmp_path / "a", {})
    train_small(ENDLESS, tmp_path / "b", replace(TINY, steps=12, init=str(tmp_path / "a"), freeze_text=True))
    first, second = load_model(tmp_path / "a"), load_model(tmp_path / "b")
    assert first.text_sha256 == second.text_sha256
    assert first.weights_sha256 != second.weights_sha256


def test_a_rendered_folder_trains_and_evaluates(tmp_path: Path) -> None:
    render_corpus(tmp_path / "toy", ToyWorldConfig(videos=1, images=1, seed=2, max_shots=2))
    reports: list[tuple[int, int]] = []
    train_small(
        tmp_path / "toy",
        tmp_path / "out",
        TINY,
        progress=lambda done, total, _: reports.append((done, total)),
    )
    assert reports[-1] == (6, 6)
    figures = evaluate(f"builtin:{tmp_path / 'out'}", tmp_path / "toy", limit=2)
    assert figures["n"] == 2
    assert json.loads((tmp_path / "out" / RECORD_NAME).read_text())["training"]["steps"] == 6


def test_evaluation_counts_facts() -> None:
    examples = [toy_example(7, index) for index in range(6)]

    def truth(strips: Sequence[Filmstrip]) -> list[tuple[str, str]]:
        by_id = {example.strip.clip_id: example for example in examples}
        return [(by_id[s.clip_id].caption.short, by_id[s.clip_id].caption.detailed) for s in strips]

    perfect = evaluate_examples(truth, examples)
    assert (perfect["fact_precision"], perfect["fact_recall"], perfect["hallucination"]) == (1.0, 1.0, 0.0)
    assert perfect["short_precision"] == 1.0
    silent = evaluate_examples(lambda strips: [("", "")] * len(strips), examples)
    assert (silent["fact_recall"], silent["hallucination"]) == (0.0, 0.0)
    others = [replace(example, facts=examples[i - 1].facts) for i, example in enumerate(examples)]
    assert evaluate_examples(truth, others)["hallucination"] > 0.3


def test_tags_name_every_fact_in_one_order() -> None:
    for index in range(20):
        facts = toy_example(7, index, 1 if index % 3 == 0 else 8).facts
        tags = tags_of(facts)
        assert all(fact.value in tags for fact in facts)
        assert tags == tags_of(frozenset(sorted(facts, reverse=True)))


def test_a_seed_may_not_reach_the_held_out_set() -> None:
    with pytest.raises(ConfigError, match="held-out"):
        replace(TINY, seed=HELD_OUT_SEED)


def test_training_leaves_no_gradient_in_the_saved_model(tmp_path: Path) -> None:
    train_small(ENDLESS, tmp_path, replace(TINY, steps=1))
    assert not any(p.requires_grad for p in load_model(tmp_path).parameters())
    assert torch.is_grad_enabled()


def test_a_folder_that_holds_weights_or_a_log_is_not_trained_into(tmp_path: Path) -> None:
    train_small(ENDLESS, tmp_path / "out", TINY)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for config in (TINY, replace(TINY, init=str(tmp_path / "out"))):
        with pytest.raises(UsageError, match="init="):
            train_small(ENDLESS, tmp_path / "out", config)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match=r"metrics\.jsonl"):
        train_small(ENDLESS, tmp_path / "log", TINY)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_saved(tmp_path: Path) -> None:
    wild = replace(TINY, steps=60, eval_every=1, learning_rate=1e8, clip_norm=1e9, tag_steps=0)
    with pytest.raises(FramemillError, match="finite"):
        train_small(ENDLESS, tmp_path, wild)
    if (tmp_path / RECORD_NAME).exists():
        assert all(value.isfinite().all() for value in load_model(tmp_path).state_dict().values())
    if (tmp_path / "metrics.jsonl").exists():
        assert not {"NaN", "Infinity"} & set(
            (tmp_path / "metrics.jsonl").read_text().replace(",", " ").split()
        )


def test_the_optimiser_listens_to_its_config(tmp_path: Path) -> None:
    configs = [TINY, *(replace(TINY, **change) for change in ({"beta2": 0.5}, {"clip_norm": 1e-4}))]
    for index, config in enumerate(configs):
        train_small(ENDLESS, tmp_path / str(index), config)
    assert len({load_model(tmp_path / str(index)).weights_sha256 for index in range(3)}) == 3
