"""What opening a large latent set costs: `framemill bench open`.

In: a number of samples, a folder, local or s3://. Out: seconds, CPU seconds and bytes a sample to open a set
of so many synthetic samples with captions, and to plan an epoch. The set is written in the real format, but
for its tars, which nobody opens. `ratio`: what is held of a sample, over 100 bytes.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import INDEX_NAME, LatentSet, SetState, info_text, shard_name
from pipeline.corpus.set_captions import file_name, write_captions
from pipeline.corpus.shards import LatentsInfo
from pipeline.progress import Progress, silent
from pipeline.storage import Storage
from training.config import TrainConfig
from training.loader import Dataset, Loader, open_dataset
from training.text import CachedTextEncoder

SHAPES = ((1, 8, 12), (5, 8, 12), (5, 12, 8), (5, 10, 10), (1, 16, 16))
SHARD_SAMPLES = 12_500
BYTES_ALLOWED = 100
WORDS = (
    "a red blue large small circle square moves slowly left right over the plain grey ground while it turns"
)
INFO = LatentsInfo(
    vae="builtin:",
    vae_sha256="0" * 64,
    channels=16,
    stride_t=4,
    stride_s=8,
    mean=(0.0,) * 16,
    std=(1.0,) * 16,
    fps=8.0,
    max_frames=17,
    area_px=6144,
)


def bench_open(samples: int, out: str, progress: Progress = silent) -> dict[str, Any]:
    """Figures of opening `out`/latents/default, which is written where it does not lie there."""
    corpus = Corpus(out)
    if not corpus.storage.exists(f"latents/default/{INDEX_NAME}"):
        write_synthetic(corpus.storage, samples)
    progress(1, 3, {"step": "opening"})
    wall_s, cpu_s = time.monotonic(), time.process_time()
    dataset = open_dataset(corpus, "default", None, TrainConfig())
    opened = {"wall_s": _since(wall_s, time.monotonic()), "cpu_s": _since(cpu_s, time.process_time())}
    progress(2, 3, {"step": "planning"})
    cpu_s = time.process_time()
    loader = Loader(dataset, CachedTextEncoder("none", 1, "", lambda texts: []), TrainConfig())
    plan_s = _since(cpu_s, time.process_time())
    held = held_bytes(dataset) / len(dataset.samples)
    details = {
        "samples": len(dataset.samples),
        "open": opened,
        "bytes_a_sample": round(held, 1),
        "plan_cpu_s": plan_s,
        "first_pack": len(loader.plan.locate(0)[1]),
        "train": len(dataset.train_rows),
        "held_out": len(dataset.val_rows),
    }
    ratio = round(held / BYTES_ALLOWED, 4)
    return {"name": "open", "ratio": ratio, "against": f"{BYTES_ALLOWED} bytes a sample", "details": details}


def _since(began_s: float, now_s: float) -> float:
    return round(now_s - began_s, 2)


def held_bytes(dataset: Dataset) -> int:
    """What an opened set takes in memory, its texts aside, which are read when they are drawn."""
    rows = (dataset.train_rows, dataset.val_rows, dataset.texts.captioned)
    return dataset.samples.nbytes + sum(array.nbytes for array in rows)


def write_synthetic(storage: Storage, samples: int) -> None:
    """A set of so many samples below latents/default: its index and its captions, and no tar."""
    rng = np.random.default_rng(0)
    sources = np.sort(rng.integers(0, 2**63, samples, dtype=np.uint64))
    ids = [f"{source:016x}-0-2125" for source in sources.tolist()]
    shape = rng.integers(0, len(SHAPES), samples)
    spots = np.arange(samples)
    digests = [f"{value:016x}" for value in rng.integers(0, 2**63, samples).tolist()]
    same = {"kind": "video", "fps": 8.0, "frames": 17, "width_px": 96, "height_px": 64, "status": "ok"}
    shapes = np.array([(16, *one) for one in SHAPES], np.int32)[shape]
    columns: dict[str, Any] = {name: [value] * samples for name, value in same.items()}
    columns |= {
        "clip_id": ids,
        "source_id": [clip_id[:16] for clip_id in ids],
        "key": ids,
        "shard": [shard_name(number) for number in (spots // SHARD_SAMPLES).tolist()],
        "offset": 512 + 20_480 * (spots % SHARD_SAMPLES),
        "nbytes": 128 + 2 * shapes.prod(axis=1),
        "json_offset": 17_408 + 20_480 * (spots % SHARD_SAMPLES),
        "json_nbytes": [1_400] * samples,
        "shape": pa.FixedSizeListArray.from_arrays(pa.array(shapes.ravel()), 4),
        "tokens": shapes[:, 1:].prod(axis=1),
        "sha256": [digest * 4 for digest in digests],
        "latent_key": digests,
        "check": [int(digest, 16) for digest in digests],
        "group": rng.integers(0, 2**64 - 1, samples, dtype=np.uint64),
        "reason": [""] * samples,
    }
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in tables.INDEX]
    state = SetState(rows=pa.table(arrays, schema=tables.INDEX), next_shard=1, info=info_text(INFO))
    LatentSet(storage, "default").commit(state, {})
    words = np.array(WORDS.split())
    texts = [" ".join(words[rng.integers(0, len(words), 40)]) for _ in range(5000)]
    drawn = [texts[n] for n in rng.integers(0, len(texts), samples).tolist()]
    said = {"clip_id": ids, "latent_key": digests, "short": [text[:60] for text in drawn], "detailed": drawn}
    said_arrays = [
        pa.array(said[f.name], f.type) if f.name in said else pa.nulls(samples, f.type)
        for f in tables.SET_CAPTIONS
    ]
    rows = pa.table(said_arrays, schema=tables.SET_CAPTIONS)
    write_captions(storage, f"latents/default/{file_name()}", rows)
