"""Plans made by sets are those of a plain program that looks at one clip after another."""

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from captioner.recaption import caption_tasks
from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, JUDGED_PATH, Corpus
from pipeline.engine.stage import Task
from pipeline.engine.tasks import part_key
from tokenizer_stage.sharding import CLIP_COLUMNS, KeptClips, plan_pieces

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


def plain_pieces(corpus: Corpus, per_task: int) -> list[list[Row]]:
    """One clip after another, in dicts."""
    kept = {row["clip_id"] for row in corpus.judged().to_pylist() if row["status"] == "kept"}
    facts: dict[str, Row] = {}
    for row in corpus.sources().to_pylist():
        if row["source_id"]:
            facts.setdefault(row["source_id"], {n: row[n] for n in ("uri", "clock_jumps")})
    clips = [row for row in corpus.clips().to_pylist() if row["clip_id"] in kept]
    rows = [{n: clip[n] for n in CLIP_COLUMNS} | facts[clip["source_id"]] for clip in clips]
    return [without_nulls(rows[start : start + per_task]) for start in range(0, len(rows), per_task)]


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
    size = draw.choice([1, 3, 64])
    clips = KeptClips.of(corpus)
    tasks = plan_pieces(clips, clips.keys(PRINT), np.arange(len(clips)), per_task=size, latent_bytes=1)
    rows = [task.inputs.drop_columns(["latent_key"]).to_pylist() for task in tasks]
    assert [without_nulls(some) for some in rows] == plain_pieces(corpus, size)
    assert len({*tasks.keys()}) == len(tasks)
    captions = caption_tasks(corpus, "one", "e" * 16, size)
    assert plain(captions) == plain_caption_tasks(corpus, "one", "e" * 16, size)


def test_a_task_list_without_what_is_done(tmp_path: Path) -> None:
    clips = KeptClips.of(random_corpus(tmp_path, random.Random(3)))
    tasks = plan_pieces(clips, clips.keys(PRINT), np.arange(len(clips)), per_task=2, latent_bytes=1)
    first, *rest = tasks.keys()
    left = tasks.without({first, "another"})
    assert (len(left), list(left.keys())) == (len(rest), rest)
    assert plain(left) == plain(list(tasks)[1:]) == plain(tasks[1:])


def test_a_key_follows_what_decides_a_latent_and_nothing_else(tmp_path: Path) -> None:
    clips = KeptClips.of(random_corpus(tmp_path, random.Random(5)))
    before = clips.keys(PRINT).to_pylist()
    assert len(set(before)) == len(before) > 2
    assert not set(before) & set(clips.keys("f" * 16).to_pylist())
    rows = clips.clips.to_pylist()
    changes: Row = {
        "source_id": "x",
        "kind": "image",
        "start_s": 1e-9,
        "end_s": 99.5,
        "fps": None,
        "width": 98,
    }
    changes |= {"height": 62, "crop": [0, 0, 96, 60], "phash": [1], "signals": {"motion": 0.9}}
    for name, value in changes.items():
        changed = [rows[0] | {name: value}, *rows[1:]]
        table = pa.Table.from_pylist(changed, clips.clips.schema)
        keys = KeptClips(table, clips.sources).keys(PRINT).to_pylist()
        assert keys[1:] == before[1:], name
        assert (keys[0] == before[0]) == (name == "signals"), name


def test_keys_do_not_depend_on_how_a_table_lies(tmp_path: Path) -> None:
    clips = KeptClips.of(random_corpus(tmp_path, random.Random(5)))
    cut = pa.concat_tables([clips.clips.slice(0, 1), clips.clips.slice(1)])
    assert KeptClips(cut, clips.sources).keys(PRINT).equals(clips.keys(PRINT))
    alone = KeptClips(clips.clips.slice(1, 2), clips.sources).keys(PRINT)
    assert alone.equals(clips.keys(PRINT).slice(1, 2))
