"""A set grows by new tars: what is there is never touched, whatever is added, changed or taken down, and
whenever the writer dies."""

import random
import shutil
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.config import Config, EncodeConfig, JudgeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import JUDGED_PATH, Corpus
from pipeline.corpus.garbage import collect
from pipeline.corpus.latent_set import LatentSet, ShardReader
from pipeline.corpus.shards import ChannelSums
from pipeline.corpus.takedown import take_down, traces
from pipeline.engine.runner import Executor, LocalExecutor, Receipt, RunSummary
from pipeline.engine.stage import Stage, Task
from pipeline.progress import silent
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import judge_corpus
from pipeline.storage import Buffer, Storage, Stream
from tokenizer_stage.encode import encode_corpus
from tokenizer_stage.inventory import verify_quick

CONFIG = Config(
    encode=EncodeConfig(clips_per_task=4, shard_mb=0.05), judge=JudgeConfig(preset="keep-all", dedup=False)
)
SET = "latents/default"
IMAGES = 36


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for n in range(IMAGES + 8):
        noise = np.random.default_rng(n).integers(0, 255, (8, 12, 3)).astype(np.uint8)
        high, wide = ((64, 96), (96, 64), (72, 72))[n % 3]
        Image.fromarray(noise).resize((wide, high), Image.Resampling.BILINEAR).save(folder / f"{n:03d}.png")
    return folder


def judged(root: Path, media: Path, numbers: Sequence[int]) -> Corpus:
    """A corpus of the images of these numbers, judged."""
    corpus = Corpus(str(root))
    inputs = discover([str(media / f"{n:03d}.png") for n in numbers]).inputs
    analyze_corpus(corpus, inputs, CONFIG, LocalExecutor(), silent)
    judge_corpus(corpus, CONFIG)
    return corpus


def encode(corpus: Corpus, executor: Executor | None = None, **changes: Any) -> RunSummary:
    with corpus.writing():
        return encode_corpus(corpus, CONFIG, executor or LocalExecutor(), silent, **changes)


@pytest.fixture(scope="module")
def first(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("first") / "corpus"
    encode(judged(root, media, range(IMAGES)))
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(first, tmp_path / "corpus"))


def files(root: Path) -> dict[str, bytes]:
    paths = (p for p in sorted((root / SET).rglob("*")) if p.is_file())
    return {str(p.relative_to(root / SET)): p.read_bytes() for p in paths}


def tars(root: Path) -> dict[str, bytes]:
    return {name: data for name, data in files(root).items() if name.endswith(".tar")}


def latents(root: Path) -> dict[str, bytes]:
    """Clip id → its latent, by the index."""
    reader = ShardReader(f"{root}/{SET}")
    return {row["clip_id"]: reader.read_latent(row).tobytes() for row in reader.rows()}


def assert_sound(root: Path) -> None:
    corpus = Corpus(str(root))
    assert verify_quick(corpus, "default")["errors"] == []
    kept = corpus.kept()["clip_id"].to_pylist()
    assert sorted(latents(root)) == kept  # every latent is read by its offset, and its hash fits
    for row in ShardReader(f"{root}/{SET}").rows():
        assert ShardReader(f"{root}/{SET}").read_json(row)["clip_id"] == row["clip_id"]


def test_tars_are_sized_by_bytes_and_nothing_but_the_set_is_left(first: Path) -> None:
    assert_sound(first)
    sizes = [len(data) for data in tars(first).values()]
    assert len(sizes) > 2
    assert max(sizes) <= 50_000 + 1024
    assert {name for name in files(first) if not name.endswith(".tar")} == {
        "index.parquet",
        "captions.parquet",
        "statistics.json",
        "latents.toml",
    }


@pytest.mark.parametrize("added", [1, 5])
def test_more_clips_make_more_tars_and_touch_none(root: Path, media: Path, added: int) -> None:
    before, held = tars(root), latents(root)
    old = ShardReader(f"{root}/{SET}")
    encode(judged(root, media, range(IMAGES + added)))
    after = tars(root)
    assert before.items() <= after.items()
    assert len(after) == len(before) + -(-added // 4) - (added == 5)
    assert_sound(root)
    assert latents(root).items() >= held.items()
    for row in old.rows():  # whoever had opened the set before reads on
        assert old.read_latent(row).tobytes() == held[row["clip_id"]]


def test_a_taken_down_source_rewrites_its_own_tar(root: Path) -> None:
    before, row = tars(root), ShardReader(f"{root}/{SET}").rows()[7]
    take_down(Corpus(str(root)), [row["source_id"]])
    after = tars(root)
    assert before.items() - after.items() == {(row["shard"], before[row["shard"]])}
    assert row["shard"] not in after
    assert len(after) == len(before)
    assert all(row["source_id"].encode() not in data for data in files(root).values())
    assert traces(Corpus(str(root)), [row["source_id"]], open_all=True).gone
    assert_sound(root)
    summed = LatentSet(Corpus(str(root)).storage, "default").sums()
    assert summed.keys() == after.keys()
    reader = ShardReader(f"{root}/{SET}")
    for shard, sums in summed.items():
        of_shard = [row for row in reader.rows() if row["shard"] == shard]
        assert ChannelSums.of(reader.read_latent(row) for row in of_shard) == sums


def test_a_clip_that_leaves_is_dead_and_compact_copies_the_rest(root: Path) -> None:
    corpus, before, held = Corpus(str(root)), tars(root), latents(root)
    rows = corpus.judged().to_pylist()
    for row in rows[::3]:
        row |= {"status": "rejected", "reasons": ["short"]}
    corpus.storage.write_bytes(JUDGED_PATH, tables.to_parquet(tables.from_rows(rows, tables.JUDGED)))
    assert encode(corpus).tasks == 0
    assert tars(root) == before
    assert_sound(root)
    with corpus.writing():
        collect(corpus)
    assert_sound(root)
    live = {i for row in rows if row["status"] == "kept" for i in [row["clip_id"]]}
    assert latents(root) == {i: latent for i, latent in held.items() if i in live}
    assert sum(map(len, tars(root).values())) < 0.8 * sum(map(len, before.values()))
    rejected = {row["clip_id"] for row in rows} - live
    assert all(i.encode() not in data for data in tars(root).values() for i in rejected)


def test_small_tars_become_one_when_told_to(root: Path, media: Path) -> None:
    for n in range(3):
        encode(judged(root, media, range(IMAGES + n + 1)))
    before, held = tars(root), latents(root)
    corpus = Corpus(str(root))
    with corpus.writing():
        collect(corpus, dry_run=True)
        assert tars(root) == before
        collect(corpus)
        again = tars(root)
        collect(corpus)
    assert tars(root) == again  # and once is enough
    assert len(again) < len(before)
    assert latents(root) == held
    assert_sound(root)
    assert encode(corpus).tasks == 0


def test_every_history_gives_the_same_samples_and_one_history_the_same_bytes(
    first: Path, media: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        corpus = judged(tmp_path / name, media, range(0, IMAGES, 2))
        encode(corpus)
        encode(judged(tmp_path / name, media, range(IMAGES)))
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert latents(tmp_path / "one") == latents(first)
    assert tars(tmp_path / "one") != tars(first)


class Dying(LocalExecutor):
    """Dies after so many tasks, of whichever stage."""

    def __init__(self, tasks: int) -> None:
        super().__init__()
        self.left = tasks

    def execute(self, stage: Stage, tasks: Sequence[Task], root: str) -> Generator[Receipt]:
        for receipt in super().execute(stage, tasks, root):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            yield receipt


@pytest.mark.parametrize("tasks", [0, 1])
def test_a_killed_append_goes_on_to_the_bytes_of_an_undisturbed_one(
    root: Path, media: Path, tmp_path: Path, tasks: int
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    for place in (root, other):
        judged(place, media, range(IMAGES + 8))
    encode(Corpus(str(other)))
    index = (root / SET / "index.parquet").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        encode(Corpus(str(root)), Dying(tasks))
    assert (root / SET / "index.parquet").read_bytes() == index  # the set is what it was
    assert encode(Corpus(str(root))).tasks <= 3 - tasks
    assert files(root) == files(other)


class DyingStorage(Storage):
    """Dies at its n-th change, before or after it is done."""

    def __init__(self, root: str, changes: int, *, after: bool) -> None:
        super().__init__(root)
        self.left, self.after = changes, after

    def _change(self, work: Callable[[], None]) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise KeyboardInterrupt
        work()
        if self.left == 0:
            raise KeyboardInterrupt

    def write_bytes(self, rel: str, data: Buffer | Stream) -> None:
        self._change(partial(super().write_bytes, rel, data))

    def delete_all(self, rels: Iterable[str]) -> None:
        for rel in rels:
            self._change(partial(super().delete_all, [rel]))


@pytest.mark.parametrize("after", [False, True])
def test_a_driver_that_dies_at_each_of_its_changes_ends_at_the_same_bytes(
    root: Path, media: Path, tmp_path: Path, after: bool
) -> None:
    other = Path(shutil.copytree(root, tmp_path / "other"))
    for place in (root, other):
        judged(place, media, range(3, IMAGES + 5))
    encode(Corpus(str(other)))
    deaths = 0
    while True:
        corpus = Corpus(str(root))
        corpus.storage = DyingStorage(str(root), deaths + 1, after=after)
        try:
            encode(corpus)
            break
        except KeyboardInterrupt:
            deaths += 1
        assert latents(root)  # what the index says is there, at any instant
    assert deaths > 2
    assert files(root) == files(other)


def test_what_an_abandoned_append_left_goes(root: Path, media: Path) -> None:
    before = files(root)
    with pytest.raises(KeyboardInterrupt):
        encode(judged(root, media, range(IMAGES + 8)), Dying(1))
    (root / SET / "shard-000999.tar").write_bytes(b"of nobody")
    encode(judged(root, media, range(IMAGES)))
    assert files(root) == before


def test_captions_and_licences_change_without_a_tar(root: Path) -> None:
    corpus, before = Corpus(str(root)), files(root)
    ids = corpus.kept()["clip_id"].to_pylist()
    rows = [{"clip_id": i, "short": f"clip {i}", "captioner": "builtin:", "status": "ok"} for i in ids[1:]]
    corpus.record(CONFIG, "captions/builtin", "f" * 16)
    corpus.storage.write_bytes(
        "captions/builtin/ffffffff-0.parquet", tables.to_parquet(tables.from_rows(rows, tables.CAPTIONS))
    )
    encode(corpus)
    after = files(root)
    assert {name for name in after if after[name] != before.get(name)} == {"captions.parquet"}
    said = pq.read_table(root / SET / "captions.parquet").to_pylist()
    assert [row["clip_id"] for row in said] == ids
    assert [row["short"] for row in said] == [None, *(f"clip {i}" for i in ids[1:])]


def test_a_lost_tar_costs_its_own_clips_alone(root: Path) -> None:
    before, held = tars(root), latents(root)
    lost = random.Random(1).choice(sorted(before))
    (root / SET / lost).unlink()
    encode(Corpus(str(root)))
    assert before.items() - tars(root).items() == {(lost, before[lost])}
    assert lost not in tars(root)
    assert latents(root) == held
