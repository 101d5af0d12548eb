"""Mutations of real files cost at most themselves."""

from pathlib import Path

import pytest

from pipeline.bench.fuzz import MUTATIONS, bench_fuzz, mutate
from pipeline.errors import UsageError


def test_a_seed_makes_one_mutant_and_another_seed_another() -> None:
    data = bytes(range(256)) * 20
    made = [mutate(data, seed) for seed in range(60)]
    assert made == [mutate(data, seed) for seed in range(60)]
    assert len({changed for changed, _ in made}) > 50
    assert {name for _, how in made for name in how.split("+")} == {m.__name__.strip("_") for m in MUTATIONS}


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_the_smallest_files_can_be_mutated(size: int) -> None:
    for seed in range(200):
        mutate(bytes(size), seed)


def test_forty_mutants_neither_crash_nor_hang_nor_swell(media_dir: Path) -> None:
    details = bench_fuzz(str(media_dir), 40, 3)["details"]
    assert sum(details["outcomes"].values()) == 40
    assert details["within_limits"], details
    assert details["costly"] == []
    assert len(details["outcomes"]) == 3  # some pass, some are salvaged, some refused


def test_nothing_to_mutate_is_said(tmp_path: Path) -> None:
    (tmp_path / "large.mp4").write_bytes(bytes(400_000))
    with pytest.raises(UsageError, match="no media file"):
        bench_fuzz(str(tmp_path), 1, 0)
