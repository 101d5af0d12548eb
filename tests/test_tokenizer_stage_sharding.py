"""Plans made by sets are those of a plain program that looks at one clip after another."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from captioner.recaption import caption_tasks
from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, JUDGED_PATH, Corpus
from pipeline.engine.stage import Task
from pipeline.engine.tasks import part_key
from pipeline.settings import fingerprint
from tokenizer_stage.sharding import (
    CAPTION_COLUMNS,
    CLIP_COLUMNS,
    LATENT_COLUMNS,
    PROVENANCE_COLUMNS,
    planned_shards,
    shard_count,
    shard_name,
)

PRINT = "0123456789abcdef"
Row = dict[str, Any]
Plan = tuple[str, list[Row]]  # of a task: its key and its rows


def put(corpus: Corpus, path: str, rows: list[Row], schema: pa.Schema) -> None:
    corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))


def random_corpus(root: Path, draw: random.Random) -> Corpus:
    """A few parts of sources, some failed, some equal; clips of all fates; captions by two captioners,
    some failed, some of clips that are gone; provenance here and there."""
    corpus = Corpus(str(root))
    corpus.record(Config(), "analyze", PRINT)
    inputs: list[Row] = []
    judged: dict[str, Row] = {}
    contents = [f"{draw.getrandbits(64):016x}" for _ in range(draw.randrange(1, 30))]
    for part in range(draw.randrange(1, 6)):
        sources, clips = [], {}
        for _ in range(draw.randrange(0, 9)):
            number, source_id = len(inputs), draw.choice(contents)
            row: Row = {"source_key": f"{number:016x}", "uri": f"/v/{draw.getrandbits(20)}-{number}.mp4"}
            says = {
                "original": f"own {number}",
                "licence": "CC0",
                "tags": ["a", f"{number}"],
                "attributes": '{"n":1}',
            }
            inputs.append(row | {n: v for n, v in says.items() if draw.random() < 0.4})
            if failed := draw.random() < 0.2:
                source_id = draw.choice([f"{draw.getrandbits(64):016x}", None])
            status = "failed" if failed else "ok"
            sources.append(row | {"source_id": source_id, "status": status, "clock_jumps": number % 3})
            for c in range(0 if failed else int(source_id[0], 16) % 5):
                clips[f"{source_id}-{c * 1000}-{c * 1000 + 900}"] = {
                    "source_id": source_id,
                    "kind": "video",
                    "start_s": c * 1.0,
                    "end_s": c + 0.9 + 1e-9 * int(source_id[:4], 16),
                    "fps": 24.0,
                    "width": 96,
                    "height": 64,
                    "crop": [0, 2, 96, 60],
                    "phash": [int(source_id, 16), 2**63 + c],
                    "signals": {"motion": 0.1 * c, "sharpness": None},
                    "status": "ok",
                }
        rows = [row | {"clip_id": clip_id} for clip_id, row in clips.items()]
        put(corpus, f"sources/{PRINT[:8]}-{part}.parquet", sources, tables.SOURCES)
        put(corpus, f"clips/{PRINT[:8]}-{part}.parquet", rows, tables.CLIPS)
        strips = [{"clip_id": i, "times_s": [0.0], "frames": [b"jpeg"], "print": None} for i in clips]
        put(corpus, f"strips/{PRINT[:8]}-{part}.parquet", strips, tables.STRIPS)
        judged |= {i: {"clip_id": i, "status": draw.choice(["kept", "kept", "rejected"])} for i in clips}
    judged["0" * 16 + "-0-900"] = {"clip_id": "0" * 16 + "-0-900", "status": "kept"}  # its source is gone
    put(corpus, INPUTS_PATH, draw.sample(inputs, len(inputs)), tables.INPUTS)
    put(corpus, JUDGED_PATH, sorted(judged.values(), key=lambda row: row["clip_id"]), tables.JUDGED)
    for name in ("one", "two"):
        corpus.record(Config(), f"captions/{name}", PRINT)
        captions = [
            {
                "clip_id": i,
                "short": f"{name} {i}",
                "captioner": draw.choice(["builtin:", "hf:x"]),
                "status": draw.choice(["ok", "ok", "failed"]),
            }
            for i in judged
            if draw.random() < 0.6
        ]
        put(corpus, f"captions/{name}/{PRINT[:8]}-0.parquet", captions, tables.CAPTIONS)
    return corpus


def plain_shards(corpus: Corpus, captioner: str, samples_per_shard: int, encode_print: str) -> list[Plan]:
    """One clip after another, in dicts."""
    kept = {row["clip_id"] for row in corpus.judged().to_pylist() if row["status"] == "kept"}
    facts: dict[str, Row] = {}
    for row in corpus.sources().to_pylist():
        if row["source_id"]:
            facts.setdefault(
                row["source_id"], {n: row[n] for n in ("uri", "clock_jumps", *PROVENANCE_COLUMNS)}
            )
    captions: dict[str, Row] = {}
    for name in corpus.sets("captions"):
        for row in corpus.captions(name).to_pylist():
            if row["status"] == "ok" and row["captioner"] == captioner:
                captions[row["clip_id"]] = row
    clips = [row for row in corpus.clips().to_pylist() if row["clip_id"] in kept]
    by_shard: dict[str, list[Row]] = {}
    for clip in clips:
        shard = shard_name(clip["clip_id"], shard_count(len(clips), samples_per_shard))
        row = {n: clip[n] for n in CLIP_COLUMNS}
        row["latent_key"] = fingerprint(encode_print, {n: row[n] for n in LATENT_COLUMNS})
        caption = captions.get(clip["clip_id"], {})
        row |= {"shard": shard} | {n: caption.get(n) for n in CAPTION_COLUMNS} | facts[clip["source_id"]]
        by_shard.setdefault(shard, []).append(row)
    tasks = []
    for shard, rows in sorted(by_shard.items()):
        hashes = []
        for row in rows:
            known = {n: row[n] for n in PROVENANCE_COLUMNS if row[n] is not None}
            hashes.append(fingerprint({n: row[n] for n in CLIP_COLUMNS} | known))
        tasks.append((part_key(encode_print, [shard, *hashes]), without_nulls(rows)))
    return tasks


def plain_caption_tasks(corpus: Corpus, name: str, caption_print: str, per_task: int) -> list[Plan]:
    kept = {row["clip_id"] for row in corpus.judged().to_pylist() if row["status"] == "kept"}
    done = {row["clip_id"] for row in corpus.captions(name).to_pylist()}
    original: dict[str, str | None] = {}
    for row in corpus.sources().to_pylist():
        original.setdefault(row["source_id"], row["original"])
    tasks = []
    for part, clips in corpus.clips_by_part():
        rows = [
            {n: row[n] for n in ("clip_id", "source_id", "kind", "start_s", "end_s")}
            | {"original": original[row["source_id"]], "part": part}
            for row in clips.to_pylist()
            if row["clip_id"] in kept - done
        ]
        for start in range(0, len(rows), per_task):
            some = rows[start : start + per_task]
            key = part_key(caption_print, [row["clip_id"] for row in some])
            tasks.append((key, without_nulls(some)))
    return tasks


def without_nulls(rows: list[Row]) -> list[Row]:
    return [{n: row[n] for n in sorted(row) if row[n] is not None} for row in rows]


def plain(tasks: Iterable[Task]) -> list[Plan]:
    return [(task.key, without_nulls(task.inputs.to_pylist())) for task in tasks]


@pytest.mark.parametrize("seed", range(12))
def test_plans_are_those_of_a_plain_program(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    corpus = random_corpus(tmp_path, draw)
    config, size = Config(), draw.choice([1, 3, 64])
    config = Config(encode=type(config.encode)(samples_per_shard=size))
    shards = planned_shards(corpus, config, "f" * 16)
    assert plain(shards.tasks) == plain_shards(corpus, "builtin:", size, "f" * 16)
    assert list(shards.shard_of) == list(shards.tasks.keys())
    assert [t.inputs["shard"][0].as_py() for t in shards.tasks] == list(shards.shard_of.values())
    captions = caption_tasks(corpus, "one", "e" * 16, size)
    assert plain(captions) == plain_caption_tasks(corpus, "one", "e" * 16, size)


def test_a_task_list_without_what_is_done(tmp_path: Path) -> None:
    corpus = random_corpus(tmp_path, random.Random(3))
    tasks = planned_shards(corpus, Config(), "f" * 16).tasks
    first, *rest = tasks.keys()
    left = tasks.without({first, "another"})
    assert (len(left), list(left.keys())) == (len(rest), rest)
    assert plain(left) == plain(list(tasks)[1:]) == plain(tasks[1:])
