"""A synthetic corpus in the real format, as a run at default settings leaves it: what the control plane of a
large corpus is measured on.

In: a number of sources and an empty folder. Out: below it media/ (files of zero bytes on disk and a plausible
size, a clip of three seconds each), corpus/ with every table and part that `framemill run media --out corpus`
would have left, so that such a run has nothing to do. Tables, keys and fingerprints are made by the project's
own functions, those of later packages in child processes. Every twentieth clip is a copy of another, brighter
and trimmed. What no measured verb opens is empty: the media files and the tars of latents. Pictures are eight
JPEGs of 16 x 16 pixels, the same for all clips. Never: decodes, captions or encodes anything.
"""

import io
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from pipeline.corpus.ids import SOURCE_ID_CHARS
from pipeline.corpus.latent_set import LatentSet, SetState, shard_name
from pipeline.dedup.prints import PRINT_CHROMA, PRINT_LUMA, PRINT_SIZE
from pipeline.engine.stage import Task
from pipeline.engine.tasks import plan_sized_tasks
from pipeline.errors import StorageError, UsageError
from pipeline.settings import fingerprint
from pipeline.sources.discover import discover
from pipeline.stages.analyze import AnalyzeStage
from pipeline.stages.costs import source_costs
from pipeline.stages.judge import judge_corpus
from pipeline.storage import sha256_hex

MEDIA, CORPUS = "media", "corpus"  # below the folder of a bench
FOLDER_FILES = 1000  # media files a folder
CHUNK = 10_000  # sources whose rows are made at once
SAMPLES, COPY_EVERY, TRIMMED = 12, 20, 2  # samples a print; one clip in this many is a copy; samples it lacks
CLIP_S, FRAMES = 3.0, 8
WRITERS = 8  # threads that wait for the disk
SHARD_SAMPLES = 12_500  # of 20 kB each: a tar of the default size
TARS = b"\0" * 1024  # the end of an archive: a tar without members
# Programs for child processes, which know the packages below this one.
WRITE_CAPTIONS = """
import sys
from captioner.recaption import caption_tasks
from pipeline.bench.corpus import write_captions
from pipeline.corpus.corpus import Corpus
corpus = Corpus(sys.argv[1])
place, config = "captions/builtin", corpus.config().caption
write_captions(corpus, caption_tasks(corpus, "builtin", corpus.fingerprints()[place], config.clips_per_task))
"""
WRITE_LATENTS = """
import sys
import numpy as np
from pipeline.bench.corpus import write_latents
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.progress import silent
from tokenizer_stage.encode import encode_corpus
from tokenizer_stage.sharding import KeptClips, plan_pieces
corpus = Corpus(sys.argv[1])
clips = KeptClips.of(corpus)
keys = clips.keys(corpus.fingerprints()["latents/default"])
write_latents(corpus, plan_pieces(clips, keys, np.arange(len(clips)), per_task=64, latent_bytes=15_000))
encode_corpus(corpus, corpus.config(), LocalExecutor(), silent)  # what it says beside the latents
"""


def make_corpus(root: Path, sources: int) -> Corpus:
    """The corpus of that many sources, one clip each.

    Raises:
        UsageError: the folder is not empty.
    """
    if root.exists() and any(root.iterdir()):
        raise UsageError(f"{root} is not empty", expected="a new folder")
    corpus = _begun(root, sources)
    # Nothing is kept yet: these record the fingerprints of their stages.
    python("-m", "framemill", "caption", corpus.root)
    python("-m", "framemill", "encode", corpus.root)
    write_analysis(corpus)
    judge_corpus(corpus, corpus.config())
    python("-c", WRITE_CAPTIONS, corpus.root)
    python("-c", WRITE_LATENTS, corpus.root)
    return corpus


def make_media(folder: Path, count: int) -> None:
    """Files that hold no byte on disk: each is as long as a short video, and all hole."""
    sizes = np.random.default_rng(count).integers(200_000, 4_000_000, count).tolist()
    for number, size_bytes in enumerate(sizes):
        name = folder / f"{number // FOLDER_FILES:04d}" / f"v{number:07d}.mp4"
        if number % FOLDER_FILES == 0:
            name.parent.mkdir(parents=True)
        with open(name, "wb") as file:
            os.truncate(file.fileno(), size_bytes)


def make_analyzed(root: Path, sources: int) -> Corpus:
    """The corpus of that many sources after its analysis."""
    corpus = _begun(root, sources)
    write_analysis(corpus)
    return corpus


def _begun(root: Path, sources: int) -> Corpus:
    """A corpus whose inputs are new media and whose analysis has begun."""
    make_media(root / MEDIA, sources)
    config, corpus = Config(), Corpus(str(root / CORPUS))
    inputs = discover([str(root / MEDIA)]).inputs
    corpus.storage.write_bytes(INPUTS_PATH, tables.to_parquet(inputs))
    corpus.record(config, AnalyzeStage.name, fingerprint(config.analyze, AnalyzeStage.version))
    return corpus


def write_analysis(corpus: Corpus) -> None:
    """What the analysis of its inputs leaves: sources, clips and filmstrips."""
    config, current = corpus.config().analyze, corpus.fingerprints()[AnalyzeStage.name]
    inputs, most = corpus.inputs(), config.sources_per_task
    tasks = plan_sized_tasks(inputs, "source_key", (), current, source_costs(inputs), per_task=most)
    with ThreadPoolExecutor(WRITERS) as pool:
        for number, some in enumerate(_chunks(tasks)):
            for path, data in _analysis_parts(some, np.random.default_rng([0, number])):
                pool.submit(corpus.storage.write_bytes, path, data)
    corpus.fold(AnalyzeStage.name)


def write_captions(corpus: Corpus, tasks: Iterable[Task]) -> None:
    """What a captioner leaves that has captioned these clips."""
    config = corpus.config().caption
    with ThreadPoolExecutor(WRITERS) as pool:
        for number, task in enumerate(tasks):
            rng, ids = np.random.default_rng([1, number]), task.inputs["clip_id"]
            columns = {
                "clip_id": ids,
                "short": _sentences(rng, len(ids), 1),
                "detailed": _sentences(rng, len(ids), 4),
                "captioner": [config.captioner] * len(ids),
                "captioner_sha256": ["0" * 64] * len(ids),
                "confidence": rng.uniform(-1.5, -0.1, len(ids)),
                "alignment": rng.uniform(0.1, 0.4, len(ids)),
                "flags": [[]] * len(ids),
                "status": ["ok"] * len(ids),
            }
            data = tables.to_parquet(filled(columns, tables.CAPTIONS))
            pool.submit(corpus.storage.write_bytes, f"captions/builtin/{task.key}.parquet", data)
    corpus.fold("captions/builtin")


def write_latents(corpus: Corpus, tasks: Iterable[Task]) -> None:
    """The index of a set whose planned pieces were encoded, and tars without members."""
    latents, parts, at = LatentSet(corpus.storage, corpus.config().encode.name), [], 0
    for task in tasks:
        rows, count = task.inputs, task.inputs.num_rows
        spots = at + np.arange(count)
        shards, spots = spots // SHARD_SAMPLES, spots % SHARD_SAMPLES
        same: dict[str, Any] = {"tokens": 480, "fps": 8.0, "frames": 17, "width_px": 96, "height_px": 64}
        same |= {"status": "ok", "reason": ""}
        columns = {
            **{name: rows[name] for name in ("clip_id", "source_id", "kind", "latent_key")},
            **{name: [value] * count for name, value in same.items()},
            "key": rows["clip_id"],
            "shard": [shard_name(number) for number in shards.tolist()],
            "offset": 512 + 20_480 * spots,
            "nbytes": [15_488] * count,
            "json_offset": 17_408 + 20_480 * spots,
            "json_nbytes": [1_400] * count,
            "shape": [[16, 5, 8, 12]] * count,
            "sha256": [sha256_hex(clip_id.encode()) for clip_id in rows["clip_id"].to_pylist()],
            "check": np.arange(at, at + count, dtype=np.uint64),
        }
        parts.append(filled(columns, tables.INDEX))
        at += count
    index = pa.concat_tables(parts)
    with ThreadPoolExecutor(WRITERS) as pool:
        for shard in index["shard"].unique().to_pylist():
            pool.submit(corpus.storage.write_bytes, latents.shard_path(shard), TARS)
    latents.commit(SetState(rows=index, next_shard=at // SHARD_SAMPLES + 1), {})


def python(*words: str) -> None:
    """Runs a child of this interpreter, which must succeed."""
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise StorageError(f"{' '.join(words)[:200]} failed: {done.stderr[-1000:]}")


# -- rows ------------------------------------------------------------------------------------------------


def filled(columns: Mapping[str, Any], schema: pa.Schema) -> pa.Table:
    """A table with null in the columns that are not given."""
    count = len(next(iter(columns.values())))
    arrays = [
        _array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type) for f in schema
    ]
    return pa.table(arrays, schema=schema)


def _array(values: Any, kind: pa.DataType) -> Any:
    return values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, kind)


def _chunks(tasks: list[Task]) -> Iterator[list[Task]]:
    """The tasks in order, in lists of at most about CHUNK sources."""
    some: list[Task] = []
    count = 0
    for task in tasks:
        some.append(task)
        count += task.inputs.num_rows
        if count >= CHUNK:
            yield some
            some, count = [], 0
    if some:
        yield some


def _analysis_parts(tasks: list[Task], rng: np.random.Generator) -> Iterator[tuple[str, Any]]:
    """(path, bytes) of each file of these tasks, a task's done-marker last."""
    inputs = pa.concat_tables([task.inputs for task in tasks])
    uris = inputs["uri"].to_pylist()
    ids = [sha256_hex(os.path.basename(uri).encode())[:SOURCE_ID_CHARS] for uri in uris]
    clip_ids = [f"{i}-0-{round(1000 * CLIP_S)}" for i in ids]
    clips = filled(clip_columns(ids, clip_ids, rng), tables.CLIPS)
    strips = filled(strip_columns(clip_ids, rng), tables.STRIPS)
    sources = filled(_source_columns(inputs, ids), tables.SOURCES)
    start = 0
    for task in tasks:
        count = task.inputs.num_rows
        for folder, rows in (("strips", strips), ("clips", clips), ("sources", sources)):
            yield f"{folder}/{task.key}.parquet", tables.to_parquet(rows.slice(start, count))
        start += count


def _source_columns(inputs: pa.Table, ids: list[str]) -> dict[str, Any]:
    count = len(ids)
    return {
        "source_key": inputs["source_key"],
        "source_id": ids,
        "uri": inputs["uri"],
        "kind": ["video"] * count,
        "status": ["ok"] * count,
        "container": ["mov,mp4,m4a,3gp,3g2,mj2"] * count,
        "codec": ["h264"] * count,
        "width": [1280] * count,
        "height": [720] * count,
        "rotation": [0] * count,
        "fps": [24.0] * count,
        "is_vfr": [False] * count,
        "frames": [72] * count,
        "duration_s": [CLIP_S] * count,
        "has_audio": [False] * count,
        "transfer": ["sdr"] * count,
        "clock_jumps": [0] * count,
        "size_bytes": inputs["size_bytes"],
    }


def clip_columns(keys: list[str], ids: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """Columns of the clips table: what was measured passes the standard rules."""
    count = len(ids)
    sizes = rng.choice([360, 720, 1080], count)
    crops = np.stack([np.zeros(count), np.zeros(count), sizes * 16 // 9, sizes], axis=1).astype(np.int32)
    signals = {f.name: rng.uniform(0.1, 0.5, count).astype(np.float32) for f in tables.SIGNALS}
    signals["black_ratio"] = signals["flicker"] = np.zeros(count, np.float32)
    fields = [pa.array(signals[f.name]).cast(f.type) for f in tables.SIGNALS]
    phashes = rng.integers(0, 2**63, count * FRAMES, np.uint64)
    return {
        "clip_id": ids,
        "source_id": keys,
        "kind": ["video"] * count,
        "start_s": np.zeros(count),
        "end_s": np.full(count, CLIP_S),
        "start_frame": np.zeros(count, np.int32),
        "end_frame": np.full(count, 72, np.int32),
        "fps": np.full(count, 24.0),
        "width": (sizes * 16 // 9).astype(np.int32),
        "height": sizes.astype(np.int32),
        "crop": list(crops),
        "boundary_in": ["start"] * count,
        "boundary_out": ["end"] * count,
        "boundary_confidence": np.ones(count, np.float32),
        "signals": pa.StructArray.from_arrays(fields, fields=list(tables.SIGNALS)),
        "camera": ["static"] * count,
        "phash": pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * FRAMES, pa.array(phashes)),
        "status": ["ok"] * count,
    }


def strip_columns(ids: list[str], rng: np.random.Generator) -> dict[str, Any]:
    """Columns of the strips table."""
    count, jpeg = len(ids), io.BytesIO()
    Image.new("RGB", (16, 16), (90, 120, 60)).save(jpeg, "JPEG")
    offsets = pa.array(np.arange(count + 1) * FRAMES, pa.int32())
    pictures = pa.array([jpeg.getvalue()] * FRAMES, pa.binary()).take(np.arange(count * FRAMES) % FRAMES)
    times_s = np.tile(np.arange(FRAMES, dtype=np.float32) * CLIP_S / FRAMES, count)
    return {
        "clip_id": ids,
        "times_s": pa.ListArray.from_arrays(offsets, pa.array(times_s)),
        "frames": pa.ListArray.from_arrays(offsets, pictures),
        "print": [p.tobytes() for p in _prints(count, rng)],
    }


def _prints(count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Pictures with the 1/f spectrum of photographs, over each a pattern that comes and goes; every
    COPY_EVERY-th a copy of the one before."""
    wave = np.cos(np.pi * np.outer(np.arange(8), np.arange(PRINT_LUMA) + 0.5) / PRINT_LUMA)  # [8, PRINT_LUMA]
    falling = 1 / np.maximum(np.hypot(*np.mgrid[:8, :8]), 1)
    still, pattern = (
        np.einsum("nuv,ui,vj->nij", rng.normal(0, strength, (count, 8, 8)) * falling, wave, wave)
        for strength in (26, 13)
    )
    speed, phase = rng.uniform(0.3, 1.0, (2, count, 1))
    beat = np.sin(speed * np.arange(SAMPLES) + 6.3 * phase)  # [count, SAMPLES]
    luma = still[:, None] + beat[:, :, None, None] * pattern[:, None]
    chroma = np.repeat(rng.normal(128, 12, (count, 1, 2 * PRINT_CHROMA**2)), SAMPLES, axis=1)
    films = np.concatenate([128 + luma.reshape(count, SAMPLES, -1), chroma], axis=2)
    copies = np.arange(COPY_EVERY - 1, count, COPY_EVERY)
    films[copies] = films[copies - 1] + rng.normal(0, 1, (len(copies), SAMPLES, PRINT_SIZE))
    films[copies, :, : PRINT_LUMA**2] *= 1.1
    films = np.rint(films).clip(0, 255).astype(np.uint8)
    return [film[TRIMMED:] if n % COPY_EVERY == COPY_EVERY - 1 else film for n, film in enumerate(films)]


WORDS = (
    "a red ball rolls over the grass",
    "two small boats cross the bay",
    "the camera pans slowly to the left",
    "leaves fall in front of a window",
)


def _sentences(rng: np.random.Generator, count: int, each: int) -> list[str]:
    """Texts of so many sentences, of as many kinds as there are numbers in them."""
    picks, numbers = rng.integers(0, len(WORDS), (count, each)), rng.integers(0, 1000, count)
    return [
        " ".join(f"{WORDS[w].capitalize()}." for w in row) + f" Take {n}."
        for row, n in zip(picks.tolist(), numbers.tolist(), strict=True)
    ]
