"""The S3 policy allows what framemill asks of a store and no more: recorded at a real server (moto's)."""

import fnmatch
import http.client
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from s3_server import FaultyProxy, Handler, point_at

from framemill import main
from pipeline.corpus.corpus import Corpus
from pipeline.errors import StorageError
from pipeline.storage import Storage
from pipeline.toyworld.world import ToyWorldConfig, render_corpus

POLICY = Path(__file__).resolve().parents[1] / "infra" / "policy" / "s3-access.json"
ARN = "arn:aws:s3:::"
RAW, CORPUS = "s3://SOURCES/raw", "s3://CORPUS/corpus"  # as in the policy
SETTINGS = ["--set", "encode.clips_per_task=4", "--workers", "1"]
MULTIPART_BYTES = 25_000_000
OF_AN_UPLOAD = {"uploads", "uploadId", "partNumber"}


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Asked:
    """What a policy decides about one request. Only a LIST has a prefix."""

    action: str
    resource: str
    prefix: str | None = None


def asked(method: str, target: str) -> Iterator[Asked]:
    """The permissions that S3 wants for a request (Service Authorization Reference, Amazon S3). Of an object
    that is not there it says so only to those who may list it; to others, «access denied»."""
    split = urlsplit(target)
    bucket, _, key = unquote(split.path.lstrip("/")).partition("/")
    query = parse_qs(split.query, keep_blank_values=True)
    if method == "GET" and not key and "list-type" in query:
        yield Asked(action="s3:ListBucket", resource=ARN + bucket, prefix=query.get("prefix", [""])[0])
        return
    assert key, f"{method} {target} wants a permission that no policy here has"
    assert set(query) <= OF_AN_UPLOAD, f"{method} {target} wants a permission that no policy here has"
    name = {
        "GET": "ListMultipartUploadParts" if query else "GetObject",
        "HEAD": "GetObject",
        "PUT": "PutObject",
        "POST": "PutObject",  # begins an upload, or completes it
        "DELETE": "AbortMultipartUpload" if query else "DeleteObject",
    }[method]
    yield Asked(action=f"s3:{name}", resource=f"{ARN}{bucket}/{key}")
    if name == "GetObject":
        yield Asked(action="s3:ListBucket", resource=ARN + bucket, prefix=key)


class Recording(Handler):
    """Notes what is asked of the store before it passes it on."""

    requests: set[Asked]

    def do_GET(self) -> None:
        self.requests.update(asked(self.command, self.path))
        super().do_GET()

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET


class RefusedParts(FaultyProxy):
    """A store that refuses the second part of an upload from now on, once told so."""

    refuses = False

    def next_fault(self, path: str) -> str:
        return "403" if self.refuses and "partNumber=2" in path else "none"


@pytest.fixture(scope="module")
def requests(server_port: int, tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[Asked]]:
    """All that every verb with a corpus asks of a store, an upload in parts that fails included."""
    raw = tmp_path_factory.mktemp("raw")
    render_corpus(raw, ToyWorldConfig(videos=1, images=1, seed=5, min_shots=1, max_shots=1))
    for bucket in ("SOURCES", "CORPUS"):
        connection = http.client.HTTPConnection("127.0.0.1", server_port)
        connection.request("PUT", f"/{bucket}")
        assert connection.getresponse().status == 200
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "key")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        point_at(patch, server_port)
        for path in (p for p in raw.rglob("*") if p.is_file()):
            Storage(RAW).write_bytes(str(path.relative_to(raw)), path.read_bytes())
        proxy = RefusedParts(server_port, 0.0, ())
        proxy.RequestHandlerClass = type("Handled", (Recording,), {"requests": set()})
        point_at(patch, proxy.server_port)
        assert main(["run", RAW, f"{RAW}/videos/*.mp4", "--out", CORPUS, *SETTINGS]) == 0
        assert main(["status", CORPUS]) == main(["verify", CORPUS]) == 0
        assert main(["takedown", CORPUS, Corpus(CORPUS).clips()["source_id"][0].as_py()]) == 0
        large = random.Random(0).randbytes(MULTIPART_BYTES)
        Storage(CORPUS).write_bytes("large", large)
        proxy.refuses = True
        with pytest.raises(StorageError):
            Storage(CORPUS).write_bytes("large", large)
        yield proxy.RequestHandlerClass.requests


def statements() -> Sequence[dict[str, Any]]:
    rows = json.loads(POLICY.read_text())["Statement"]
    assert all(row["Effect"] == "Allow" for row in rows)
    return list(rows)


def parts(statement: dict[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """Each action with each resource and each prefix that a statement allows it with."""
    prefixes = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix")
    yield from itertools.product(
        *(listed(statement[name]) for name in ("Action", "Resource")), listed(prefixes)
    )


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def allows(part: tuple[str, str, str | None], request: Asked) -> bool:
    """As IAM decides it: `*` stands for any text; a condition on what a request lacks does not hold."""
    action, resource, prefix = part
    if request.action != action or not fnmatch.fnmatchcase(request.resource, resource):
        return False
    return prefix is None or (request.prefix is not None and fnmatch.fnmatchcase(request.prefix, prefix))


def allowed() -> list[tuple[str, str, str | None]]:
    return [part for statement in statements() for part in parts(statement)]


@pytest.mark.slow
def test_the_policy_allows_all_that_is_asked(requests: set[Asked]) -> None:
    assert len(requests) > 30
    refused = {request for request in requests if not any(allows(part, request) for part in allowed())}
    assert not refused


@pytest.mark.slow
def test_the_policy_allows_nothing_that_is_not_asked(requests: set[Asked]) -> None:
    unused = [part for part in allowed() if not any(allows(part, request) for request in requests)]
    assert not unused


@pytest.mark.parametrize(
    ("action", "resource", "prefix"),
    [
        ("s3:PutObject", "SOURCES/raw/a.mp4", None),
        ("s3:DeleteObject", "SOURCES/raw/a.mp4", None),
        ("s3:GetObject", "SOURCES/private/a.mp4", None),
        ("s3:GetObject", "CORPUS/corpus2/clips/a.parquet", None),
        ("s3:ListBucket", "SOURCES", ""),
        ("s3:ListBucket", "CORPUS", None),
        ("s3:ListBucket", "CORPUS", "corpus2/"),
        ("s3:DeleteBucket", "CORPUS", None),
    ],
)
def test_the_policy_refuses_the_rest(action: str, resource: str, prefix: str | None) -> None:
    request = Asked(action=action, resource=ARN + resource, prefix=prefix)
    assert not any(allows(part, request) for part in allowed())


def test_uploads_that_broke_off_are_cleared_by_the_bucket() -> None:
    """Arrow never aborts one, so neither policy nor framemill can."""
    (rule,) = json.loads(POLICY.with_name("lifecycle.json").read_text())["Rules"]
    assert rule["Status"] == "Enabled"
    assert rule["Filter"]["Prefix"] == CORPUS.partition("//")[2].partition("/")[2] + "/"
    assert rule["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 1
