"""A run on a tiny latent set: it learns, resumes exactly, commits whole checkpoints, refuses foreign ones."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from latent_sets import CONFIG, losses, text_encoder, trainer, write_corpus
from torch import Tensor

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.ids import source_of
from pipeline.errors import ConfigError, FormatError, ModelError, StorageError, UsageError
from training.loader import choose_caption, open_dataset
from training.run.checkpoint import finished
from training.run.shipped import save_bundle
from training.run.train import train
from training.run.trained import load_trained


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


def test_batches_are_normalised_and_belong_to_their_position(corpus: Corpus, tmp_path: Path) -> None:
    loader = trainer(corpus, tmp_path / "run").loader
    batch = loader.batch(5)
    assert batch.clean[batch.layout.valid].abs().unique().tolist() == pytest.approx([1.0])
    assert not batch.clean[~batch.layout.valid].any()
    again = loader.batch(5)
    assert batch.sample_ids == again.sample_ids
    assert batch.prompts == again.prompts
    for prompt, text, shape_value in zip(
        batch.prompts, batch.texts, _values(batch.clean, batch.layout.sample), strict=True
    ):
        assert (prompt is None) == (text is None)
        assert prompt is None or (("red" in prompt) == (shape_value > 0))


def test_a_batch_moves_to_a_device_whole(corpus: Corpus, tmp_path: Path) -> None:
    moved = trainer(corpus, tmp_path / "run").loader.batch(0).to(torch.device("meta"))
    layout = moved.layout
    tensors = [moved.clean, layout.segments.offsets]
    tensors += [
        value
        for value in (getattr(layout, f.name) for f in dataclasses.fields(layout))
        if torch.is_tensor(value)
    ]
    assert len(tensors) == 7
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def _values(clean: Tensor, sample: Tensor) -> list[float]:
    return [float(clean[sample == n].sum()) for n in range(int(sample.max()) + 1)]


def test_no_source_is_on_both_sides_of_the_split(corpus: Corpus) -> None:
    dataset = open_dataset(corpus, "default", None, CONFIG)
    train_ids, val_ids = (
        {source_of(dataset.samples.clip_id(row)) for row in rows}
        for rows in (dataset.train_rows, dataset.val_rows)
    )
    assert train_ids
    assert val_ids
    assert not train_ids & val_ids
    assert len(train_ids) + len(val_ids) == 30


def test_the_caption_mix_follows_the_shares_of_what_there_is() -> None:
    config = dataclasses.replace(CONFIG, detailed_share=0.6, short_share=0.3, original_share=0.1)
    texts = {"detailed": "d", "short": "s", "original": "o"}
    drawn = [choose_caption(texts, n / 1000, config) for n in range(1000)]
    assert [drawn.count(kind) for kind in "dso"] == pytest.approx([600, 300, 100], abs=2)
    assert {choose_caption({"short": "s"}, n / 10, config) for n in range(10)} == {"s"}


def test_training_lowers_the_held_out_loss(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, steps=80, val_every=80, checkpoint_every=80, lr=5e-3)
    run = trainer(corpus, tmp_path / "run", config)
    before = run.validate().loss
    while run.step < config.steps:
        run.train_step()
    assert run.validation is not None
    assert run.validation.loss < 0.6 * before


def test_a_killed_run_takes_the_same_steps_when_resumed(corpus: Corpus, tmp_path: Path) -> None:
    whole = trainer(corpus, tmp_path / "whole")
    while whole.step < CONFIG.steps:
        whole.train_step()
    killed = trainer(corpus, tmp_path / "killed")
    for _ in range(5):  # the checkpoint is of step 3: two steps are lost
        killed.train_step()
    resumed = trainer(corpus, tmp_path / "killed")
    assert resumed.step == 3
    while resumed.step < CONFIG.steps:
        resumed.train_step()
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
    for mine, theirs in zip(resumed.ema.model.parameters(), whole.ema.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_only_whole_checkpoints_bear_a_final_name(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    assert [path.name for path in finished(run.run)] == ["step-00000003"]

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    run.train_step()
    with pytest.raises(StorageError, match="no space"):
        run.commit(write=full_disk)
    assert [path.name for path in finished(run.run)] == ["step-00000003"]
    assert trainer(corpus, tmp_path / "run").step == 3


def test_old_checkpoints_are_forgotten(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, checkpoint_every=1, keep_checkpoints=2)
    run = trainer(corpus, tmp_path / "run", config)
    for _ in range(4):
        run.train_step()
    assert [path.name for path in finished(run.run)] == ["step-00000003", "step-00000004"]


def test_latents_of_another_vae_and_another_text_encoder_are_refused(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    other = write_corpus(tmp_path / "other", vae_sha256="vae-2")
    with pytest.raises(FormatError, match="vae_sha256"):
        trainer(other, tmp_path / "run")
    with pytest.raises(FormatError, match="text encoder"):
        trainer(corpus, tmp_path / "run", sha256="text-2")
    with pytest.raises(FormatError, match="vae_sha256"):
        trainer(other, tmp_path / "child", dataclasses.replace(CONFIG, init=str(tmp_path / "run")))


def test_a_resumed_run_refuses_another_seed_but_takes_more_steps(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    with pytest.raises(ConfigError, match="another seed: 0, not 1"):
        trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, seed=1))
    assert trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, steps=9)).step == 3


def test_a_bundle_starts_a_new_run_and_says_when_it_is_damaged(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    trained = load_trained(str(tmp_path / "run"))
    first = {"curve": [{"step": 100, "loss": 2.0}], "parent": None}
    second = {"curve": [{"step": 100, "loss": 1.0}, {"step": 150, "loss": 0.9}], "parent": first}
    save_bundle(trained, tmp_path / "bundle", second)
    loaded = load_trained(f"builtin:{tmp_path / 'bundle'}")
    assert loaded.lineage == trained.lineage
    for mine, theirs in zip(loaded.model.parameters(), trained.model.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-3, rtol=1e-3)
    child = trainer(
        corpus, tmp_path / "child", dataclasses.replace(CONFIG, init=f"builtin:{tmp_path / 'bundle'}")
    )
    assert child.step == 0
    lines = [
        json.loads(line) for line in (tmp_path / "child" / "init-metrics.jsonl").read_text().splitlines()
    ]
    assert [(line["step"], line.get("resumed")) for line in lines] == [(100, None), (200, True), (250, None)]
    assert torch.equal(child.model.patch_out.weight, loaded.model.patch_out.weight)
    weights = tmp_path / "bundle" / "builtin.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(ModelError, match="does not match"):
        load_trained(f"builtin:{tmp_path / 'bundle'}")


def test_a_set_without_captions_and_a_missing_run_are_errors_with_a_cure(tmp_path: Path) -> None:
    bare = write_corpus(tmp_path / "bare", captioned=False)
    with pytest.raises(UsageError, match="framemill caption"):
        open_dataset(bare, "default", None, CONFIG)
    with pytest.raises(ModelError, match="framemill train"):
        load_trained(str(tmp_path / "nowhere"))


def test_a_corpus_too_small_to_hold_out_from_trains_all_the_same(corpus: Corpus, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, val_share=0.0, steps=2)
    summary = train(corpus, str(tmp_path / "run"), config, load_text=lambda name: text_encoder())
    assert (summary["steps"], summary["val_loss"], summary["val_samples"]) == (2, None, 0)
