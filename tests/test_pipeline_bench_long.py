"""A looped source in parts, small: every part below the limit and the rows of one pass."""

from pathlib import Path

from pipeline.bench.long import bench_long

CLIP = Path(__file__).resolve().parents[1] / "infra" / "media" / "nasa_two_streams_180p.mp4"


def test_parts_of_a_looped_source_give_the_rows_of_one_pass() -> None:
    result = bench_long(str(CLIP), hours=60 / 3600, parts=3)
    details = result["details"]
    assert details["equal"]
    assert 55 < details["duration_s"] < 75
    assert len(details["parts_peak_gb"]) == 3
    assert max(details["parts_peak_gb"]) < 0.5
    assert 0 < details["join_peak_gb"] < 0.8
    assert 0 < result["ratio"] < 0.6
