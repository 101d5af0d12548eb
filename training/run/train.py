"""The training loop: captioned latents in, a run folder out.

RUN/config.json, metrics.jsonl, checkpoints/step-…/, samples/. A step is a pure function of (weights, step):
pack, noise, noise level and caption are keyed by what they belong to, so a run that was killed and resumed
gives the same losses as one that was not. Never imports ray, decodes media or changes the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import torch

from pipeline.corpus.corpus import Corpus
from pipeline.errors import ConfigError
from pipeline.progress import Progress, silent
from training.config import TrainConfig
from training.diffusion import channel_weights, corrupt, draw_noise, draw_times, sample_losses
from training.ema import Ema
from training.layout import tokens_of
from training.loader import Batch, Dataset, Loader, open_dataset
from training.model import NoiseLevels, VideoDiT
from training.optim import Optimizers, learning_rate
from training.run.bundle import curve_of
from training.run.checkpoint import finished, read_state, restore, save_checkpoint
from training.run.sample import SampleConfig, default_size, sample_to_file
from training.run.trained import Lineage, load_trained
from training.run.validate import Validation, held_out_batches, validate
from training.text import TextEncoder, load_text_encoder

CHANGEABLE = {"steps", "decay_share", "val_every", "checkpoint_every", "keep_checkpoints"}  # on resume


def train(
    corpus: Corpus,
    out: str,
    config: TrainConfig,
    *,
    latents: str = "default",
    captions: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Trains until `config.steps`; resumes RUN when it has a checkpoint."""
    began, run = time.monotonic(), Path(out)
    text = load_text_encoder(config.text_encoder)
    dataset = open_dataset(corpus, latents, captions, config)
    trainer = Trainer(run, dataset, text, config)
    trainer.resume_or_init({"corpus": corpus.root, "latents": latents, "captions": captions})
    loss = None
    while trainer.step < config.steps:
        loss = trainer.train_step()
        progress(trainer.step, config.steps, {"loss": f"{loss:.4f}"})
    validation = trainer.validation or (trainer.validate() if trainer.held_out else None)
    return {
        "run": str(run),
        "steps": trainer.step,
        "loss": loss,
        "val_loss": validation.loss if validation else None,  # none held out: too few sources
        "train_samples": len(dataset.train_rows),
        "val_samples": validation.samples if validation else 0,
        "uncaptioned": dataset.uncaptioned,
        "samples": write_samples(trainer),
        "seconds": time.monotonic() - began,
    }


class Trainer:
    """The state of a run: weights, average, optimiser and one integer, the step."""

    def __init__(self, run: Path, dataset: Dataset, text: TextEncoder, config: TrainConfig) -> None:
        model_config = dataclasses.replace(config.model, channels=dataset.info.channels, text_dim=text.dim)
        self.run, self.config = run, dataclasses.replace(config, model=model_config)
        self.lineage = Lineage(latents=dataset.info, text_encoder=text.name, text_sha256=text.sha256)
        self.text, self.loader = text, Loader(dataset, text, config)
        self.held_out = held_out_batches(dataset, text, config)
        self.dtype = torch.bfloat16 if config.compute_dtype == "bfloat16" else torch.float32
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        self.model = VideoDiT(model_config).to(self.device)
        self.ema = Ema(self.model, config.ema_sigma_rel)
        self.optimizers = Optimizers(self.model, self.config)
        self.channel_weights = channel_weights(dataset.info.std, config.channel_power).to(self.device)
        self.step, self.resumed_at = 0, 0
        self.validation: Validation | None = None

    def resume_or_init(self, data: dict[str, Any]) -> None:
        """From the newest checkpoint; else from `init`'s weights; else from scratch."""
        checkpoints = finished(self.run)
        if checkpoints:
            state = read_state(checkpoints[-1])
            _refuse_other_config(json.loads((self.run / "config.json").read_text())["train"], self.config)
            load_trained(str(self.run)).lineage.check(self.lineage.latents, self.text, str(self.run))
            restore(checkpoints[-1], self.model, self.ema, self.optimizers)
            self.step = self.resumed_at = state["step"]
            _forget_after(self.run / "metrics.jsonl", self.step)
        elif self.config.init:
            parent = load_trained(self.config.init)
            parent.lineage.check(self.lineage.latents, self.text, parent.where)
            _refuse_other_model(parent.model.config, self.config.model, parent.where)
            self.model.load_state_dict(parent.model.state_dict())
            self.ema.model.load_state_dict(parent.model.state_dict())
        self.run.mkdir(parents=True, exist_ok=True)
        if self.config.init:
            lines = [json.dumps(point) + "\n" for point in curve_of(self.config.init)]
            (self.run / "init-metrics.jsonl").write_text("".join(lines))
        resolved = {"data": data, "train": dataclasses.asdict(self.config)}
        (self.run / "config.json").write_text(json.dumps(resolved, indent=1) + "\n")

    def train_step(self) -> float:
        """One pack: corrupt, predict, update, average; validates and commits when due."""
        began = time.monotonic()
        batch = self.loader.batch(self.step).to(self.device)
        loss = self._backward(batch)
        rate = learning_rate(self.step, self.config)
        norm = self.optimizers.step(self.step)
        self.step += 1
        self.ema.update(self.model, self.step)
        tokens = batch.layout.segments.total
        record: dict[str, Any] = {
            "step": self.step,
            "loss": loss,
            "lr": rate,
            "grad_norm": norm,
            "epoch": batch.epoch,
            "samples": len(batch.sample_ids),
            "tokens": tokens,
            "fill": tokens / self.config.tokens_per_pack,
            "seconds": time.monotonic() - began,
        }
        if self.resumed_at == self.step - 1 > 0:
            record["resumed"] = True
        last = self.step == self.config.steps
        if self.held_out and (last or self.step % self.config.val_every == 0):
            self.validation = self.validate()
            record |= {"val_loss": self.validation.loss, "val_by_quantile": self.validation.by_quantile}
        with open(self.run / "metrics.jsonl", "a") as file:
            file.write(json.dumps(record) + "\n")
        if last or self.step % self.config.checkpoint_every == 0:
            self.commit()
        return loss

    def _backward(self, batch: Batch) -> float:
        layout, config = batch.layout, self.config
        tokens = [tokens_of(shape) for shape in layout.shapes]
        times = draw_times(batch.sample_ids, tokens, config.seed, batch.epoch, config.flow)
        times = times.to(self.device)
        noise = draw_noise(batch.sample_ids, layout.shapes, config.seed, batch.epoch).to(self.device)
        noisy = corrupt(batch.clean, noise, times[layout.sample, None])
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            predicted = self.model(noisy, NoiseLevels.of(times, layout), layout, batch.texts)
        target = noise - batch.clean
        loss = sample_losses(predicted, target, layout, weights=self.channel_weights).mean()
        torch.autograd.backward(loss)
        return float(loss.detach())

    def validate(self) -> Validation:
        """The held-out loss of the averaged weights."""
        return validate(self.ema.model, self.held_out, self.config.flow, self.dtype)

    def commit(self) -> None:
        """Writes a checkpoint that `resume_or_init` and `load_trained` read."""
        state = {
            "model": dataclasses.asdict(self.config.model),
            "flow": dataclasses.asdict(self.config.flow),
            "lineage": dataclasses.asdict(self.lineage),
        }
        keep = self.config.keep_checkpoints
        save_checkpoint(self.run, self.step, self.model, self.ema, self.optimizers, state, keep)


def write_samples(trainer: Trainer, count: int = 4) -> list[str]:
    """RUN/samples: a video, its contact sheet and its JSON for the first held-out prompts."""
    prompts = [prompt for batch in trainer.held_out for prompt in batch.prompts if prompt][:count]
    latents = trainer.lineage.latents
    width_px, height_px = default_size(latents)
    paths = []
    for seed, prompt in enumerate(prompts):
        path = trainer.run / "samples" / f"step-{trainer.step:08d}-{seed}.mp4"
        config = SampleConfig(
            prompt=prompt,
            width_px=width_px,
            height_px=height_px,
            frames=latents.max_frames,
            fps=latents.fps,
            seed=seed,
        )
        sample_to_file(str(trainer.run), config, str(path))
        paths.append(str(path))
    return paths


def _refuse_other_config(saved: dict[str, Any], config: TrainConfig) -> None:
    now = json.loads(json.dumps(dataclasses.asdict(config)))
    changed = sorted(key for key in now if key not in CHANGEABLE and now[key] != saved.get(key))
    if changed:
        raise ConfigError(
            f"the run was started with another {changed[0]}: {saved.get(changed[0])}, not {now[changed[0]]}",
            expected=f"only {', '.join(sorted(CHANGEABLE))} to change when a run is resumed",
            fix="name a new folder with --out, and perhaps this run with --init",
        )


def _refuse_other_model(parent: object, mine: object, where: str) -> None:
    if parent != mine:
        raise ConfigError(
            f"the model is {mine}", expected=f"{parent}, as in {where}", fix="drop --set model.…"
        )


def _forget_after(metrics: Path, step: int) -> None:
    """Drops the lines of steps that a kill lost after the last checkpoint; they will be taken again."""
    if metrics.exists():
        lines = metrics.read_text().splitlines()
        kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
        metrics.write_text("".join(line + "\n" for line in kept))
