"""The training loop: captioned latents in, a run folder out.

RUN/config.json, metrics.jsonl, checkpoints/step-…/, samples/. A step is a pure function of (weights, step):
pack, noise, noise level and caption are keyed by what they belong to, so a run that was killed and resumed
gives the same losses as one that was not. Never imports ray, decodes media or changes the corpus.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from pipeline import runlog
from pipeline.corpus.corpus import Corpus
from pipeline.errors import ConfigError, UsageError
from pipeline.progress import Progress, silent
from pipeline.storage import commit_bytes
from training.config import TrainConfig
from training.diffusion import channel_weights, corrupt, draw_noise, draw_times, sample_losses
from training.ema import Ema
from training.layout import tokens_of
from training.loader import Batch, Dataset, Loader, open_dataset
from training.model import NoiseLevels, VideoDiT
from training.optim import Optimizers, learning_rate
from training.run.checkpoint import finished, read_state, restore, save_checkpoint, sweep
from training.run.sample import SampleConfig, VideoGenerator, default_size, load_generator, write_sample
from training.run.shipped import curve_of
from training.run.trained import Lineage, load_trained
from training.run.validate import Validation, held_out_batches, validate
from training.text import TextEncoder, load_text_encoder

LOG = logging.getLogger(__name__)
CONFIG_NAME = "config.json"
CHANGEABLE = {"steps", "decay_share", "val_every", "checkpoint_every", "keep_checkpoints"}  # on resume


def train(
    corpus: Corpus,
    out: str,
    config: TrainConfig,
    *,
    latents: str = "default",
    captions: str | None = None,
    changed_set: bool = False,
    progress: Progress = silent,
    load_text: Callable[[str], TextEncoder] = load_text_encoder,
) -> dict[str, Any]:
    """Trains until `config.steps`; resumes RUN when it has a checkpoint. `corpus` may be the folder of a
    latent set alone; `changed_set` lets a run go on with other samples than it was begun with.

    Raises:
        UsageError: `out` holds something else than a run, or the samples are others.
        FramemillError: a loss, a gradient or a weight is not finite; the run keeps its last good checkpoint.
    """
    began_s, run = time.monotonic(), Path(out)
    _require_run_or_new(run)
    text = load_text(config.text_encoder)
    dataset = open_dataset(corpus, latents, captions, config)
    trainer = Trainer(run, dataset, text, config)
    data = {"corpus": corpus.root, "latents": latents, "captions": captions}
    trainer.resume_or_init(data, changed_set=changed_set)
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
        "seconds": time.monotonic() - began_s,
    }


class Trainer:
    """The state of a run: weights, average, optimiser and one integer, the step."""

    def __init__(self, run: Path, dataset: Dataset, text: TextEncoder, config: TrainConfig) -> None:
        model_config = dataclasses.replace(config.model, channels=dataset.info.channels, text_dim=text.dim)
        self.run, self.config = run, dataclasses.replace(config, model=model_config)
        self.lineage = Lineage(
            latents=dataset.info,
            text_encoder=text.name,
            text_sha256=text.sha256,
            set_sha256=dataset.digest(),
        )
        self.text, self.loader = text, Loader(dataset, text, self.config)
        self.held_out = held_out_batches(dataset, text, self.config)
        self.dtype = torch.bfloat16 if config.compute_dtype == "bfloat16" else torch.float32
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(config.seed)
        self.model = VideoDiT(model_config).to(self.device)
        self.ema = Ema(self.model, config.ema_sigma_rel)
        self.optimizers = Optimizers(self.model, self.config)
        self.channel_weights = channel_weights(dataset.info.std, config.channel_power).to(self.device)
        self.step = self.resumed_at = 0  # the second: the step of the checkpoint that this run went on from
        self.metrics = run / runlog.METRICS_NAME
        self.validation: Validation | None = None

    def resume_or_init(self, data: dict[str, Any], *, changed_set: bool = False) -> None:
        """From the newest checkpoint, on the samples that the run was begun with unless told otherwise; else
        from `init`'s weights; else from scratch."""
        sweep(self.run)
        checkpoints = finished(self.run)
        if checkpoints:
            state = read_state(checkpoints[-1])
            _refuse_other_config(json.loads((self.run / CONFIG_NAME).read_text())["train"], self.config)
            lineage = load_trained(str(self.run)).lineage
            lineage.check(self.lineage.latents, self.text, str(self.run))
            if not changed_set:
                lineage.check_set(self.lineage.set_sha256, str(self.run))
            restore(checkpoints[-1], self.model, self.ema, self.optimizers)
            self.step = self.resumed_at = state["step"]
            LOG.info("%s goes on from step %d", self.run, self.step)
        elif self.config.init:
            parent = load_trained(self.config.init)
            parent.lineage.check(self.lineage.latents, self.text, parent.where)
            _refuse_other_model(parent.model.config, self.config.model, parent.where)
            self.model.load_state_dict(parent.model.state_dict())
            self.ema.model.load_state_dict(parent.model.state_dict())
        resolved = {"data": data, "train": dataclasses.asdict(self.config)}
        commit_bytes(self.run / CONFIG_NAME, (json.dumps(resolved, indent=1) + "\n").encode())
        runlog.cut_after(self.metrics, self.step)  # later steps were lost and will be taken again
        if self.config.init:
            runlog.write(self.run / "init-metrics.jsonl", curve_of(self.config.init))

    def train_step(self) -> float:
        """One pack, and what is due after it, in this order: step, validate, report, checkpoint."""
        record = self._step()
        if self.held_out and self._due(self.config.val_every):
            self.validation = self.validate()
            self._require_finite(self.step, {"val_loss": self.validation.loss}, ())
            record |= {"val_loss": self.validation.loss, "val_by_quantile": self.validation.by_quantile}
        runlog.append(self.metrics, record)
        if self._due(self.config.checkpoint_every):
            self.commit()
        return float(record["loss"])

    def _due(self, every: int) -> bool:
        return self.step == self.config.steps or self.step % every == 0

    def _step(self) -> dict[str, Any]:
        """Corrupt, predict, update, average; the step's line for the metrics. A loss or gradient that is not
        finite stops here, before anything has changed."""
        began_s = time.monotonic()
        batch = self.loader.batch(self.step).to(self.device)
        loss = self._backward(batch)
        norm = self.optimizers.clip()
        self._require_finite(self.step + 1, {"loss": loss, "grad_norm": norm}, batch.sample_ids)
        first_again = 0 < self.resumed_at == self.step
        self.optimizers.step(self.step)
        rate = learning_rate(self.step, self.config)
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
            "seconds": time.monotonic() - began_s,
        }
        if self.device.type == "cuda":
            record["peak_memory_bytes"] = torch.cuda.max_memory_allocated(self.device)
        return record | {"resumed": True} if first_again else record

    def _require_finite(self, step: int, values: dict[str, float], sample_ids: Sequence[str]) -> None:
        last_good = next(reversed(finished(self.run)), None)
        runlog.require_finite(step, values, batch=sample_ids, last_good=last_good)

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

    def commit(self, write: Callable[[dict[str, torch.Tensor], Path], None] = save_file) -> None:
        """Writes a checkpoint that `resume_or_init` and `load_trained` read."""
        state = {
            "model": dataclasses.asdict(self.config.model),
            "flow": dataclasses.asdict(self.config.flow),
            "lineage": dataclasses.asdict(self.lineage),
        }
        keep = self.config.keep_checkpoints
        save_checkpoint(self.run, self.step, self.model, self.ema, self.optimizers, state, keep, write=write)
        LOG.info("%s: checkpoint of step %d", self.run, self.step)


def write_samples(
    trainer: Trainer, count: int = 4, load: Callable[[str], VideoGenerator] = load_generator
) -> list[str]:
    """RUN/samples: a video, its contact sheet and its JSON for the first held-out prompts."""
    prompts = [prompt for batch in trainer.held_out for prompt in batch.prompts if prompt][:count]
    if not prompts:
        return []
    generator = load(str(trainer.run))
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
        write_sample(generator, str(trainer.run), config, path)
        paths.append(str(path))
    return paths


def _require_run_or_new(run: Path) -> None:
    """A run that was begun is gone on with; a folder that holds anything else is not touched."""
    if run.is_file() or (run.is_dir() and not _is_run(run)):
        raise UsageError(
            f"--out {run} is no training run",
            expected="a run folder, or a new or empty one",
            fix="name another folder with --out",
        )


def _is_run(folder: Path) -> bool:
    """True for a folder with a run's config.json, and for an empty one, hidden files aside."""
    if not (folder / CONFIG_NAME).is_file():
        return all(path.name.startswith(".") for path in folder.iterdir())
    try:
        config = json.loads((folder / CONFIG_NAME).read_bytes())
    except ValueError:
        return False
    return isinstance(config, dict) and {"data", "train"} <= config.keys()


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
