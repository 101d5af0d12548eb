"""A tiny latent set to train on, and a run over it."""

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.shards import LatentsInfo, Sample, info_to_toml, write_shard
from pipeline.storage import Storage
from training.config import ModelConfig, TrainConfig
from training.loader import open_dataset
from training.rng import keyed
from training.run.train import Trainer
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
