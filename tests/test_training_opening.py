"""A set is opened by its index: no sample is read, little is held, and it says which samples it is of."""

import dataclasses
import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from latent_sets import CONFIG, text_encoder, trainer, write_corpus
from s3_server import BUCKET, FaultyProxy, point_at

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import INDEX_NAME, LatentSet, SetState
from pipeline.corpus.set_captions import FileTexts, TableTexts, write_captions
from pipeline.errors import UsageError
from pipeline.storage import Storage
from training.loader import Loader, open_dataset
from training.run.opening import bench_open, held_bytes, write_synthetic
from training.run.train import Trainer
from training.samples import texts_of_records

DELAY_S = 0.03


def as_new(corpus: Corpus) -> Corpus:
    """The set of `write_corpus`, which is as older versions left it, as it is today."""
    latents = LatentSet(corpus.storage, "default")
    rows = latents.state().rows
    said = texts_of_records(Storage(f"{corpus.root}/{latents.folder}"))
    columns = {name: said[name] for name in said.column_names if name in tables.SET_CAPTIONS.names}
    arrays = [
        columns[f.name] if f.name in columns else pa.nulls(len(said), f.type) for f in tables.SET_CAPTIONS
    ]
    captions = pa.table(arrays, schema=tables.SET_CAPTIONS)
    write_captions(corpus.storage, f"{latents.folder}/captions.parquet", captions)
    info = (Path(corpus.root) / latents.folder / "latents.toml").read_text()
    latents.commit(SetState(rows=rows, next_shard=1, info=info), {})
    return corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_corpus(tmp_path / "corpus")


def batches(loader: Loader) -> list[tuple[object, ...]]:
    every = [loader.batch(position) for position in range(6)]
    return [(one.sample_ids, one.prompts, one.clean.tolist()) for one in every]


def test_a_set_of_an_older_version_gives_the_same_packs(corpus: Corpus, tmp_path: Path) -> None:
    new = as_new(Corpus(str(shutil.copytree(corpus.root, tmp_path / "new"))))
    old_index = pq.read_table(Path(corpus.root) / "latents/default" / INDEX_NAME)
    stripped = old_index.drop_columns(["check", "group", "latent_key"])
    corpus.storage.write_bytes(f"latents/default/{INDEX_NAME}", tables.to_parquet(stripped))
    loaders = [
        Loader(open_dataset(one, "default", None, CONFIG), text_encoder(), CONFIG) for one in (corpus, new)
    ]
    assert batches(loaders[0]) == batches(loaders[1])
    assert loaders[0].dataset.digest() == loaders[1].dataset.digest()


def test_the_folder_of_a_set_alone_is_trained_on(corpus: Corpus, tmp_path: Path) -> None:
    whole = open_dataset(as_new(corpus), "default", None, CONFIG)
    alone = Corpus(str(shutil.copytree(f"{corpus.root}/latents/default", tmp_path / "alone")))
    dataset = open_dataset(alone, "default", None, CONFIG)
    assert dataset.digest() == whole.digest()
    one = Trainer(tmp_path / "run", dataset, text_encoder(), CONFIG)
    one.resume_or_init({})
    assert np.isfinite(one.train_step())
    with pytest.raises(UsageError, match="captions other"):
        open_dataset(alone, "default", "other", CONFIG)


def test_a_run_refuses_another_set_unless_told(corpus: Corpus, tmp_path: Path) -> None:
    as_new(corpus)
    one = trainer(corpus, tmp_path / "run")
    one.train_step()
    one.commit()
    assert trainer(corpus, tmp_path / "run").step == 1
    latents = LatentSet(corpus.storage, "default")
    state = latents.state()
    moved = state.rows.set_column(
        state.rows.schema.get_field_index("status"), "status", pa.array([*["ok"] * 29, "dead"])
    )
    latents.commit(dataclasses.replace(state, rows=moved), {})
    with pytest.raises(UsageError, match="--changed-set"):
        trainer(corpus, tmp_path / "run")
    other = Trainer(tmp_path / "run", open_dataset(corpus, "default", None, CONFIG), text_encoder(), CONFIG)
    other.resume_or_init({}, changed_set=True)
    assert other.step == 1


def test_where_samples_lie_is_not_what_they_are(corpus: Corpus) -> None:
    before = open_dataset(as_new(corpus), "default", None, CONFIG).digest()
    latents = LatentSet(corpus.storage, "default")
    state = latents.state()
    at = state.rows.schema.get_field_index("offset")
    further = state.rows.set_column(at, "offset", pa.array(range(30), pa.int64()))
    latents.commit(dataclasses.replace(state, rows=further), {})
    assert open_dataset(corpus, "default", None, CONFIG).digest() == before


def said(count: int) -> pa.Table:
    """Rows of which every third has no text, and every second an original."""
    ids = [f"{n:05d}" for n in range(count)]
    columns = {
        "clip_id": ids,
        "short": [None if n % 3 == 0 else f"short {n}" for n in range(count)],
        "original": [f"own {n}" if n % 6 == 1 else None for n in range(count)],
        "tags": [["a", f"{n}"] for n in range(count)],
    }
    arrays = [
        pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(count, f.type)
        for f in tables.SET_CAPTIONS
    ]
    return pa.table(arrays, schema=tables.SET_CAPTIONS)


@pytest.mark.parametrize("count", [0, 1, 127, 128, 700])
def test_texts_out_of_a_file_are_those_of_the_table(tmp_path: Path, count: int) -> None:
    storage, rows = Storage(str(tmp_path)), said(count)
    write_captions(storage, "captions.parquet", rows)
    some = pa.array([*rows["clip_id"].to_pylist()[1::2], "99999"], pa.string())
    for ids in (rows["clip_id"].combine_chunks(), some):  # the samples of the file, and others
        in_file, in_table = FileTexts(storage, "captions.parquet", ids), TableTexts(ids, rows)
        assert in_file.captioned.tolist() == in_table.captioned.tolist()
        for sample in range(len(ids)):
            assert in_file.texts(sample) == in_table.texts(sample)
            assert bool(in_file.texts(sample)) == in_file.captioned[sample]
    before = (tmp_path / "captions.parquet").stat().st_mtime_ns
    write_captions(storage, "captions.parquet", said(count))
    assert (tmp_path / "captions.parquet").stat().st_mtime_ns == before  # the same is not written again


def test_a_hundred_thousand_samples_take_little_room(tmp_path: Path) -> None:
    write_synthetic(Storage(str(tmp_path)), 100_000)
    dataset = open_dataset(Corpus(str(tmp_path)), "default", None, CONFIG)
    assert len(dataset.samples) == 100_000  # and there is no tar
    assert held_bytes(dataset) < 100 * 100_000
    assert 0.24 < len(dataset.val_rows) / 100_000 < 0.26
    assert dataset.texts.texts(77_777)["detailed"].startswith(dataset.texts.texts(77_777)["short"])


class SlowProxy(FaultyProxy):
    """Passes every request on after a while."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port, 0.0, ("none",))

    def next_fault(self, path: str) -> str:
        time.sleep(DELAY_S)
        return super().next_fault(path)


@pytest.mark.slow
@pytest.mark.endurance
def test_a_million_samples_on_a_slow_store_are_opened_by_a_few_requests(
    server_port: int, s3: pytest.MonkeyPatch
) -> None:
    write_synthetic(Storage(f"{BUCKET}/million"), 1_000_000)
    with SlowProxy(server_port) as proxy:
        point_at(s3, proxy.server_port)
        details = bench_open(1_000_000, f"{BUCKET}/million")["details"]
        requests = sum(proxy.seen.values())
        point_at(s3, server_port)
    assert details["bytes_a_sample"] < 100
    assert requests < 40  # a second of them
    assert details["open"]["cpu_s"] < 5, (
        details
    )  # the rest is the store's, and of whoever shares this machine
