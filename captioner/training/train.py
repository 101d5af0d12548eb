"""Trains the built-in captioner on the toy world.

In: a `TrainConfig`; filmstrips of a rendered toy-world folder, or of shots drawn from the same grammar and
rendered in memory as they are needed. Out: a folder that `load_model` reads (the averaged weights, saved at
every evaluation, so that the latest can always be used) and metrics.jsonl. Never touches real footage, trains
into a folder that holds weights, or keeps a step whose loss or gradient is not finite.

It begins with single pictures and their tags alone (colours, shapes, places), which costs a sixth of a full
step: a tower that cannot tell a star from a ring learns that slowly from captions, and until it can,
everything said about an object is wrong. After that a step takes one batch of clips with one frame count.
Each clip is seen with three texts: its short and its detailed caption (a quarter of the time under the
neutral `<any>` style, then sometimes worded as users type: lower case, no full stop) and its bare facts under
`<tags>`. The captions' wording is mostly chance; the tags have none, so nearly all of their gradient is about
what is seen. Everything drawn depends on (seed, step).
"""

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from captioner.filmstrip import STRIP_FRAMES, Filmstrip, strip_pixels
from captioner.generate import caption_video
from captioner.model import CaptionerConfig, TagHead, VideoCoCa, load_model, losses, save_model
from captioner.tokenizer import PAD_ID, train_tokenizer
from captioner.training.evaluate import evaluate_examples
from captioner.training.examples import Example, folder_examples, toy_example
from captioner.training.tags import TAGS, tags_of, true_tags
from pipeline import runlog
from pipeline.bundle import require_free
from pipeline.errors import ConfigError
from pipeline.progress import Progress
from pipeline.schedule import warm_hold_fall
from pipeline.toyworld.scene import sample_shot
from pipeline.toyworld.wording import caption_shot

ENDLESS = "endless:"  # instead of a folder: shots rendered in memory, none seen twice
HELD_OUT_SEED = 900_001  # of the endless set; no training seed reaches it
ANY_STYLE_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """One training run. The learning rate warms up, holds, and falls to zero over the last `decay_share`."""

    init: str = ""  # a folder to go on from; empty: from scratch
    freeze_text: bool = False  # keep the text tower as it is: other models were trained on its features
    steps: int = 3000
    tag_steps: int = 600  # the first of them: images only, tags only
    frame_counts: tuple[int, ...] = (4, 4, 4, 8, 1)  # drawn per step; 1 trains on images
    frames_per_batch: int = 64
    max_batch: int = 40
    learning_rate: float = 8e-4
    warmup_steps: int = 150
    decay_share: float = 0.4
    beta1: float = 0.9  # AdamW's
    beta2: float = 0.98
    weight_decay: float = 0.05
    clip_norm: float = 1.0
    caption_weight: float = 2.0  # CoCa's loss weights: captioning 2, contrastive 1
    tag_weight: float = 0.3
    average: float = 0.998  # of the exponential moving average that is saved
    eval_every: int = 250
    eval_examples: int = 72
    vocab_size: int = 1024
    tokenizer_examples: int = 4000  # shots whose captions the tokenizer learns its words from
    seed: int = 0
    bfloat16: bool = True

    def __post_init__(self) -> None:
        if self.seed == HELD_OUT_SEED:
            raise ConfigError(f"seed {self.seed} is the held-out set's", fix="choose another seed")
        if not all(1 <= count <= STRIP_FRAMES for count in self.frame_counts) or self.steps < 1:
            raise ConfigError(
                f"frame_counts {self.frame_counts}, steps {self.steps}",
                expected=f"counts from 1 to {STRIP_FRAMES}, at least one step",
            )

    def count_at(self, step: int) -> int:
        """Frames of each clip in the batch of a step counted from 1."""
        if step <= self.tag_steps:
            return 1
        return int(np.random.default_rng([self.seed, 3, step]).choice(self.frame_counts))

    def batch_of(self, count: int) -> int:
        """Clips in a batch of clips with `count` frames."""
        return max(1, min(self.frames_per_batch // count, self.max_batch))


def train(
    toyworld: str | Path,
    out: str | Path,
    config: TrainConfig,
    progress: Progress | None = None,
    *,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Trains on a rendered folder or `endless:`, saves to `out`, returns the last evaluation's figures.
    `sizes` replace those of `CaptionerConfig` where the training starts from scratch.

    Raises:
        UsageError: `out` holds weights or a log.
        FramemillError: a loss, a gradient or a weight is not finite; `out` keeps what was saved before.
    """
    out = Path(out)
    require_free(out)
    torch.manual_seed(config.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    endless = str(toyworld) == ENDLESS
    examples = _endless_examples(config) if endless else _folder_examples(config, Path(toyworld))
    start = load_model(Path(config.init)).requires_grad_(True) if config.init else None
    learner = _learner(start or _fresh_model(config, sizes or {}), config, device)
    out.mkdir(parents=True, exist_ok=True)
    held_out = _held_out(config)
    figures: dict[str, Any] = {}
    values: dict[str, list[float]] = {}
    last_good: Path | None = None
    start_s = time.monotonic()
    for step in range(1, config.steps + 1):
        shots = next(examples)
        batch = _to_batch(shots, learner.model, np.random.default_rng([config.seed, 1, step]))
        parts, norm = learner.backward(batch, step)
        names = [example.strip.clip_id for example in shots]
        runlog.require_finite(step, parts | {"grad_norm": norm}, batch=names, last_good=last_good)
        learner.update(step)
        for name, value in parts.items():
            values.setdefault(name, []).append(value)
        if step % config.eval_every == 0 or step == config.steps:
            figures = evaluate_examples(partial(_words, learner.averaged), held_out)
            row = {
                "step": step,
                "seconds": round(time.monotonic() - start_s, 1),
                **{name: round(sum(of_part) / len(of_part), 4) for name, of_part in values.items()},
                **figures,
            }
            values = {}
            runlog.append(out / runlog.METRICS_NAME, row)
            record = {"toyworld": ENDLESS if endless else "folder", **asdict(config), **row}
            save_model(learner.averaged, out, record)
            last_good = out
        if progress is not None:
            progress(step, config.steps, {"fact_f1": figures.get("fact_f1", 0.0)})
    return figures


def _words(model: VideoCoCa, strips: Sequence[Filmstrip]) -> list[tuple[str, str]]:
    sizes = model.config
    captions = [caption_video(model, *strip_pixels(s, sizes.image_px, sizes.max_frames)) for s in strips]
    return [(caption.short.text, caption.detailed.text) for caption in captions]


# -- one step ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    frames: torch.Tensor  # uint8 [B, T, 3, S, S]
    times_s: torch.Tensor  # [B, T]
    texts: tuple[torch.Tensor, ...]  # ids [B, L]: short, detailed, tags
    truth: torch.Tensor  # float32 [B, len(TAGS)]: 1 where the tag is true

    def to(self, device: torch.device) -> "_Batch":
        return _Batch(
            frames=self.frames.to(device),
            times_s=self.times_s.to(device),
            texts=tuple(ids.to(device) for ids in self.texts),
            truth=self.truth.to(device),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learner:
    """What a step changes: the model, its average, the tag head, the optimiser."""

    model: VideoCoCa
    averaged: VideoCoCa
    head: TagHead
    optimizer: torch.optim.Optimizer
    config: TrainConfig
    device: torch.device

    def backward(self, batch: _Batch, step: int) -> tuple[dict[str, float], float]:
        """Sets the clipped gradients: the loss and its parts, and the gradient's norm before clipping."""
        config, on_cpu = self.config, self.device.type == "cpu"
        batch = batch.to(self.device)
        # On a CPU, flash attention's backward makes the whole step half as long again on rows this short.
        with sdpa_kernel(SDPBackend.MATH) if on_cpu else nullcontext():
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bfloat16):
                if step <= config.tag_steps:
                    places = self.model.encode_places(batch.frames, batch.times_s)
                    parts = {"tagging": self.head.loss(places, batch.truth)}
                else:
                    tags = (self.head, batch.truth)
                    parts = losses(self.model, batch.frames, batch.times_s, batch.texts, tags)
            weights = {
                "contrastive": 1.0,
                "captioning": config.caption_weight,
                "tagging": config.tag_weight,
            }
            loss = torch.stack([weights[name] * value for name, value in parts.items()]).sum()
            self.optimizer.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
        figures = {"loss": loss.item(), **{name: value.item() for name, value in parts.items()}}
        return figures, float(norm)

    def update(self, step: int) -> None:
        """Takes the step (counted from 1) that the gradients say, and moves the average."""
        config = self.config
        share = warm_hold_fall(
            step - 1, config.steps, warmup_steps=config.warmup_steps, decay_share=config.decay_share
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * share
        self.optimizer.step()
        _move_average(self.averaged, self.model, min(config.average, (1 + step) / (10 + step)))


def _learner(model: VideoCoCa, config: TrainConfig, device: torch.device) -> _Learner:
    model = model.to(device).train()
    model.text.requires_grad_(not config.freeze_text)
    averaged = deepcopy(model).eval().requires_grad_(False)
    head = TagHead(model.config.width, len(TAGS)).to(device)
    groups = [*_groups(model, config.weight_decay), {"params": list(head.parameters()), "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(config.beta1, config.beta2))
    return _Learner(
        model=model, averaged=averaged, head=head, optimizer=optimizer, config=config, device=device
    )


def _groups(model: VideoCoCa, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices decay; gains, biases and positions do not."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices = [p for name, p in trained if p.ndim > 1 and "embedding" not in name]
    others = [p for name, p in trained if p.ndim <= 1 or "embedding" in name]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


@torch.no_grad()
def _move_average(averaged: VideoCoCa, model: VideoCoCa, keep: float) -> None:
    """Frozen weights stay out of it: averaging would turn a -0.0 into 0.0, and with it their hash."""
    pairs = zip(averaged.parameters(), model.parameters(), strict=True)
    kept, moving = zip(*((mean, new) for mean, new in pairs if new.requires_grad), strict=True)
    torch._foreach_lerp_(list(kept), list(moving), 1.0 - keep)


# -- data --------------------------------------------------------------------------------------------


def _fresh_model(config: TrainConfig, sizes: Mapping[str, int]) -> VideoCoCa:
    texts: list[str] = []
    for index in range(config.tokenizer_examples):
        rng = np.random.default_rng([config.seed, 2, index])
        shot = sample_shot(rng, is_image=index % 6 == 0, with_text=index % 4 == 0)
        caption = caption_shot(shot, rng)
        texts += [caption.short, caption.detailed, _as_typed(caption.short), tags_of(shot.facts)]
    context = CaptionerConfig(vocab_size=0, **sizes).context_length
    tokenizer = train_tokenizer(texts, config.vocab_size, context)
    return VideoCoCa(CaptionerConfig(vocab_size=tokenizer.vocab_size, **sizes), tokenizer)


def _to_batch(examples: Sequence[Example], model: VideoCoCa, rng: np.random.Generator) -> _Batch:
    tokenizer = model.tokenizer
    videos = [strip_pixels(e.strip, model.config.image_px, model.config.max_frames) for e in examples]
    rows: dict[str, list[torch.Tensor]] = {"short": [], "detailed": [], "tags": []}
    for example in examples:
        for style, text in (("short", example.caption.short), ("detailed", example.caption.detailed)):
            neutral = rng.random() < ANY_STYLE_SHARE
            if neutral and rng.random() < 0.5:
                text = _as_typed(text)
            rows[style].append(torch.tensor(tokenizer.encode(text, "any" if neutral else style)))
        rows["tags"].append(torch.tensor(tokenizer.encode(tags_of(example.facts), "tags")))
    return _Batch(
        frames=torch.stack([frames for frames, _ in videos]),
        times_s=torch.stack([times_s for _, times_s in videos]),
        truth=torch.tensor(
            [[float(tag in true) for tag in TAGS] for true in (true_tags(e.facts) for e in examples)]
        ),
        texts=tuple(
            torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=PAD_ID)  # [B, L]
            for ids in rows.values()
        ),
    )


def _as_typed(text: str) -> str:
    """A caption as a user would type it: "a red star spins" for "A red star spins." """
    return text.lower().removesuffix(".")


def _endless_examples(config: TrainConfig) -> Iterator[list[Example]]:
    """Batches of fresh shots, each seen once."""
    for step in itertools.count(1):
        count = config.count_at(step)
        first = step * config.max_batch
        yield [toy_example(config.seed, first + i, count) for i in range(config.batch_of(count))]


def _folder_examples(config: TrainConfig, toyworld: Path) -> Iterator[list[Example]]:
    """Batches drawn from a rendered toy world, read once and kept as JPEG strips."""
    strips: dict[str, list[Example]] = {"video": [], "image": []}
    for example in folder_examples(toyworld):
        strips[example.strip.kind].append(example)
    for step in itertools.count(1):
        rng, count = np.random.default_rng([config.seed, 4, step]), config.count_at(step)
        pool = strips["image" if count == 1 else "video"] or strips["video"] or strips["image"]
        chosen = [pool[int(i)] for i in rng.integers(len(pool), size=config.batch_of(count))]
        yield [replace(e, strip=_thinned(e.strip, count)) for e in chosen]


def _thinned(strip: Filmstrip, count: int) -> Filmstrip:
    """The strip with at most `count` frames, evenly chosen."""
    chosen = np.linspace(0, len(strip.frames) - 1, min(count, len(strip.frames))).round().astype(int)
    return replace(
        strip,
        times_s=tuple(strip.times_s[i] for i in chosen),
        frames=tuple(strip.frames[i] for i in chosen),
    )


def _held_out(config: TrainConfig) -> list[Example]:
    """Shots of the endless set that no training seed draws; one in six an image."""
    return [
        toy_example(HELD_OUT_SEED, index, 1 if index % 6 == 0 else STRIP_FRAMES)
        for index in range(config.eval_examples)
    ]
