"""How many failures a run forgives."""

import pytest

from pipeline.corpus.failures import FailureLimit
from pipeline.corpus.status import failures_above


@pytest.mark.parametrize(
    ("text", "failed", "total", "exceeded"),
    [
        ("5%", 5, 100, False),
        ("5%", 6, 100, True),
        ("0.05", 6, 100, True),
        ("1.0", 100, 100, False),
        ("1", 1, 100, False),
        ("1", 2, 100, True),
        ("10", 10, 10, False),
        ("0", 1, 1000, True),
        ("0", 0, 0, False),
        ("0%", 1, 1000, True),
    ],
)
def test_a_limit_is_a_share_or_a_count(text: str, failed: int, total: int, exceeded: bool) -> None:
    assert FailureLimit.parse(text).exceeded(failed, total) is exceeded


@pytest.mark.parametrize("text", ["", "five", "-1", "1.5", "nan", "%"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=text or "empty|convert"):
        FailureLimit.parse(text)


def test_captions_and_latents_count_when_their_stage_ran() -> None:
    bad, good = {"status": {"ok": 1, "failed": 1}}, {"status": {"ok": 9}}
    counts = {"sources": good, "captions": {"builtin": bad}, "latents": {"default": bad}}
    limit = FailureLimit.parse("5%")
    assert failures_above(limit, counts, ["analyze", "judge"]) == []
    assert failures_above(limit, counts, ["caption"]) == ["1 of 2 captions builtin failed"]
    assert len(failures_above(limit, counts, ["analyze", "caption", "encode"])) == 2
