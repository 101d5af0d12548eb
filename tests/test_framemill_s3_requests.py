"""On S3 a run with nothing to do asks for files, of which a corpus has few, and not for parts or rows."""

from collections import Counter
from pathlib import Path

import pytest
from s3_server import BUCKET, FaultyProxy, point_at

from captioner.audit.gallery import KEPT_SHOWN, REJECTED_SHOWN
from framemill import main
from pipeline.bench.corpus import CORPUS, MEDIA, make_corpus
from pipeline.storage import Storage

SIZES = (30, 300)
MOST_REQUESTS = 1000
MOST_OF_PICTURES = 3 * (KEPT_SHOWN + REJECTED_SHOWN)  # a look at a part of filmstrips for each in the report


@pytest.mark.slow
def test_requests_of_a_run_with_nothing_to_do_do_not_grow_with_the_corpus(
    tmp_path: Path, server_port: int, s3: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Counter[str]] = []
    for size in SIZES:
        make_corpus(tmp_path / str(size), size)
        upload(tmp_path / str(size) / CORPUS, f"{BUCKET}/{size}")
        with CountingProxy(server_port) as proxy:
            point_at(s3, proxy.server_port)
            words = ["run", str(tmp_path / str(size) / MEDIA), "--out", f"{BUCKET}/{size}", "--workers", "1"]
            assert main(words) == 0
            asked.append(proxy.asked)
            point_at(s3, server_port)
        said = capsys.readouterr().out
        assert said.count("nothing to do") == 5
    small, large = (sum(requests.values()) for requests in asked)
    assert large <= small + MOST_OF_PICTURES, asked
    assert large < MOST_REQUESTS, asked


class CountingProxy(FaultyProxy):
    """Passes every request on and counts them."""

    def __init__(self, server_port: int) -> None:
        super().__init__(server_port, 0.0, ("none",))
        self.asked: Counter[str] = Counter()

    def next_fault(self, path: str) -> str:
        with self.lock:
            self.asked[path.partition("?")[0] if "list-type" not in path else "LIST"] += 1
        return "none"


def upload(folder: Path, root: str) -> None:
    """Copies what lies in a folder, hidden files left out."""
    storage = Storage(root)
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        storage.write_bytes(str(path.relative_to(folder)), path.read_bytes())
