"""Latent shards and captions → packs ready for the model.

In: a latent set (pipeline/corpus/shards.py), a caption set by name or the captions in the shards, a text
encoder. Out: `Batch`, a pure function of its position in the endless sequence of packs. Normalises the raw
latents with the mean and std of latents.toml. Never shuffles by chance, drops a sample or decodes a pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import LatentsInfo, ShardReader
from pipeline.errors import UsageError
from training.config import TrainConfig
from training.layout import Layout, layout_of, patchify, tokens_of
from training.packing import PackPlan
from training.rng import hashed_share, keyed
from training.text import TextEncoder

KINDS = ("detailed", "short", "original")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The samples of a latent set that have a caption, split for good into training and held out."""

    reader: ShardReader
    info: LatentsInfo
    train_rows: list[dict[str, Any]]
    val_rows: list[dict[str, Any]]
    captions: dict[str, dict[str, str]]  # clip id → kind → text
    uncaptioned: int  # samples left out for want of any caption


def open_dataset(corpus: Corpus, latents: str, captions: str | None, config: TrainConfig) -> Dataset:
    """Reads the index and all captions. The split goes by a hash of the source: none is on both sides."""
    reader = ShardReader(f"{corpus.root.rstrip('/')}/latents/{latents}")
    rows = reader.rows()
    if captions is None:
        texts = {row["clip_id"]: _texts(reader.read_json(row).get("captions") or {}) for row in rows}
    else:
        captioned_ok = {
            row["clip_id"]: row for row in corpus.captions(captions).to_pylist() if row["status"] == "ok"
        }
        texts = {row["clip_id"]: _texts(captioned_ok.get(row["clip_id"], {})) for row in rows}
    captioned = [row for row in rows if texts[row["clip_id"]]]
    if not captioned:
        raise UsageError(
            f"no sample of latents/{latents} has a caption",
            expected="captions in its shards or a caption set of the corpus",
            fix="framemill caption CORPUS, then --captions NAME",
        )
    held_out = [hashed_share(row["source_id"]) < config.val_share for row in captioned]
    return Dataset(
        reader=reader,
        info=reader.info,
        train_rows=[row for row, held in zip(captioned, held_out, strict=True) if not held],
        val_rows=[row for row, held in zip(captioned, held_out, strict=True) if held],
        captions={clip_id: text for clip_id, text in texts.items() if text},
        uncaptioned=len(rows) - len(captioned),
    )


def _texts(record: dict[str, Any]) -> dict[str, str]:
    return {kind: record[kind] for kind in KINDS if record.get(kind)}


class Loader:
    """Packs by position. `position` counts packs since the start of training, over all ranks."""

    def __init__(self, dataset: Dataset, text: TextEncoder, config: TrainConfig) -> None:
        self.dataset, self.text, self.config = dataset, text, config
        self.rows = dataset.train_rows
        self.plan = PackPlan(
            [tokens_of(row["shape"]) for row in self.rows], config.tokens_per_pack, config.seed
        )

    def batch(self, position: int) -> Batch:
        """The pack at `position`: captions drawn, latents read and normalised."""
        epoch, pack = self.plan.locate(position)
        rows = [self.rows[index] for index in pack]
        prompts = [self._draw_caption(row["clip_id"], epoch) for row in rows]
        return make_batch(self.dataset, rows, prompts, self.text, epoch)

    def _draw_caption(self, clip_id: str, epoch: int) -> str | None:
        draw = keyed(self.config.seed, epoch, clip_id, "caption")
        if draw.random() < self.config.caption_dropout:
            return None
        return choose_caption(self.dataset.captions[clip_id], float(draw.random()), self.config)


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
    rows: Sequence[dict[str, Any]],
    prompts: Sequence[str | None],
    text: TextEncoder,
    epoch: int,
) -> Batch:
    """One pack of `rows`, shortest first: neighbours of equal length share one attention call."""
    info = dataset.info
    paired = sorted(
        zip(rows, prompts, strict=True), key=lambda one: (tokens_of(one[0]["shape"]), one[0]["clip_id"])
    )
    rows, prompts = [row for row, _ in paired], [prompt for _, prompt in paired]
    features = iter(text.encode([prompt for prompt in prompts if prompt is not None]))
    return Batch(
        epoch=epoch,
        sample_ids=tuple(row["clip_id"] for row in rows),
        clean=torch.cat(
            [patchify(torch.from_numpy(info.normalised(dataset.reader.read_latent(row)))) for row in rows]
        ),
        layout=layout_of([tuple(row["shape"]) for row in rows], [info.stride_t / row["fps"] for row in rows]),
        prompts=tuple(prompts),
        texts=[None if prompt is None else next(features) for prompt in prompts],
    )
