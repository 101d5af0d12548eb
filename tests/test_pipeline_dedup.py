"""Copies are joined, different moments are not, and not every pair is looked at."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.config import AnalyzeConfig, JudgeConfig
from pipeline.dedup import candidate_pairs, clip_distance, duplicate_groups, same_colours
from pipeline.fingerprint import block_mean, hamming, perceptual_hash
from pipeline.sandbox import Sandbox

COLOURS = [128] * 32


def picture(seed: int) -> np.ndarray:
    """uint8 [90, 160, 3]: smooth random shapes."""
    small = np.random.default_rng(seed).uniform(0, 255, (9, 16, 3))
    return np.kron(small, np.ones((10, 10, 1))).astype(np.uint8)


def clip(seed: int, count: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


def groups(*clips: np.ndarray) -> list[list[int]]:
    return duplicate_groups(clips, [COLOURS] * len(clips), JudgeConfig().phash_distance)


def test_a_hash_survives_scaling_and_brightness_and_tells_pictures_apart() -> None:
    a = picture(1)
    assert hamming(perceptual_hash(a), perceptual_hash(a[::2, ::2])) <= 6
    assert hamming(perceptual_hash(a), perceptual_hash((a * 0.8 + 20).astype(np.uint8))) <= 2
    assert 18 <= hamming(perceptual_hash(a), perceptual_hash(picture(2))) <= 46
    assert hamming(perceptual_hash(a), perceptual_hash(a[:, ::-1])) >= 14


def test_block_means_keep_the_mean() -> None:
    plane = np.random.default_rng(0).uniform(0, 255, (64, 96))
    assert np.isclose(block_mean(plane, 16, 16).mean(), plane.mean())


def test_copies_join_and_strangers_do_not() -> None:
    a, b = clip(1), clip(2)
    assert groups(a, b, a ^ np.uint64(0b1001), b[::-1]) == [[0, 2], [1, 3]]
    assert groups(a, b) == []


def test_a_chain_of_copies_is_one_group() -> None:
    a = clip(1)
    chain = [a ^ np.uint64(sum(1 << (7 * k) for k in range(n))) for n in range(0, 9, 2)]
    assert all(clip_distance(x, y) <= 2 for x, y in pairwise(chain))
    assert groups(*chain) == [[0, 1, 2, 3, 4]]


def test_one_moment_of_a_moving_clip_is_no_copy_of_it() -> None:
    moving = clip(1)
    assert groups(moving, np.repeat(moving[:1], 8)) == []


def test_other_colours_are_no_copy() -> None:
    a = clip(1)
    assert duplicate_groups([a, a], [COLOURS, [*[150] * 16, *[100] * 16]], 4.8) == []
    assert same_colours(COLOURS, [*COLOURS[:30], 200, 20])  # a logo covers two cells


def test_work_grows_with_look_alikes_not_with_the_square() -> None:
    strangers = [clip(seed) for seed in range(2000)]
    assert len(candidate_pairs(strangers)) < 2000
    assert len(candidate_pairs([clip(1, 1)] * 3000)) < 20 * 3000
    assert len(groups(*[clip(1, 1)] * 3000)[0]) == 3000


def test_no_clips_no_groups() -> None:
    assert groups() == []


def test_real_copies(media_dir: Path) -> None:
    """All kinds of copies but crops of 4 % a side are found, and no hard negative is joined."""
    truth = json.loads((media_dir / "truth" / "duplicates.json").read_text())
    files = sorted((media_dir / "dups").iterdir())
    with Sandbox() as box:
        clips = [box.analyze(file, AnalyzeConfig()).clips for file in files]
    assert all(len(c) == 1 for c in clips)
    found = duplicate_groups(
        [np.array(c[0]["phash"], np.uint64) for c in clips],
        [c[0]["colour"] for c in clips],
        JudgeConfig().phash_distance,
    )
    group_of = {files[i].name: n for n, members in enumerate(found) for i in members}
    assert not any(name.startswith("neg") for name in group_of)
    assert len(found) == len(truth["groups"])
    missed = {
        Path(member["file"]).name
        for group in truth["groups"]
        for member in group["members"]
        if member["expect"] == "duplicate"
        and group_of.get(Path(member["file"]).name) != group_of[Path(group["base"]).name]
    }
    assert missed == {f"{name}_crop4.mp4" for name in ("bird", "drone", "haircut", "street")}
