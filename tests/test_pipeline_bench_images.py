"""The bench of many small images: what it makes, and that its figures are of the whole analysis."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.bench.images import bench_images, lines, make_images
from pipeline.errors import UsageError


def test_the_figures_are_of_all_images_and_of_the_whole_analysis() -> None:
    result = bench_images(30, 48, 36)
    details = result["details"]
    assert result["ratio"] == pytest.approx(
        details["cpu_ms_an_image"] / details["bare_cpu_ms_an_image"], rel=0.05
    )
    assert details["images"] == 30
    assert details["cpu_ms_an_image"] > 3 * details["bare_cpu_ms_an_image"] > 0
    assert details["files"] >= 6  # four tables, filmstrips, inputs
    assert any("30 images of 48x36" in line for line in lines(result))


def test_the_images_are_all_others_and_the_same_for_a_seed(tmp_path: Path) -> None:
    size_bytes = make_images(tmp_path / "a", 5, 48, 36, seed=1)
    make_images(tmp_path / "b", 5, 48, 36, seed=1)
    ours, theirs = ([p.read_bytes() for p in sorted((tmp_path / n).rglob("*.jpg"))] for n in ("a", "b"))
    assert ours == theirs
    assert len(set(ours)) == 5
    assert sum(map(len, ours)) == size_bytes
    assert Image.open(tmp_path / "a" / "0000" / "0000000.jpg").size == (48, 36)


def test_no_image_is_wrong_use() -> None:
    with pytest.raises(UsageError, match="0 images of 96x72"):
        bench_images(0, 96, 72)
