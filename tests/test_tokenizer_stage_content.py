"""A latent is of the file that was analyzed, whatever happens to the file between the verbs."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from framemill import main
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import LatentSet, SetState, ShardReader
from pipeline.corpus.shards import Sample, write_shard
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.content import OTHER_CONTENT, content_id
from pipeline.uris import NO_FILE

SET = "latents/default"
QUIET = ["--workers", "1", "--max-failed", "1.0"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """`raw/v.mp4` has content `a`, `raw/other.mp4` content `other`; `b` lies elsewhere. Of `a` and `b` size
    and times are equal. `corpus` has both analyzed and judged."""

    raw: Path
    masters: Path
    corpus: Path

    def id_of(self, name: str) -> str:
        return content_id(self.masters / f"{name}.mp4")

    def put(self, master: str, name: str) -> None:
        shutil.copy2(self.masters / f"{master}.mp4", self.raw / name)


def video(path: Path, seed: int) -> None:
    """A second of a picture that drifts."""
    picture = np.kron(np.random.default_rng(seed).integers(0, 255, (8, 12, 3)), np.ones((8, 8, 1)))
    frames = np.stack([np.roll(picture, t, axis=1) for t in range(20)]).astype(np.uint8)
    with Sandbox() as box:
        box.write_video(path, frames, 20.0)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("content")
    place = Place(raw=folder / "raw", masters=folder / "masters", corpus=folder / "corpus")
    place.raw.mkdir()
    place.masters.mkdir()
    paths = [place.masters / f"{name}.mp4" for name in ("a", "b", "other")]
    for seed, path in enumerate(paths):
        video(path, seed)
    size = max(path.stat().st_size for path in paths) + 8
    for path in paths[:2]:  # a box that no decoder reads makes them equally long
        room = size - path.stat().st_size
        path.write_bytes(path.read_bytes() + room.to_bytes(4, "big") + b"free" + bytes(room - 8))
        os.utime(path, (1.7e9, 1.7e9))
    restore(place)
    assert main(["analyze", str(place.raw), "--out", str(place.corpus), *QUIET]) == 0
    assert main(["judge", str(place.corpus), "--set", "judge.preset=keep-all", *QUIET]) == 0
    return place


def restore(place: Place) -> None:
    shutil.rmtree(place.raw)
    place.raw.mkdir()
    place.put("a", "v.mp4")
    place.put("other", "other.mp4")


@pytest.fixture
def place(first: Place, tmp_path: Path) -> Place:
    """The files as they were, and a copy of the corpus."""
    restore(first)
    corpus = Path(shutil.copytree(first.corpus, tmp_path / "corpus"))
    return Place(raw=first.raw, masters=first.masters, corpus=corpus)


def outcome(place: Place) -> tuple[set[str], set[str]]:
    """(the contents with a latent, the reasons of failed rows)."""
    rows = ShardReader(f"{place.corpus}/{SET}").everything.to_pylist()
    names = {place.id_of(name): name for name in ("a", "b", "other")}
    encoded = {names[row["source_id"]] for row in rows if row["status"] == "ok"}
    return encoded, {row["reason"].split(";")[0] for row in rows if row["status"] == "failed"}


def replace(place: Place) -> None:
    place.put("b", "v.mp4")
    (place.raw / "v.mp4").touch()


def replace_unseen(place: Place) -> None:
    place.put("b", "v.mp4")  # equal size, equal time


def truncate(place: Place) -> None:
    os.truncate(place.raw / "v.mp4", (place.raw / "v.mp4").stat().st_size - 9)


def touch(place: Place) -> None:
    (place.raw / "v.mp4").touch()


def move(place: Place) -> None:
    (place.raw / "v.mp4").rename(place.raw / "w.mp4")


def take_down_and_put_back(place: Place) -> None:
    assert main(["takedown", str(place.corpus), str(place.raw / "v.mp4")]) == 0
    move(place)


def take_down_and_put_over(place: Place) -> None:
    """What was taken down comes back under the name of another source."""
    assert main(["takedown", str(place.corpus), str(place.raw / "v.mp4")]) == 0
    (place.raw / "v.mp4").rename(place.raw / "other.mp4")


def remove(place: Place) -> None:
    (place.raw / "v.mp4").unlink()


BOTH, REST, NONE = {"a", "other"}, {"other"}, set[str]()
CASES = [  # what happens; encode alone: latents of, reasons; a whole run: latents of, reasons
    (replace, REST, {OTHER_CONTENT}, {"b", "other"}, NONE),
    (replace_unseen, REST, {OTHER_CONTENT}, REST, {OTHER_CONTENT}),
    (truncate, REST, {OTHER_CONTENT}, None, NONE),
    (touch, BOTH, NONE, BOTH, NONE),
    (move, REST, {NO_FILE}, BOTH, NONE),
    (take_down_and_put_back, REST, NONE, REST, NONE),
    (take_down_and_put_over, NONE, {OTHER_CONTENT}, NONE, NONE),
    (remove, REST, {NO_FILE}, REST, NONE),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0].__name__ for case in CASES])
def test_encode_after_a_source_changed(
    place: Place, case: tuple[Callable[[Place], None], set[str], set[str], set[str], set[str]]
) -> None:
    change, encoded, reasons, *_ = case
    change(place)
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    assert outcome(place) == (encoded, reasons)
    assert main(["verify", str(place.corpus)]) == 0


@pytest.mark.parametrize("case", CASES, ids=[case[0].__name__ for case in CASES])
def test_a_whole_run_after_a_source_changed(
    place: Place, case: tuple[Callable[[Place], None], set[str], set[str], set[str] | None, set[str]]
) -> None:
    change, _, _, encoded, reasons = case
    change(place)
    if encoded is None:  # what is left of the file is a content of its own, or no video at all
        encoded = {"other"}
        (place.raw / "v.mp4").write_bytes((place.raw / "v.mp4").read_bytes()[:200])
    keep_all = ["--set", "judge.preset=keep-all"]
    assert main(["run", str(place.raw), "--out", str(place.corpus), *keep_all, *QUIET]) == 0
    assert outcome(place) == (encoded, reasons)
    assert main(["verify", str(place.corpus)]) == 0


@pytest.mark.parametrize("change", [replace, replace_unseen, truncate, remove])
def test_the_right_file_put_back_is_encoded_without_being_asked_for(
    place: Place, change: Callable[[Place], None]
) -> None:
    change(place)
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    assert outcome(place)[0] == REST
    restore(place)
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    assert outcome(place) == (BOTH, NONE)
    assert main(["verify", str(place.corpus)]) == 0


def test_a_set_with_lost_files_stays_closed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    remove(place)
    for tasks in (1, 0):
        assert main(["encode", str(place.corpus), *QUIET, "--json"]) == 0
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert min(result["stages"][0]["tasks"], 1) == tasks


def test_verify_without_the_sources_checks_what_it_can(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    remove(place)
    place.put("b", "other.mp4")
    capsys.readouterr()
    assert main(["verify", str(place.corpus), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["pictures"]["compared"] == report["samples"] == 2
    assert report["decode_back"] == {"samples": 0}
    assert report["not_compared"] == {
        NO_FILE: {"samples": 1, "first": [str(place.raw / "v.mp4")]},
        OTHER_CONTENT: {"samples": 1, "first": [str(place.raw / "other.mp4")]},
    }


@pytest.mark.parametrize("sources", ["there", "gone"])
def test_verify_finds_a_latent_of_other_content(
    place: Place, capsys: pytest.CaptureFixture[str], sources: str
) -> None:
    """What a version without this check has left behind: right id, right record, the other file's latent."""
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    latents = LatentSet(Corpus(str(place.corpus)).storage, "default")
    state, (shard,) = latents.state(), latents.shards()
    reader = ShardReader(f"{place.corpus}/{SET}")
    first, second = reader.rows()
    swapped = [
        Sample(latent=reader.read_latent(other), record=reader.read_json(row))
        for row, other in ((first, second), (second, first))
    ]
    data, index = write_shard(swapped, shard)
    latents.storage.write_bytes(latents.shard_path(shard), data)
    rows = tables.from_rows(index, tables.INDEX)
    latents.commit(SetState(rows=rows, next_shard=1, info=state.info), {})
    if sources == "gone":
        shutil.rmtree(place.raw)
        place.raw.mkdir()
    capsys.readouterr()
    assert main(["verify", str(place.corpus), "--decode-back", "1", "--json"]) == 1
    errors = json.loads(capsys.readouterr().out)["errors"]
    assert len(errors) == 2
    assert all("other content" in error or "fresh encoding" in error for error in errors)

    restore(place)  # and the way out that the error names
    (place.corpus / SET / shard).unlink()
    assert main(["encode", str(place.corpus), *QUIET]) == 0
    assert main(["verify", str(place.corpus)]) == 0
