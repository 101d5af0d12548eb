"""S3 against a real server (moto's) and a proxy that fails: the same rows as on a local disk."""

import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pytest
from s3_server import BUCKET, FaultyProxy, point_at

from framemill import main
from pipeline import storage
from pipeline.corpus.corpus import Corpus
from pipeline.errors import StorageError
from pipeline.lease.lease_stores import S3Leases
from pipeline.sources.discover import discover
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from pipeline.uris import local_path, stat

pytestmark = pytest.mark.slow
SMALL = ["--set", "analyze.sources_per_task=2", "--set", "caption.clips_per_task=4"]
SHARDS = ["--set", "encode.clips_per_task=4", "--max-failed", "0.5"]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of a few toy files, one of them inside a tar, one broken, one missing."""
    folder = tmp_path_factory.mktemp("raw")
    render_corpus(folder, ToyWorldConfig(videos=3, images=1, seed=5, min_shots=1, max_shots=2))
    with tarfile.open(folder / "set.tar", "w") as tar:
        tar.add(folder / "videos" / "v000002.mp4", "in/000.mp4")
    (folder / "broken.mp4").write_bytes(b"not a video at all")
    names = ["broken.mp4", "gone.mp4", "set.tar", "videos/v000000.mp4", "videos/v000001.mp4"]
    lines = [f"{name},caption {i},CC0" for i, name in enumerate([*names, "images/i000000.png"])]
    (folder / "list.csv").write_text("\n".join(["uri,caption,licence", *lines]))
    return folder


@pytest.fixture(scope="module")
def local(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    out = tmp_path_factory.mktemp("local") / "corpus"
    assert main(["run", str(raw / "list.csv"), "--out", str(out), *SMALL, *SHARDS]) == 0
    return Corpus(str(out))


def upload(raw: Path) -> str:
    bucket = Storage(f"{BUCKET}/raw")
    for path in raw.rglob("*"):
        if path.is_file() and not bucket.exists(str(path.relative_to(raw))):
            bucket.write_bytes(str(path.relative_to(raw)), path.read_bytes())
    return f"{BUCKET}/raw/list.csv"


def rows(corpus: Corpus) -> dict[str, pa.Table]:
    """Every table without the columns that say where a file lies."""
    index = corpus.storage.read_bytes("latents/default/index.parquet")
    return {
        "sources": corpus.sources().drop_columns(["source_key", "uri"]),
        "reasons": corpus.sources()["reason"],
        "clips": corpus.clips(),
        "strips": corpus.strips(),
        "judged": corpus.judged(),
        "captions": corpus.captions("builtin"),
        "index": pa.table({"bytes": [index]}),
    }


def tars(corpus: Corpus) -> dict[str, bytes]:
    names = corpus.storage.list("latents/default", ".tar")
    return {name: corpus.storage.read_bytes(f"latents/default/{name}") for name in names}


def assert_same(corpus: Corpus, local: Corpus) -> None:
    assert corpus.sources().num_rows == 6
    there, here = rows(corpus), rows(local)
    assert [name for name in here if not there[name].equals(here[name])] == []
    assert tars(corpus) == tars(local)


def test_a_run_on_s3_gives_the_rows_of_a_local_run(
    s3: pytest.MonkeyPatch, raw: Path, local: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"{BUCKET}/plain/corpus"
    assert main(["run", upload(raw), "--out", root, *SMALL, *SHARDS]) == 0
    assert_same(Corpus(root), local)
    gone = next(row for row in Corpus(root).sources().to_pylist() if row["uri"].endswith("gone.mp4"))
    assert (gone["status"], gone["original"]) == ("failed", "caption 1")
    assert main(["verify", root, "--decode-back", "1"]) == 0
    source_id = Corpus(root).clips()["source_id"][0].as_py()
    assert main(["takedown", root, source_id]) == 0
    assert source_id not in str(rows(Corpus(root))["index"])


def test_the_same_rows_when_requests_fail(
    s3: pytest.MonkeyPatch, server_port: int, raw: Path, local: Corpus
) -> None:
    manifest = upload(raw)
    proxy = FaultyProxy(server_port, 0.05, ("500", "503", "drop", "cut"), seed=1)
    point_at(s3, proxy.server_port)
    root = f"{BUCKET}/faulty/corpus"
    assert main(["run", manifest, "--out", root, *SMALL, *SHARDS]) == 0
    proxy.share = 0.0
    assert_same(Corpus(root), local)
    assert all(proxy.seen[fault] for fault in proxy.faults)


def test_a_few_bytes_are_read_again_after_a_fault_with_a_long_text(
    s3: pytest.MonkeyPatch, server_port: int
) -> None:
    Storage(f"{BUCKET}/few").write_bytes("x", b"0123456789")
    point_at(s3, FaultyProxy(server_port, 0.3, ("500", "503", "cut"), seed=2).server_port)
    few = Storage(f"{BUCKET}/few")
    assert [few.read_bytes("x", offset=3, nbytes=4) for _ in range(12)] == [b"3456"] * 12
    for _ in range(12):
        with local_path(f"{BUCKET}/few/x") as copy:  # as a decoder gets it
            assert copy.read_bytes() == b"0123456789"
    lease = S3Leases(f"{BUCKET}/few", "")
    assert [lease.read("x") for _ in range(12)] == [b"0123456789"] * 12


def test_large_objects_ranges_lists_and_globs(s3: pytest.MonkeyPatch) -> None:
    bucket, data = Storage(f"{BUCKET}/large"), random.Random(0).randbytes(25_000_000)
    bucket.write_bytes("a/big.mp4", data)
    assert bucket.read_bytes("a/big.mp4") == data
    assert bucket.read_bytes("a/big.mp4", offset=12_345_678, nbytes=10) == data[12_345_678:12_345_688]
    with local_path(f"{BUCKET}/large/a/big.mp4") as path:
        assert path.read_bytes() == data
        assert path.suffix == ".mp4"
    assert bucket.list("a", ".mp4") == ["big.mp4"]
    assert discover([f"{BUCKET}/la*/*/*.mp4"]).inputs["uri"].to_pylist() == [f"{BUCKET}/large/a/big.mp4"]
    bucket.delete("a/big.mp4")
    assert stat(f"{BUCKET}/large/a/big.mp4") is None


def test_names_with_wildcards_and_what_is_below_them(s3: pytest.MonkeyPatch) -> None:
    names = ["[2020] trip/a.mp4", "[2020] trip/b[1].mp4", "2 trip/c.mp4"]
    for name in names:
        Storage(f"{BUCKET}/odd").write_bytes(name, b"1")

    def taken(path: str) -> list[str]:
        uris = discover([f"{BUCKET}/odd/{path}"]).inputs["uri"].to_pylist()
        return [uri.removeprefix(f"{BUCKET}/odd/") for uri in uris]

    assert taken("[2020] trip") == names[:2]
    assert taken("[2020] trip/[!b]*") == names[:1]
    assert taken("[2020] trip/b[1].mp4") == names[1:2]
    assert taken("[0-9] trip/*") == names[2:]
    assert taken("*/*.mp4") == sorted(names)


def test_what_cannot_pass_fails_at_once_and_what_may_is_tried_again(
    s3: pytest.MonkeyPatch, server_port: int
) -> None:
    Storage(f"{BUCKET}/faults").write_bytes("x", b"1")
    s3.setattr(storage, "S3_ATTEMPTS", 3)
    storage._s3.cache_clear()
    for fault, expected, requests in (("403", "access denied", {2, 3}), ("503", "3 attempts failed", {2, 3})):
        proxy = FaultyProxy(server_port, 1.0, (fault,))
        point_at(s3, proxy.server_port)
        with pytest.raises(StorageError, match=expected):
            Storage(f"{BUCKET}/faults").write_bytes("x", b"2")
        assert (
            proxy.seen[fault] in requests
        )  # 403: one, and those that ask for its code; 503: an attempt may end early
    point_at(s3, server_port)
    storage._s3.cache_clear()
    with pytest.raises(StorageError, match="no such file"):
        Storage(f"{BUCKET}/faults").read_bytes("nothing")
    assert Storage(f"{BUCKET}/faults").read_bytes("x") == b"1"
