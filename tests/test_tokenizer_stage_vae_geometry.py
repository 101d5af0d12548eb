"""The pixels and moments the VAE sees: inside the budget, on the grid, hardly cropped, never stretched."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import EncodeConfig
from pipeline.errors import ConfigError, MediaError
from tokenizer_stage.vae.geometry import (
    MAX_STRETCH,
    Counts,
    Geometry,
    Sides,
    VaeShape,
    causal_shape,
    frame_rate,
    frame_times,
    square_cells,
    target_geometry,
)
from tokenizer_stage.vae.spans import span_of

SIDES = st.integers(32, 4096)
AREAS = st.sampled_from([96 * 64, 256 * 160, 832 * 480])
CELLS = st.sampled_from([8, 16, 32])
CAUSAL = Counts(first=1, step=4)
TILED = VaeShape(  # as one that knows only tiles of a fixed size: Allegro
    channels=4,
    stride_t=4,
    stride_s=8,
    frames=Counts(first=24, step=16),
    sides=Sides(width=Counts(first=320, step=240), height=Counts(first=320, step=200)),
)


@given(first=st.integers(1, 40), step=st.integers(1, 40), unit=st.integers(1, 16))
def test_counts_are_what_they_say(first: int, step: int, unit: int) -> None:
    counts = Counts(first=first, step=step)
    members = [n for n in range(300) if n in counts]
    assert members == [first + step * k for k in range(300) if first + step * k < 300]
    assert list(counts.up_to(299)) == members
    for limit in (first - 1, first, 150, 299):
        assert counts.at_most(limit) == max((n for n in members if n <= limit), default=0)
    below_and_above = counts.near(150.5)
    assert below_and_above[0] <= 150.5 < below_and_above[-1] or below_and_above == (first,)
    multiples = [n for n in range(2000) if n in counts and n % unit == 0]
    if math.gcd(step, unit) == 1 or first % math.gcd(step, unit) == 0:
        assert list(counts.in_multiples_of(unit).up_to(1999)) == multiples
    else:
        with pytest.raises(ConfigError, match="multiple"):
            counts.in_multiples_of(unit)


@given(width=SIDES, height=SIDES, area_px=AREAS, cell=CELLS)
def test_target_is_on_the_grid_within_the_budget_and_never_larger_than_the_picture(
    width: int, height: int, area_px: int, cell: int
) -> None:
    try:
        target = target_geometry(width, height, area_px, square_cells(cell))
    except MediaError:  # no row of whole cells as long as this picture fits into the budget
        assert max(width, height) // min(width, height) * cell**2 > area_px
        return
    x, y, crop_width, crop_height = target.crop
    assert target.width_px % cell == 0
    assert target.height_px % cell == 0
    assert target.width_px * target.height_px <= area_px
    assert 0 <= x <= x + crop_width <= width
    assert 0 <= y <= y + crop_height <= height
    assert target.width_px <= crop_width
    assert target.height_px <= crop_height
    stretch = (target.width_px / crop_width) / (target.height_px / crop_height)
    assert abs(stretch - 1) <= MAX_STRETCH + 1e-9
    scale = max(target.width_px / width, target.height_px / height)  # that just covers the target
    rounding_px = 2 * scale + MAX_STRETCH * max(target.width_px, target.height_px)
    assert (width - crop_width) * scale <= cell + rounding_px
    assert (height - crop_height) * scale <= cell + rounding_px


@given(width=st.integers(160, 4096), height=st.integers(160, 4096))
def test_pictures_up_to_4_to_1_lose_at_most_a_few_per_cent(width: int, height: int) -> None:
    if max(width, height) > 4 * min(width, height):
        return
    target = target_geometry(width, height, 96 * 64, square_cells(8))
    kept = target.crop[2] * target.crop[3] / (width * height)
    assert kept >= 0.93
    assert target.width_px * target.height_px >= 0.62 * 96 * 64
    real = target_geometry(4 * width, 4 * height, 832 * 480, square_cells(16))
    assert real.crop[2] * real.crop[3] / (16 * width * height) >= 0.965
    assert real.width_px * real.height_px >= 0.85 * 832 * 480


@pytest.mark.parametrize("cell", [8, 16])
def test_a_picture_that_fits_is_not_touched(cell: int) -> None:
    target = target_geometry(96, 64, 96 * 64, square_cells(cell))
    assert target == Geometry(width_px=96, height_px=64, crop=(0, 0, 96, 64))


def test_turning_the_picture_turns_the_target() -> None:
    for cell in (8, 16):
        wide = target_geometry(1920, 1080, 96 * 64, square_cells(cell))
        tall = target_geometry(1080, 1920, 96 * 64, square_cells(cell))
        assert (wide.width_px, wide.height_px) == (tall.height_px, tall.width_px)


def test_a_picture_below_one_cell_or_too_long_for_the_budget_is_refused() -> None:
    for width, height in ((7, 40), (4000, 40)):
        with pytest.raises(MediaError, match=f"{width}×{height}"):
            target_geometry(width, height, 16 * 16, square_cells(8))


def test_a_vae_of_fixed_tiles_gets_a_size_that_they_cover() -> None:
    target = target_geometry(1920, 1080, 1280 * 720, TILED.sides.on_grid(8 * 2))
    assert (target.width_px, target.height_px) == (1280, 720)
    with pytest.raises(MediaError, match=r"320 \+ 240k"):
        target_geometry(300, 300, 1280 * 720, TILED.sides)


@given(
    start_s=st.floats(0, 1000),
    length_s=st.floats(0.01, 30),
    fps=st.sampled_from([8.0, 12.0, 24000 / 1001]),
    limit=st.sampled_from([1, 5, 17, 81]),
    step=st.sampled_from([1, 4, 6, 8]),
)
def test_times_are_of_the_vaes_counts_evenly_spaced_inside_the_span(
    start_s: float, length_s: float, fps: float, limit: int, step: int
) -> None:
    times = frame_times(start_s, start_s + length_s, fps, limit, Counts(first=1, step=step))
    assert (len(times) - 1) % step == 0
    assert len(times) <= limit
    assert times[0] == start_s
    assert times[-1] < start_s + length_s
    assert all(abs(b - a - 1 / fps) < 1e-6 for a, b in itertools.pairwise(times))
    more = len(times) + step  # as many more would not fit
    assert more > limit or start_s + (more - 1) / fps >= start_s + length_s - 1e-5


def test_a_clip_without_room_for_five_frames_is_an_image() -> None:
    assert frame_times(3.0, 3.5, 8.0, 17, CAUSAL) == [3.0]
    assert len(frame_times(3.0, 3.51, 8.0, 17, CAUSAL)) == 5


def test_a_clip_too_short_for_a_vae_without_images_is_refused() -> None:
    with pytest.raises(MediaError, match=r"16 frames.*24 \+ 16k"):
        frame_times(0.0, 2.0, 8.0, 81, TILED.frames)
    assert len(frame_times(0.0, 20.0, 8.0, 81, TILED.frames)) == 72


def test_the_rate_is_never_above_the_clips_own() -> None:
    assert frame_rate(8.0, 5.0) == 5.0
    assert frame_rate(8.0, 30.0) == 8.0
    assert frame_rate(8.0, None) == 8.0


def test_a_rate_of_0_is_the_clips_own_where_it_is_known() -> None:
    assert frame_rate(0.0, 24000 / 1001) == 24000 / 1001
    for unknown in (None, 0.0):
        with pytest.raises(MediaError, match="rate"):
            frame_rate(0.0, unknown)


@given(frames=st.integers(1, 200), stride_t=st.sampled_from([1, 4, 6, 8]))
def test_frames_and_latent_steps_are_each_others_inverse(frames: int, stride_t: int) -> None:
    shape = causal_shape(channels=4, stride_t=stride_t, stride_s=8)
    count = shape.frames.at_most(frames)
    assert shape.frames_of(shape.latent(count, 8, 8)[1]) == count
    assert TILED.frames_of(TILED.latent(40, 320, 320)[1]) == 40
    assert TILED.frames_of(7) == 0


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_a_set_has_whole_patches(patch: int) -> None:
    row = {"crop": [10, 20, 1280, 544], "start_s": 1.0, "end_s": 4.0, "fps": 24.0}
    shape = causal_shape(channels=16, stride_t=4, stride_s=8)
    span = span_of(row, EncodeConfig(area_px=832 * 480, patch=patch, fps=0.0), shape)
    _, steps, rows, columns = shape.latent(len(span.times_s), span.height_px, span.width_px)
    assert (rows % patch, columns % patch, steps, span.fps) == (0, 0, 5, 24.0)
    assert span.crop[0] >= 10
    assert span.crop[1] >= 20
