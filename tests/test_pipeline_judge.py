"""Every reason is kept, failures stay failures, what was not measured is not held against a clip."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline import tables
from pipeline.config import JudgeConfig
from pipeline.judge import judge

GOOD = {
    "motion": 0.1,
    "camera_motion": 0.0,
    "sharpness": 0.1,
    "luma": 0.5,
    "contrast": 0.2,
    "saturation": 0.2,
    "static_ratio": 0.0,
    "text_area": None,
    "black_ratio": 0.0,
    "flicker": 0.001,
}


def clip(number: int, **changes: Any) -> dict[str, Any]:
    signals = GOOD | changes.pop("signals", {})
    row = {
        "clip_id": f"{number:016x}-0-2000",
        "source_id": f"{number:016x}",
        "kind": "video",
        "start_s": 0.0,
        "end_s": 2.0,
        "crop": [0, 0, 320, 180],
        "width": 320,
        "height": 180,
        "signals": signals,
        "phash": [int(h) for h in np.random.default_rng(number).integers(0, 2**64, 4, dtype=np.uint64)],
        "colour": [128] * 32,
        "status": "ok",
    }
    return row | changes


def verdicts(*rows: dict[str, Any], **rules: Any) -> list[dict[str, Any]]:
    return judge(tables.from_rows(rows, tables.CLIPS), JudgeConfig(**rules)).to_pylist()


def test_a_good_clip_is_kept() -> None:
    (row,) = verdicts(clip(1))
    assert (row["status"], row["reasons"], row["duplicate_of"], row["duration_s"]) == ("kept", [], None, 2.0)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("short", {"end_s": 0.3}),
        ("long", {"end_s": 100.0}),
        ("small", {"crop": [0, 0, 16, 16]}),
        ("aspect", {"crop": [0, 0, 4000, 32]}),
        ("static", {"signals": {"static_ratio": 1.0}}),
        ("blurred", {"signals": {"sharpness": 0.001}}),
        ("dark", {"signals": {"luma": 0.005}}),
        ("flat", {"signals": {"contrast": 0.001}}),
        ("black", {"signals": {"black_ratio": 0.9}}),
        ("flicker", {"signals": {"flicker": 0.2}}),
    ],
)
def test_each_rule_gives_its_reason(reason: str, changes: dict[str, Any]) -> None:
    (row,) = verdicts(clip(1, **changes))
    assert (row["status"], row["reasons"]) == ("rejected", [reason])


def test_every_reason_is_kept() -> None:
    (row,) = verdicts(clip(1, end_s=0.3, signals={"static_ratio": 1.0, "luma": 0.0}))
    assert row["reasons"] == ["short", "static", "dark"]


def test_a_limit_itself_is_allowed() -> None:
    assert verdicts(clip(1, end_s=0.8), min_s=0.8)[0]["status"] == "kept"


def test_what_was_not_measured_is_not_held_against_a_clip() -> None:
    (row,) = verdicts(clip(1, signals=dict.fromkeys(GOOD)), min_motion=1.0, min_sharpness=1.0)
    assert row["status"] == "kept"


def test_a_failed_clip_stays_failed_with_its_reason() -> None:
    (row,) = verdicts(clip(1, status="failed", reason="no frame", end_s=0.1))
    assert (row["status"], row["reasons"]) == ("failed", ["no frame"])


def test_images_are_not_judged_on_time() -> None:
    still = {"kind": "image", "end_s": 0.0, "signals": {"motion": None, "static_ratio": None}}
    assert verdicts(clip(1, **still))[0]["status"] == "kept"


def test_the_best_copy_stays() -> None:
    copies = {"phash": clip(7)["phash"]}
    small = clip(1, crop=[0, 0, 160, 90], **copies)
    short, sharp = clip(2, end_s=1.0, **copies), clip(3, signals={"sharpness": 0.5}, **copies)
    plain = clip(4, **copies)
    rows = {r["clip_id"]: r for r in verdicts(small, short, sharp, plain)}
    assert [r["status"] for r in rows.values()] == ["rejected", "rejected", "kept", "rejected"]
    assert {r["duplicate_of"] for r in rows.values()} == {None, sharp["clip_id"]}
    assert all(r["reasons"] == ["duplicate"] for r in rows.values() if r["status"] == "rejected")


def test_a_rejected_clip_does_not_push_its_good_copy_out() -> None:
    copies = {"phash": clip(7)["phash"]}
    rows = verdicts(clip(1, signals={"luma": 0.0}, crop=[0, 0, 640, 360], **copies), clip(2, **copies))
    assert [r["status"] for r in rows] == ["rejected", "kept"]


def test_a_still_is_no_copy_of_a_video_and_dedup_can_be_off() -> None:
    copies = {"phash": clip(7)["phash"]}
    rows = verdicts(clip(1, **copies), clip(2, kind="image", **copies))
    assert [r["status"] for r in rows] == ["kept", "kept"]
    assert [r["status"] for r in verdicts(clip(1, **copies), clip(2, **copies), dedup=False)] == [
        "kept",
        "kept",
    ]


def test_no_clips_no_verdicts() -> None:
    table = judge(tables.CLIPS.empty_table(), JudgeConfig())
    assert table.schema == tables.JUDGED
    assert isinstance(table, pa.Table)
    assert table.num_rows == 0
