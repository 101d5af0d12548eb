"""Copies are joined, different moments are not, and not every pair is looked at."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from pipeline.bench.dedup import bench_dedup
from pipeline.dedup.alignment import align, mirror
from pipeline.dedup.groups import best_of, grouped, perceptual_pairs, same_footage
from pipeline.dedup.moments import candidate_pairs, moments
from pipeline.dedup.print_store import Chunk
from pipeline.dedup.prints import PRINT_SIZE, clip_print
from pipeline.errors import UsageError
from pipeline.media.decode import probe
from pipeline.media.encode import write_video
from pipeline.media.spans import read_span
from pipeline.sandbox.sandbox import DEFAULT_LIMITS

WHOLE = (0.0, 0.0, 1.0, 1.0)


class PrintList:
    """Prints that lie in memory."""

    def __init__(self, prints: Sequence[np.ndarray]) -> None:
        self._prints = prints

    def __len__(self) -> int:
        return len(self._prints)

    def chunks(self) -> Iterator[Chunk]:
        yield np.arange(len(self._prints)), list(self._prints)

    def load(self, numbers: Iterable[int]) -> dict[int, np.ndarray]:
        return {n: self._prints[n] for n in numbers}


def film(seed: int, seconds: float = 4.0, fps: float = 24.0, start_s: float = 0.0) -> np.ndarray:
    """float [N, 384] grids: a few blobs of light that wander over a random background."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[0:16, 0:16] / 16
    back = np.kron(rng.uniform(40, 200, (4, 4)), np.ones((4, 4)))
    chroma = np.kron(rng.uniform(90, 166, (2, 2, 2)), np.ones((1, 4, 4)))
    speeds, phases = rng.uniform(0.3, 1.0, (3, 2)), rng.uniform(0, 6.28, (3, 2))
    frames = []
    for t in start_s + np.arange(round(seconds * fps)) / fps:
        y, x = np.sin(speeds * t + phases).T / 2 + 0.5  # [3] each
        blobs = np.exp(-((row[..., None] - y) ** 2 + (column[..., None] - x) ** 2) / 0.02).sum(axis=2)
        luma = np.clip(back + 80 * blobs, 0, 255)
        frames.append(np.concatenate([luma.ravel(), chroma.ravel()]))
    return np.array(frames)


def printed(frames: np.ndarray, fps: float = 24.0) -> np.ndarray:
    times_s = np.arange(len(frames)) / fps
    return clip_print(np.rint(frames).astype(np.uint8), times_s, len(frames) / fps, WHOLE)


def flip(frames: np.ndarray) -> np.ndarray:
    planes = np.split(frames, (256, 320), axis=1)
    sides = (16, 8, 8)
    return np.concatenate(
        [p.reshape(-1, s, s)[:, :, ::-1].reshape(len(p), -1) for p, s in zip(planes, sides, strict=True)],
        axis=1,
    )


def covered(frames: np.ndarray) -> np.ndarray:
    """A white box in a corner: 2 x 4 of 16 x 16 cells."""
    luma = frames[:, :256].reshape(-1, 16, 16).copy()
    luma[:, 1:3, 1:5] = 235
    return np.concatenate([luma.reshape(len(frames), -1), frames[:, 256:]], axis=1)


def overlaid(frames: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """A checked box over some of 16 x 16 cells; its chroma too."""
    luma = frames[:, :256].reshape(-1, 16, 16).copy()
    luma[:, rows, columns] = np.where(np.indices((16, 16)).sum(axis=0) % 4 < 2, 235, 20)[rows, columns]
    chroma = frames[:, 256:].reshape(-1, 2, 8, 8).copy()
    half_rows, half_columns = (slice(s.start // 2, s.stop // 2) for s in (rows, columns))
    chroma[:, :, half_rows, half_columns] = np.array([200, 70])[:, None, None]
    return np.concatenate([luma.reshape(len(frames), -1), chroma.reshape(len(frames), -1)], axis=1)


def brighter(frames: np.ndarray) -> np.ndarray:
    return np.concatenate([np.clip(frames[:, :256] * 1.1 + 15, 0, 255), frames[:, 256:]], axis=1)


def pairs(*prints: np.ndarray) -> list[tuple[int, int]]:
    table = perceptual_pairs(PrintList(prints))
    return list(zip(table["a"].to_pylist(), table["b"].to_pylist(), strict=True))


def test_a_print_has_four_samples_a_second_whatever_the_frame_rate() -> None:
    fast, slow = film(1, fps=60), film(1, fps=12)
    a, b = printed(fast, 60), printed(slow, 12)
    assert a.shape == b.shape == (16, PRINT_SIZE)
    assert np.abs(a.astype(int) - b).mean() < 2


def test_a_print_shows_the_active_picture_only() -> None:
    frames = film(1)
    luma = frames[:, :256].reshape(-1, 16, 16)
    barred = np.concatenate(
        [np.zeros((len(luma), 4, 16)), luma[:, ::2], np.zeros((len(luma), 4, 16))], axis=1
    )
    times_s = np.arange(len(frames)) / 24
    boxed = np.concatenate([barred.reshape(len(luma), -1), frames[:, 256:]], axis=1).astype(np.uint8)
    inside = clip_print(boxed, times_s, 4.0, (0.0, 0.25, 1.0, 0.75))
    assert align(printed(frames), inside).picture > 0.95


@pytest.mark.parametrize(
    "change",
    [
        brighter,
        covered,
        flip,
        lambda f: f[12:],  # half a second off the start
        lambda f: f[9:-21],
        lambda f: np.clip(f + np.random.default_rng(0).normal(0, 4, f.shape), 0, 255),
    ],
    ids=["brighter", "logo", "mirrored", "trimmed", "trimmed both ends", "noisy"],
)
@pytest.mark.parametrize("seed", range(8))
def test_a_changed_copy_is_found(change: Callable[[np.ndarray], np.ndarray], seed: int) -> None:
    original = film(seed)
    assert pairs(printed(original), printed(film(100)), printed(change(original))) == [(0, 2)]


@pytest.mark.parametrize("seed", range(8))
def test_a_part_of_a_longer_clip_is_found_and_the_whole_stays(seed: int) -> None:
    whole, part = printed(film(seed, seconds=14)), printed(film(seed, seconds=3, start_s=5.4))
    assert pairs(whole, part) == [(0, 1)]
    assert align(whole, part).offset_s == pytest.approx(5.4, abs=0.15)
    assert best_of([0, 1], np.array([14.0, 3.0]), np.array([100.0, 400.0]), np.zeros(2)) == 0


@pytest.mark.parametrize("seed", range(8))
def test_another_moment_under_the_same_camera_is_no_copy(seed: int) -> None:
    now, later = printed(film(seed)), printed(film(seed, start_s=60))
    assert align(now, later).picture > 0.6
    assert same_footage(now, later) is None


OVERLAYS = {
    "top left": (slice(0, 8), slice(0, 10)),
    "bottom right": (slice(6, 16), slice(8, 16)),
    "top": (slice(0, 6), slice(0, 16)),
    "right": (slice(0, 16), slice(10, 16)),
}


@pytest.mark.parametrize("where", OVERLAYS)
@pytest.mark.parametrize("seed", range(4))
def test_a_copy_under_a_large_overlay_is_found(where: str, seed: int) -> None:
    original = film(seed)
    copy = overlaid(film(seed), *OVERLAYS[where])
    assert pairs(printed(original), printed(film(100)), printed(copy)) == [(0, 2)]


@pytest.mark.parametrize("where", OVERLAYS)
def test_the_same_large_overlay_does_not_make_copies(where: str) -> None:
    clips = [printed(overlaid(film(seed), *OVERLAYS[where])) for seed in range(8)]
    assert pairs(*clips) == []
    for seed, clip in enumerate(clips):
        assert same_footage(clips[0], clip, overlaid=True) is None or seed == 0
        later = printed(overlaid(film(seed, start_s=60), *OVERLAYS[where]))  # under the same camera
        assert same_footage(clip, later, overlaid=True) is None


def test_a_still_background_is_no_evidence_beside_an_overlay() -> None:
    back = np.repeat(film(1)[:1], 96, axis=0)
    subjects = (film(2), film(3))
    shots = []
    for subject in subjects:
        luma = back[:, :256].reshape(-1, 16, 16).copy()
        luma[:, 8:, 8:] = subject[:, :256].reshape(-1, 16, 16)[:, 8:, 8:]
        shots.append(printed(np.concatenate([luma.reshape(96, -1), back[:, 256:]], axis=1)))
    assert pairs(*shots) == []
    assert same_footage(*shots, overlaid=True) is None


def test_more_clips_than_a_pair_can_name_are_refused() -> None:
    with pytest.raises(UsageError, match="clip number 1073741824"):
        moments([(np.array([1 << 30]), [printed(film(1))])])


def test_copies_of_a_small_portrait_video_under_a_large_logo(tmp_path: Path) -> None:
    """Two videos, each with a copy; the copies bear the same logo over a fifth of the picture."""
    groups = []
    for name in ("big_buck_bunny_720p.mp4", "nasa_two_streams_180p.mp4"):
        source = Path(__file__).parents[1] / "infra" / "media" / name
        frames = read_span(
            source, np.arange(36) / 12, [0, 0, *portrait(source)], 144, 256, limits=DEFAULT_LIMITS
        )
        logo = frames.copy()
        logo[:, 8:80, 36:] = (240, 40, 60)
        logo[:, 24:64, 52:-16] = 255
        for suffix, pixels in (("base", frames), ("logo", logo)):
            write_video(tmp_path / f"{source.stem}_{suffix}.mp4", pixels, Fraction(12), crf=26)
        groups.append({"base": f"{source.stem}_base.mp4", "members": [{"file": f"{source.stem}_logo.mp4"}]})
    truth = tmp_path / "duplicates.json"
    truth.write_text(json.dumps({"groups": groups}))
    details = bench_dedup(str(tmp_path), str(truth))["details"]
    assert (details["missed"], details["wrong"]) == ([], [])
    assert details["true_pairs"] == 2


def portrait(source: Path) -> tuple[int, int]:
    """Width and height of the upright part at the left of a video, 9:16."""
    info = probe(source)
    return round(info.height * 9 / 16), info.height


def test_mirrored_copies_can_be_left_alone() -> None:
    a = printed(film(1))
    assert perceptual_pairs(PrintList([a, mirror(a)]), mirrored=False).num_rows == 0
    table = perceptual_pairs(PrintList([a, mirror(a)]))
    assert table["mirrored"].to_pylist() == [True]


def test_bars_that_cut_through_cells_leave_no_trace() -> None:
    frames = np.full((24, 384), 128.0)
    luma = frames[:, :256].reshape(-1, 16, 16)
    luma[:] = 200
    luma[:, :3], luma[:, 3], luma[:, 12], luma[:, 13:] = 0, 0.4 * 200, 0.3 * 200, 0
    boxed = clip_print(
        np.rint(frames).astype(np.uint8), np.arange(24) / 24, 1.0, (0.0, 3.6 / 16, 1.0, 12.3 / 16)
    )
    assert np.abs(boxed[:, :144].astype(int) - 200).max() <= 2
    assert (boxed[:, 144:] == 128).all()


def test_equal_prints_are_exact_copies() -> None:
    a = printed(film(1))
    table = perceptual_pairs(PrintList([a, a.copy(), printed(brighter(film(1)))]))
    assert table.sort_by("b")["kind"].to_pylist() == ["exact", "perceptual"]
    assert min(table["distance"].to_pylist()) == 0


def test_still_clips_are_compared_by_picture_and_colour() -> None:
    a = np.repeat(film(1)[:1], 48, axis=0)
    other_colour = np.concatenate([a[:, :256], a[:, 256:] + 30], axis=1)
    moved = np.concatenate(
        [np.roll(a[:, :256].reshape(-1, 16, 16), 2, axis=2).reshape(48, -1), a[:, 256:]], axis=1
    )
    assert pairs(printed(a), printed(brighter(a))) == [(0, 1)]
    assert pairs(printed(a), printed(other_colour)) == []
    assert pairs(printed(a), printed(moved)) == []
    assert pairs(printed(film(1)), printed(a)) == []  # a frozen moment of it


def test_still_clips_that_differ_in_a_small_object_are_no_copies() -> None:
    a = np.repeat(film(1)[:1], 48, axis=0)
    luma = a[:, :256].reshape(-1, 16, 16).copy()
    luma[:, 12:14, 2:4] += 90
    other = np.concatenate([luma.reshape(48, -1), a[:, 256:]], axis=1)
    assert 0.012 < 1 - align(printed(a), printed(other)).picture < 0.03
    assert same_footage(printed(a), printed(other)) is None


def test_behind_an_equal_picture_the_motion_must_agree() -> None:
    back, moving, other = film(1)[:1], film(2), film(3)
    moving, other = ((m - m.mean(axis=0)) * 0.15 for m in (moving, other))
    a, b = printed(back + moving), printed(back + 0.6 * moving + 0.8 * other)
    alignment = align(a, b)
    assert alignment.picture > 0.995
    assert alignment.motion is not None
    assert 0.7 < alignment.motion < 0.95
    assert same_footage(a, b) is None
    assert same_footage(a, printed(back + moving + 0.3)) is not None


def test_pictures_of_other_shapes_are_no_copies() -> None:
    a = printed(film(1))

    def joined(*aspects: float) -> int:
        return perceptual_pairs(PrintList([a, a]), aspects=np.array(aspects)).num_rows

    assert joined(16 / 9, 4 / 3) == 1
    assert joined(21 / 9, 4 / 3) == 0
    assert joined(16 / 9, np.nan) == 1


def test_a_clip_of_one_sample_can_be_aligned() -> None:
    a = printed(film(1))
    with np.errstate(all="raise"):
        assert align(a[4:5], a).picture > 0.9


def test_only_pairs_across_two_sets_can_be_asked_for() -> None:
    a, b = printed(film(1)), printed(film(2))
    table = perceptual_pairs(PrintList([a, a, b, a]), across=2)
    assert table.select(["a", "b"]).to_pylist() == [{"a": 0, "b": 3}, {"a": 1, "b": 3}]


def test_groups_are_what_pairs_connect() -> None:
    assert grouped([(7, 3), (3, 5), (10, 11)]) == [[3, 5, 7], [10, 11]]
    assert grouped([]) == []


def test_the_candidates_do_not_depend_on_chunks_or_order() -> None:
    prints = [printed(film(seed % 9, seconds=2)) for seed in range(18)]
    numbers = np.arange(18)
    whole = candidate_pairs(moments([(numbers, prints)]))
    cut = [(numbers[9:], prints[9:]), (numbers[:9], prints[:9]), (numbers[:0], [])]
    assert np.array_equal(candidate_pairs(moments(cut)), whole)
    assert {(a, a + 9) for a in range(9)} <= {(a, b) for a, b, _, _ in whole.tolist()}


def test_work_grows_with_look_alikes_not_with_the_square() -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3000, 6, 6), dtype=np.uint8).repeat(2, axis=1).repeat(2, axis=2)
    strangers = [np.concatenate([p.ravel(), np.full(32, 128, np.uint8)])[None] for p in coarse]
    assert len(candidate_pairs(moments([(np.arange(3000), strangers)]))) < 3000
    crowd = [strangers[0]] * 3000
    assert len(candidate_pairs(moments([(np.arange(3000), crowd)]))) < 30 * 3000
    assert len(grouped(pairs(*crowd))[0]) == 3000


def test_no_clips_no_pairs() -> None:
    assert pairs() == []


@pytest.mark.slow
def test_real_copies(media_dir: Path) -> None:
    """Every kind of copy is found, and no hard negative is joined."""
    details = bench_dedup(str(media_dir / "dups"), str(media_dir / "truth" / "duplicates.json"))["details"]
    assert (details["missed"], details["wrong"]) == ([], [])
    assert details["true_pairs"] > 100
