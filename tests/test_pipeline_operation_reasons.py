"""Classes of reasons: few, stable, and without a trace of the item."""

import random
import re
import time
from collections import Counter

import pyarrow as pa
import pytest

from pipeline.errors import MediaError
from pipeline.operation.reasons import EXAMPLES, by_class, failures_of, of_column, reason_class
from pipeline.storage import storage_errors
from pipeline.uris import source_errors

FOLDERS = ("/data/raw", "/mnt/my videos", "s3://bucket/no such file", "clips", "C:\\films", "https://h:80/v1")
NAMES = (
    "a.mp4",
    "access denied: x.mp4",
    "Käfer (1).webm",
    "damaged 12 frames.png",
    "x; y/日本.mov",
    "a b c.tar",
)
RAISED = [  # what the code says of one place, with {} for it, and its class
    ("cannot read {}: no such file", "no such file"),
    ("cannot read {}: access denied; fix: check permissions or AWS_* keys", "access denied"),
    (
        "cannot read {}: access denied (AllAccessDisabled); fix: check permissions or AWS_* keys",
        "access denied",
    ),
    ("cannot write {}: the credentials have expired (ExpiredToken)", "the credentials have expired"),
    (
        "cannot list {}: this machine's clock is wrong, 900 s ahead of the store's (RequestTimeTooSkewed)",
        "this machine's clock is wrong",
    ),
    ("cannot read {0}: 10 attempts failed, the last with AWS Error X at {0}", "the store does not answer"),
    ("cannot read {}: AWS Error SLOW (HTTP status 400); fix: check space", "the store says SLOW"),
    ("cannot write {}: [Errno 28] No space left on device", "no space left on device"),
    ("PermissionError: [Errno 13] Permission denied: '{}'", "access denied"),
    ("no such file in {}", "no such file"),
    ("not a whole tar of media: cut off inside {}", "not a whole tar"),
    ("cut off inside {}", "damaged"),
    ("its part is not in {}: where it ran, that is another place", "its part is not there"),
]
BARE = [
    ("decoding took longer than 600 s", "deadline"),
    ("decoding took longer than 0.5 s", "deadline"),
    ("too many pixels: 40000 × 40000; expected at most 100000000 per frame", "refused: too many pixels"),
    ("more than 2000000 frames; fix: --set analyze.max_frames=…", "refused: too many frames"),
    ("3 damaged packets or frames left out; ends after 0.56 of 1.00 s", "damaged"),
    ("killed its worker", "killed its worker"),
    ("the decoder died: signal 11", "killed its decoder"),
    ("needs more than 4 GB of memory", "not enough memory"),
    ("clip 0123456789abcdef-0001: the server's answer holds no caption", "the server gave no caption"),
    ("no video stream", "no video stream"),
    ("low fps", "low fps"),
    ("", "no reason given"),
]


def places(count: int) -> list[str]:
    draw = random.Random(7)
    folders = [f"{draw.choice(FOLDERS)}/{draw.randrange(10**6)}" for _ in range(count)]
    return [f"{folder}/{draw.choice(NAMES)}" for folder in folders]


@pytest.mark.parametrize(("said", "name"), RAISED, ids=[said[:40] for said, _ in RAISED])
def test_every_place_that_fails_alike_has_the_same_class(said: str, name: str) -> None:
    assert {reason_class(said.format(place)) for place in places(200)} == {name}


@pytest.mark.parametrize(("said", "name"), BARE)
def test_sizes_and_times_are_no_part_of_a_class(said: str, name: str) -> None:
    assert reason_class(said) == name


@pytest.mark.parametrize(
    "said", ["failed at {}", "odd: {} is odd (5 of 7)", "ValueError: bad value '{}' 0x12"]
)
def test_a_text_nobody_foresaw_loses_its_places_and_numbers(said: str) -> None:
    names = {reason_class(said.format(place)) for place in places(500)}
    assert len(names) == 1
    (name,) = names
    assert re.match(r"failed at|odd|ValueError: bad value", name)
    assert not re.search(r"[/\\]|\d|mp4|Käfer|videos", name)


def test_no_class_holds_a_place_whatever_the_text() -> None:
    draw, words = random.Random(3), ["cannot", "read", "in:", "failed", "'quoted'", "12", "(x)", "fix:", ";"]
    for place in places(2000):
        text = [draw.choice(words) for _ in range(draw.randrange(8))]
        text.insert(draw.randrange(len(text) + 1), place)
        name = reason_class(" ".join(text))
        assert not re.search(r"://|[/\\]|\.(mp4|webm|png|mov|tar)\b", name), (text, name)


def test_what_storage_raises_has_a_class() -> None:
    faults = [FileNotFoundError(2, "No such file or directory"), PermissionError(13, "Permission denied")]
    names = []
    for fault in faults:
        for errors in (storage_errors("read", "/a b/c.mp4"), source_errors("/a b/c.mp4")):
            with pytest.raises(Exception) as caught, errors:  # noqa: PT011 (of two kinds)
                raise fault
            names.append(reason_class(str(caught.value)))
    assert names == ["no such file", "no such file", "access denied", "access denied"]
    assert reason_class(str(MediaError("no index: the moov box is missing or damaged"))) == "damaged"


def test_fifty_thousand_refusals_are_one_line_and_cost_little() -> None:
    texts = [f"cannot read {place}: access denied; fix: check permissions" for place in places(50_000)]
    started_s = time.process_time()
    counted = of_column(pa.chunked_array([[*texts, "no such file", None]]))
    assert counted["reasons"] == {"access denied": 50_000, "no such file": 1}
    assert list(counted["examples"]) == ["access denied"]
    assert len(counted["examples"]["access denied"]) == EXAMPLES
    assert time.process_time() - started_s < 5


def test_counts_add_up_and_the_most_frequent_comes_first() -> None:
    counted = by_class(
        {"cut off inside b.png": 1, "damaged after a seek": 2, "no video stream": 1, "empty file": 5}
    )
    assert counted["reasons"] == {"empty file": 5, "damaged": 3, "no video stream": 1}
    assert next(iter(counted["reasons"])) == "empty file"
    assert failures_of(["no frame at 1.000 s", "no frame at 2.000 s", None]) == Counter(
        {"damaged": 2, "no reason given": 1}
    )
