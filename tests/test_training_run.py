"""What a run must not lose: numbers that are not finite, damaged folders, kills and wrong folders end it."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from latent_sets import CONFIG, losses, text_encoder, trainer, write_corpus
from safetensors.torch import load_file, save_file

from pipeline.corpus.corpus import Corpus
from pipeline.errors import FramemillError, ModelError, UsageError
from training.run.checkpoint import finished
from training.run.sample import VideoGenerator
from training.run.train import train, write_samples
from training.run.trained import load_trained


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


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


@pytest.mark.parametrize("file", ["ema", "model", "optimizer"])
def test_stored_weights_that_are_not_finite_are_refused(corpus: Corpus, tmp_path: Path, file: str) -> None:
    """As an older version or another program may have left them: file and tensor are named."""
    run = trainer(corpus, tmp_path / "run")
    for _ in range(3):
        run.train_step()
    path = finished(run.run)[-1] / f"{file}.safetensors"
    tensors = load_file(path)
    wrong = sorted(name for name, value in tensors.items() if value.is_floating_point() and value.numel())[0]
    tensors[wrong].view(-1)[0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(ModelError, match=rf"{re.escape(str(path))} holds 1 tensors .*{re.escape(wrong)}"):
        trainer(corpus, tmp_path / "run")
    if file == "ema":
        with pytest.raises(ModelError, match=re.escape(wrong)):
            load_trained(str(run.run))
    assert finished(run.run)


def test_what_a_stopped_save_or_rotation_left_is_swept(corpus: Corpus, tmp_path: Path) -> None:
    run = trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, checkpoint_every=1))
    left = run.run / "checkpoints" / ".step-00000009.tmp"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    run.train_step()
    left.mkdir()
    run.step = 2
    with pytest.raises(KeyboardInterrupt):
        run.commit(write=stop)
    again = trainer(corpus, tmp_path / "run", dataclasses.replace(CONFIG, checkpoint_every=1))
    assert again.step == 1
    assert [path.name for path in left.parent.iterdir()] == ["step-00000001"]


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
