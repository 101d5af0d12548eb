"""A run on a tiny latent set: it learns, resumes exactly, commits whole checkpoints, refuses foreign ones."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import LatentsInfo, Sample, info_to_toml, write_shard
from pipeline.errors import ConfigError, FormatError, FramemillError, ModelError, UsageError
from pipeline.storage import Storage
from training.config import ModelConfig, TrainConfig
from training.loader import choose_caption, open_dataset
from training.rng import keyed
from training.run.bundle import save_bundle
from training.run.checkpoint import finished
from training.run.sample import VideoGenerator
from training.run.train import Trainer, train, write_samples
from training.run.trained import load_trained
from training.text import CachedTextEncoder

CHANNELS = 4
COLOURS = {"red": 2.0, "blue": -2.0}
CONFIG = TrainConfig(
    model=ModelConfig(width=32, depth=1, heads=2),
    steps=6,
    tokens_per_pack=48,
    compute_dtype="float32",
    lr=2e-3,
    warmup_steps=2,
    val_share=0.25,
    val_every=3,
    checkpoint_every=3,
)


def embed(texts: list[str]) -> list[Tensor]:
    """A vector a word, the same for the same word."""
    return [
        torch.from_numpy(
            np.stack([keyed("word", word).standard_normal(8, dtype=np.float32) for word in text.split()])
        )
        for text in texts
    ]


def text_encoder(sha256: str = "text-1") -> CachedTextEncoder:
    return CachedTextEncoder("builtin:", 8, sha256, embed)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


def write_corpus(root: Path, vae_sha256: str = "vae-1", captioned: bool = True) -> Corpus:
    """Thirty constant latents of ragged shapes, named after their value."""
    storage = Storage(str(root / "latents" / "default"))
    samples = []
    for n in range(30):
        colour = list(COLOURS)[n % 2]
        shape = (CHANNELS, 1 + n % 2, 3 + n % 3, 4)
        record = {
            "clip_id": f"{n:016x}-0-1000",
            "source_id": f"{n:016x}",
            "kind": "video",
            "fps": 8.0,
            "frames": 1 + 4 * (n % 2),
            "width_px": 32,
            "height_px": 24,
            "captions": {"short": f"a {colour} thing", "detailed": None} if captioned else {},
        }
        samples.append(Sample(latent=np.full(shape, 5 * COLOURS[colour] + 1, np.float16), record=record))
    data, rows = write_shard(samples, "shard-000000.tar")
    storage.write_bytes("shard-000000.tar", data)
    storage.write_bytes("index.parquet", tables.to_parquet(tables.from_rows(rows, tables.INDEX)))
    info = LatentsInfo(
        vae="builtin:",
        vae_sha256=vae_sha256,
        channels=CHANNELS,
        stride_t=4,
        stride_s=8,
        mean=(1.0,) * CHANNELS,
        std=(10.0,) * CHANNELS,
        fps=8.0,
        max_frames=5,
        area_px=1024,
    )
    storage.write_bytes("latents.toml", info_to_toml(info))
    return Corpus(str(root))


def trainer(corpus: Corpus, run: Path, config: TrainConfig = CONFIG, sha256: str = "text-1") -> Trainer:
    text = text_encoder(sha256)
    one = Trainer(run, open_dataset(corpus, "default", None, config), text, config)
    one.resume_or_init({"corpus": corpus.root})
    return one


def losses(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


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
        {row["source_id"] for row in rows} for rows in (dataset.train_rows, dataset.val_rows)
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
    with pytest.raises(OSError, match="no space"):
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


# -- what must not be lost ----------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run_before_the_weights(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, steps=20, checkpoint_every=1))
    for _ in range(3):
        run.train_step()
    with torch.no_grad():
        run.model.patch_out.weight.mul_(float("inf"))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    log = (tmp_path / "run" / "metrics.jsonl").read_text()
    named = run.loader.batch(3).sample_ids[0]
    with pytest.raises(FramemillError, match=rf"step 4: loss nan.*{named}.*step-00000003"):
        run.train_step()
    assert run.step == 3
    for name, value in run.model.state_dict().items():
        assert torch.equal(value.nan_to_num(), before[name].nan_to_num())
    assert all(value.isfinite().all() for value in run.ema.model.state_dict().values())
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == log
    assert [path.name for path in finished(run.run)] == ["step-00000002", "step-00000003"]


def test_a_gradient_that_is_not_finite_stops_the_run_before_the_weights(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = trainer(corpus, tmp_path / "run")
    run.model.patch_out.weight.register_hook(lambda gradient: gradient * float("nan"))
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    with pytest.raises(FramemillError, match="step 1: grad_norm nan"):
        run.train_step()
    assert all(torch.equal(value, before[name]) for name, value in run.model.state_dict().items())


def test_weights_that_are_not_finite_make_no_checkpoint_and_delete_none(
    corpus: Corpus, tmp_path: Path
) -> None:
    run = trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, keep_checkpoints=1))
    for _ in range(3):
        run.train_step()
    with torch.no_grad():
        run.ema.model.patch_out.weight[0] = float("nan")
    run.step = 4
    with pytest.raises(ModelError, match=r"ema/patch_out\.weight"):
        run.commit()
    assert [path.name for path in finished(run.run)] == ["step-00000003"]


def test_a_wild_rate_stops_with_valid_metrics_and_a_good_checkpoint(corpus: Corpus, tmp_path: Path) -> None:
    wild = dataclasses.replace(
        CONFIG, lr=1e4, warmup_steps=1, clip_norm=1e9, checkpoint_every=1, steps=50, val_every=50
    )
    with pytest.raises(FramemillError, match="finite"):
        train(corpus, str(tmp_path / "run"), wild, load_text=lambda name: text_encoder())
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert lines
    assert finished(tmp_path / "run")
    for line in lines:
        json.loads(line, parse_constant=lambda token: pytest.fail(f"{token} in the metrics"))
    for folder in finished(tmp_path / "run"):
        state = load_trained(str(folder.parents[1])).model.state_dict()
        assert all(value.isfinite().all() for value in state.values())


def test_a_folder_that_is_no_run_is_not_trained_into(corpus: Corpus, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UsageError, match=str(other)):
        train(corpus, str(other), CONFIG, load_text=lambda name: text_encoder())
    (other / "config.json").write_text('{"hidden_size": 64}')
    with pytest.raises(UsageError, match=str(other)):
        train(corpus, str(other), CONFIG, load_text=lambda name: text_encoder())
    assert (other / "metrics.jsonl").read_text() == '{"step": 1}\n'


def test_a_run_killed_before_its_first_checkpoint_begins_its_log_again(
    corpus: Corpus, tmp_path: Path
) -> None:
    for _ in range(2):
        run = trainer(corpus, tmp_path / "run")
        run.train_step()
        run.train_step()
    assert len(losses(tmp_path / "run")) == 2


def test_a_damaged_checkpoint_is_named(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    (folder,) = finished(run.run)
    for name in ("model", "ema", "optimizer"):
        path = folder / f"{name}.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        with pytest.raises(ModelError, match=f"{folder} is damaged.*delete"):
            trainer(corpus, tmp_path / "run")
        path.write_bytes(data)
    (folder / "state.json").write_text("{")
    with pytest.raises(ModelError, match=f"{folder} is damaged"):
        load_trained(str(tmp_path / "run"))


def test_the_samples_of_a_run_load_the_model_once(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    loaded: list[str] = []

    class Still:
        trained = load_trained(str(tmp_path / "run"))

        def frames(self, prompts: list[str], config: object) -> list[np.ndarray]:
            return [np.zeros((5, 16, 16, 3), np.uint8)]

    def load(name: str) -> VideoGenerator:
        loaded.append(name)
        return Still()  # type: ignore[return-value]

    paths = write_samples(run, load=load)
    assert len(paths) > 1
    assert loaded == [str(tmp_path / "run")]
    assert all(Path(path).with_suffix(end).is_file() for path in paths for end in (".mp4", ".png", ".json"))
