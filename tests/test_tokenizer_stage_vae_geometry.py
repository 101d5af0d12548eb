"""The pixels and moments the VAE sees: inside the budget, on the grid, hardly cropped, never stretched."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import MediaError
from tokenizer_stage.vae.geometry import frame_rate, frame_times, target_geometry

SIDES = st.integers(32, 4096)
AREAS = st.sampled_from([96 * 64, 256 * 160, 832 * 480])


@given(width=SIDES, height=SIDES, area_px=AREAS)
def test_target_is_on_the_grid_within_the_budget_and_never_larger_than_the_picture(
    width: int, height: int, area_px: int
) -> None:
    if max(width, height) > 8 * min(width, height):
        return
    target = target_geometry(width, height, area_px)
    x, y, crop_width, crop_height = target.crop
    assert target.width_px % 8 == 0
    assert target.height_px % 8 == 0
    assert target.width_px * target.height_px <= area_px
    assert x >= 0
    assert y >= 0
    assert x + crop_width <= width
    assert y + crop_height <= height
    assert target.width_px <= crop_width + 1
    assert target.height_px <= crop_height + 1
    stretch = (target.width_px / crop_width) / (target.height_px / crop_height)
    assert abs(stretch - 1) <= 1 / min(crop_width, crop_height)  # whole pixels only


@given(width=st.integers(160, 4096), height=st.integers(160, 4096))
def test_pictures_up_to_4_to_1_lose_at_most_a_few_per_cent(width: int, height: int) -> None:
    if max(width, height) > 4 * min(width, height):
        return
    target = target_geometry(width, height, 96 * 64)
    kept = target.crop[2] * target.crop[3] / (width * height)
    assert kept >= 0.93
    assert target.width_px * target.height_px >= 0.62 * 96 * 64


def test_a_picture_that_fits_is_not_touched() -> None:
    target = target_geometry(96, 64, 96 * 64)
    assert (target.width_px, target.height_px, target.crop) == (96, 64, (0, 0, 96, 64))


def test_turning_the_picture_turns_the_target() -> None:
    wide, tall = target_geometry(1920, 1080, 96 * 64), target_geometry(1080, 1920, 96 * 64)
    assert (wide.width_px, wide.height_px) == (tall.height_px, tall.width_px)


def test_a_picture_below_the_stride_is_refused() -> None:
    with pytest.raises(MediaError, match="7×40"):
        target_geometry(7, 40, 96 * 64)


@given(
    start_s=st.floats(0, 1000),
    length_s=st.floats(0.01, 30),
    fps=st.sampled_from([8.0, 12.0, 24000 / 1001]),
    limit=st.sampled_from([1, 5, 17, 81]),
)
def test_times_are_1_plus_4k_evenly_spaced_inside_the_span(
    start_s: float, length_s: float, fps: float, limit: int
) -> None:
    times = frame_times(start_s, start_s + length_s, fps, limit)
    assert len(times) % 4 == 1
    assert len(times) <= limit
    assert times[0] == start_s
    assert times[-1] < start_s + length_s
    assert all(abs(b - a - 1 / fps) < 1e-6 for a, b in itertools.pairwise(times))
    more = len(times) + 4  # four more would not fit
    assert more > limit or start_s + (more - 1) / fps >= start_s + length_s - 1e-5


def test_a_clip_without_room_for_five_frames_is_an_image() -> None:
    assert frame_times(3.0, 3.5, 8.0, 17) == [3.0]
    assert len(frame_times(3.0, 3.51, 8.0, 17)) == 5


def test_the_rate_is_never_above_the_clips_own() -> None:
    assert frame_rate(8.0, 5.0) == 5.0
    assert frame_rate(8.0, 30.0) == 8.0
    assert frame_rate(8.0, None) == 8.0
