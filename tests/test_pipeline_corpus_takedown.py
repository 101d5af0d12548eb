"""Takedown and provenance over a small corpus: what is taken down is nowhere and never comes back; what a
manifest says reaches captions and shards without a frame being decoded."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import framemill
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import ShardReader
from pipeline.corpus.takedown import take_down, traces
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage import encode as encode_module
from tokenizer_stage.verify import verify

SMALL = ["--set", "encode.clips_per_task=4", "--set", "analyze.sources_per_task=2"]
LATENTS = "latents/default"


def write_manifest(raw: Path, licence: str) -> Path:
    names = sorted(str(p.relative_to(raw)) for p in raw.rglob("*") if p.suffix in {".mp4", ".png"})
    with (raw / "list.csv").open("w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["uri", "caption", "license", "tags", "shot_by"])
        rows.writerows([n, f"own words on {n}", licence, "a, b", f"N° {i}"] for i, n in enumerate(names))
    return raw / "list.csv"


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    render_corpus(folder, ToyWorldConfig(videos=4, images=2, seed=7, min_shots=1, max_shots=3))
    shutil.copy(folder / "videos" / "v000000.mp4", folder / "copy.mp4")
    return folder


@pytest.fixture(scope="module")
def done(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "corpus"
    assert run(write_manifest(raw, "CC0"), out) == 0
    return out


@pytest.fixture
def root(done: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(done, tmp_path / "corpus"))


def run(manifest: Path, out: Path) -> int:
    return framemill.main(["run", str(manifest), "--out", str(out), *SMALL])


def tree(root: Path) -> dict[str, bytes]:
    files = (p for p in root.rglob("*") if p.is_file() and not p.name.startswith("."))
    return {str(p.relative_to(root)): p.read_bytes() for p in files if p.parent.name != "receipts"}


def a_source(root: Path) -> str:
    """The source of most samples."""
    sources = [row["source_id"] for row in ShardReader(str(root / LATENTS)).rows()]
    return max(sorted(set(sources)), key=sources.count)


def test_provenance_reaches_sources_captions_and_shards(done: Path) -> None:
    corpus = Corpus(str(done))
    for row in corpus.sources().to_pylist():
        assert row["licence"] == "CC0"
        assert row["tags"] == ["a", "b"]
        assert set(json.loads(row["attributes"])) == {"shot_by"}
    own = {row["source_id"]: row["original"] for row in corpus.contents(["original"]).to_pylist()}
    assert len(set(own.values())) == len(own) > 3
    for part in (done / "captions" / "builtin").glob("*.parquet"):
        assert all(own[r["clip_id"][:16]] == r["original"] for r in pq.read_table(part).to_pylist())
    captions = {r["clip_id"]: r for r in pq.read_table(done / LATENTS / "captions.parquet").to_pylist()}
    for row in ShardReader(str(done / LATENTS)).rows():
        said = captions[row["clip_id"]]
        assert said["original"] == own[row["source_id"]]
        assert (said["licence"], said["tags"]) == ("CC0", ["a", "b"])
        assert json.loads(said["attributes"])["shot_by"].startswith("N°")
        assert said["short"]


def test_a_changed_manifest_decodes_nothing_and_gives_the_bytes_of_a_fresh_run(
    raw: Path, done: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = write_manifest(raw, "CC BY 4.0")
    try:
        assert run(manifest, tmp_path / "fresh" / "corpus") == 0

        def no_decoding(*_: object, **__: object) -> None:
            raise AssertionError("a frame was decoded")

        monkeypatch.setattr(encode_module, "read_frames", no_decoding)
        monkeypatch.setattr("pipeline.stages.analyze.open_content", no_decoding)
        assert run(manifest, root) == 0
    finally:
        write_manifest(raw, "CC0")
    changed, fresh = tree(root), tree(tmp_path / "fresh" / "corpus")
    assert {n for n in fresh if changed.get(n) != fresh[n]} == set()
    assert changed != tree(done)


def test_a_dry_run_lists_and_changes_nothing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, source_id = tree(root), a_source(root)
    assert framemill.main(["takedown", str(root), source_id, "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["sources"] == [source_id]
    assert found["clips"]
    assert found["shards"]
    assert tree(root) == before


def test_a_takedown_leaves_no_trace_and_nothing_comes_back(raw: Path, done: Path, root: Path) -> None:
    source_id = a_source(root)
    uris = [r["uri"] for r in Corpus(str(root)).sources().to_pylist() if r["source_id"] == source_id]
    assert framemill.main(["takedown", str(root), uris[0], "--reason", "asked for"]) == 0
    check_gone(root, source_id)
    reader = ShardReader(str(root / LATENTS))  # readable at once
    whole = {r["clip_id"]: r for r in ShardReader(str(done / LATENTS)).rows()}
    assert {r["clip_id"] for r in reader.rows()} == {
        i for i, r in whole.items() if r["source_id"] != source_id
    }
    for row in reader.rows():
        assert reader.read_latent(row) is not None  # offsets and hashes fit
        assert row["sha256"] == whole[row["clip_id"]]["sha256"]
    assert verify(Corpus(str(root)), "default", 0)["errors"] == []
    assert run(raw / "list.csv", root) == 0
    check_gone(root, source_id)
    assert (
        framemill.main(
            ["run", str(raw / "list.csv"), "--out", str(root), *SMALL, "--set", "analyze.strip_frames=5"]
        )
        == 0
    )
    check_gone(root, source_id)
    assert verify(Corpus(str(root)), "default", 2)["errors"] == []


def check_gone(root: Path, source_id: str) -> None:
    corpus = Corpus(str(root))
    assert traces(corpus, [source_id]).gone
    status = {row["source_id"]: row["status"] for row in corpus.sources().to_pylist()}
    assert status[source_id] == "taken down"
    tables = [corpus.clips(), corpus.strips(), corpus.judged(), corpus.captions("builtin")]
    assert all(not i.startswith(source_id) for t in tables for i in t["clip_id"].to_pylist())
    data = tree(root)
    del data["takedowns.parquet"]
    rows = {n: pq.read_table(root / n) for n in data if n.endswith(".parquet") and "sources" not in n}
    assert [n for n, table in rows.items() if source_id in str(table.to_pydict())] == []
    assert all(source_id.encode() not in d for n, d in data.items() if n.endswith((".tar", ".html")))


def test_a_killed_takedown_is_hidden_at_once_and_finished_by_the_same_command(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source_id = a_source(root)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.corpus.takedown._erase_from_set", killed)
        with pytest.raises(KeyboardInterrupt):
            take_down(Corpus(str(root)), [source_id])
    corpus = Corpus(str(root))
    assert source_id not in corpus.clips()["source_id"].to_pylist()
    assert not traces(corpus, [source_id]).gone
    take_down(corpus, [source_id])
    check_gone(root, source_id)


def test_verify_sees_what_was_put_back(done: Path, root: Path) -> None:
    source_id = a_source(root)
    take_down(Corpus(str(root)), [source_id])
    for name in ("latents/default", "strips"):
        shutil.copytree(done / name, root / name, dirs_exist_ok=True)
    errors = verify(Corpus(str(root)), "default", 0)["errors"]
    assert any(".tar: holds what was taken down" in error for error in errors)
    assert any("strips/" in error for error in errors)


def test_an_unknown_source_is_wrong_use(root: Path) -> None:
    assert framemill.main(["takedown", str(root), "0123456789abcdef"]) == 2
