"""A looped source in pieces, small: the rows of one pass, and a figure for each process."""

from pathlib import Path

from pipeline.bench.long import LIMIT_GB, bench_long

CLIP = Path(__file__).resolve().parents[1] / "infra" / "media" / "nasa_two_streams_180p.mp4"


def test_pieces_of_a_looped_source_give_the_rows_of_one_pass() -> None:
    result = bench_long(str(CLIP), hours=60 / 3600, pieces=3)
    details = result["details"]
    assert details["equal"]
    assert details["frames"] > 0
    assert details["clips"] > 0
    assert 55 < details["duration_s"] < 75  # the clip's whole turns nearest to a minute
    peaks_gb = [*details["parts_peak_gb"], details["join_peak_gb"], details["one_pass_peak_gb"]]
    assert len(details["parts_peak_gb"]) == 3
    assert min(peaks_gb) > 0
    assert result["ratio"] == round(max(peaks_gb) / LIMIT_GB, 3)
