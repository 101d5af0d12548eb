"""Latent shards and captions → packs ready for the model.

In: a latent set (training/samples.py), a caption set by name or the captions beside the latents, a text
encoder. Out: `Batch`, a pure function of its position in the endless sequence of packs. Normalises the raw
latents with the mean and std of latents.toml. Never shuffles by chance, drops a sample or decodes a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import INDEX_NAME, LATENTS_FOLDER
from pipeline.corpus.set_captions import KINDS, FileTexts, TableTexts, file_name
from pipeline.corpus.shards import LatentsInfo
from pipeline.errors import UsageError
from training.config import TrainConfig
from training.layout import Layout, layout_of, patchify
from training.packing import PackPlan
from training.rng import SHARES, keyed
from training.samples import Samples, texts_of_records
from training.text import TextEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One pack of samples."""

    epoch: int
    sample_ids: tuple[str, ...]
    clean: Tensor  # float32 [N, P], normalised
    layout: Layout
    prompts: tuple[str | None, ...]  # None = dropped
    texts: list[Tensor | None]  # float16 [L_i, text_dim]

    def to(self, device: torch.device) -> Batch:
        """The same pack with its large tensors on `device`; the model moves the texts."""
        return replace(self, clean=self.clean.to(device), layout=self.layout.to(device))


class Texts(Protocol):
    """What is said of each of N samples."""

    captioned: np.ndarray  # bool [N]

    def texts(self, sample: int) -> dict[str, str]:
        """Kind → text of one sample."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The samples of a latent set that have a caption, split for good into training and held out. Rows are
    numbers of samples, int32, rising."""

    samples: Samples
    texts: Texts
    train_rows: np.ndarray
    val_rows: np.ndarray
    uncaptioned: int  # samples left out for want of any caption

    @property
    def info(self) -> LatentsInfo:
        return self.samples.info

    def digest(self) -> str:
        """Changes with the samples of either side of the split, not with where they lie."""
        return self.samples.digest(np.sort(np.concatenate([self.train_rows, self.val_rows])))


def set_root(corpus: Corpus, latents: str) -> str:
    """The folder of a set of latents: of that name in a corpus, or the folder itself, where it is one."""
    if corpus.storage.exists(INDEX_NAME):
        return corpus.root
    return f"{corpus.root.rstrip('/')}/{LATENTS_FOLDER}/{latents}"


def open_dataset(corpus: Corpus, latents: str, captions: str | None, config: TrainConfig) -> Dataset:
    """Reads the index and what captions there are, and of no sample anything. The split goes by groups
    (sources, their copies, and what encode.split_by joins): none is on both sides. `corpus` may be the folder
    of a latent set alone, with the captions that lie in it."""
    samples = Samples(set_root(corpus, latents))
    texts = _texts(corpus, samples, captions)
    rows = np.flatnonzero(texts.captioned).astype(np.int32)
    if not len(rows):
        raise UsageError(
            f"no sample of latents/{latents} has a caption",
            expected="captions beside its shards or a caption set of the corpus",
            fix="framemill caption CORPUS, then encode CORPUS, or --captions NAME",
        )
    held_out = samples.group[rows] / SHARES < config.val_share
    return Dataset(
        samples=samples,
        texts=texts,
        train_rows=rows[~held_out],
        val_rows=rows[held_out],
        uncaptioned=len(samples) - len(rows),
    )


def _texts(corpus: Corpus, samples: Samples, captions: str | None) -> Texts:
    """The texts of a caption set, or of the one that lies beside the latents."""
    if captions is not None and captions in corpus.sets("captions"):
        rows = corpus.captions(captions, ["clip_id", *KINDS, "status"])
        return TableTexts(samples.ids, rows.filter(pc.equal(rows["status"], "ok")))
    name, storage = file_name(captions or ""), samples.storage
    if storage.exists(name):
        return FileTexts(storage, name, samples.ids)
    if captions is not None:
        raise UsageError(
            f"there are no captions {captions} in {corpus.root}",
            expected=f"a caption set of the corpus, or {name} beside the latents",
            fix="leave out --captions for those of the configured captioner",
        )
    return TableTexts(samples.ids, texts_of_records(storage))


class Loader:
    """Packs by position. `position` counts packs since the start of training, over all ranks."""

    def __init__(self, dataset: Dataset, text: TextEncoder, config: TrainConfig) -> None:
        self.dataset, self.text, self.config = dataset, text, config
        self.rows = dataset.train_rows
        tokens = dataset.samples.tokens[self.rows].tolist()
        self.plan = PackPlan(tokens, config.tokens_per_pack, config.seed)

    def batch(self, position: int) -> Batch:
        """The pack at `position`: captions drawn, latents read and normalised."""
        epoch, pack = self.plan.locate(position)
        rows = self.rows[list(pack)].tolist()
        prompts = [self._draw_caption(row, epoch) for row in rows]
        return make_batch(self.dataset, rows, prompts, self.text, epoch)

    def _draw_caption(self, row: int, epoch: int) -> str | None:
        draw = keyed(self.config.seed, epoch, self.dataset.samples.clip_id(row), "caption")
        if draw.random() < self.config.caption_dropout:
            return None
        return choose_caption(self.dataset.texts.texts(row), float(draw.random()), self.config)


def choose_caption(texts: dict[str, str], share: float, config: TrainConfig) -> str:
    """The text at `share` (0…1) of the configured mix, over the kinds that this clip has."""
    shares = {
        "detailed": config.detailed_share,
        "short": config.short_share,
        "original": config.original_share,
    }
    weights = {kind: shares[kind] for kind in KINDS if kind in texts}
    left = share * sum(weights.values())
    for kind, weight in weights.items():
        left -= weight
        if left < 0:
            return texts[kind]
    return texts[next(iter(weights))]  # every weight is zero: the most detailed there is


def make_batch(
    dataset: Dataset,
    rows: Sequence[int],
    prompts: Sequence[str | None],
    text: TextEncoder,
    epoch: int,
) -> Batch:
    """One pack of `rows`, shortest first: neighbours of equal length share one attention call."""
    samples, info = dataset.samples, dataset.info
    ids = [samples.clip_id(row) for row in rows]
    paired = sorted(zip(rows, ids, prompts, strict=True), key=lambda one: (samples.tokens[one[0]], one[1]))
    rows, prompts = [row for row, _, _ in paired], [prompt for _, _, prompt in paired]
    features = iter(text.encode([prompt for prompt in prompts if prompt is not None]))
    forms = [samples.form(row) for row in rows]
    latents = (torch.from_numpy(info.normalised(latent)) for latent in samples.read_latents(rows))
    return Batch(
        epoch=epoch,
        sample_ids=tuple(clip_id for _, clip_id, _ in paired),
        clean=torch.cat([patchify(latent) for latent in latents]),
        layout=layout_of([form.shape for form in forms], [info.stride_t / form.fps for form in forms]),
        prompts=tuple(prompts),
        texts=[None if prompt is None else next(features) for prompt in prompts],
    )
