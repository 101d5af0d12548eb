"""The sample is fair, and the ranges hold the truth as often as they say."""

from collections import Counter

import numpy as np
import pytest

from pipeline.config import PricesConfig
from pipeline.engine.stage import Resources
from pipeline.errors import UsageError
from pipeline.forecast.comparison import figure, held
from pipeline.forecast.estimates import DRAWS, NONE, Draws, noise, range_of, student, totals
from pipeline.forecast.fleet import Fleet, Work, clock_hours
from pipeline.forecast.headers import Header
from pipeline.forecast.sample import SPAN_S, STILLS, drawn, units_of


def video(name: str, length_s: float, *, may_be_cut: bool = True) -> Header:
    return Header(
        source_key=name,
        uri=f"/raw/{name}.mp4",
        size_bytes=1000,
        kind="video",
        width=640,
        height=360,
        length_s=length_s,
        fps=25.0,
        may_be_cut=may_be_cut,
    )


def still(name: str) -> Header:
    return Header(source_key=name, uri=f"/raw/{name}.jpg", size_bytes=10, kind="image", width=640, height=480)


LENGTHS = [2.0, 3.5, 600.0, 7.0, 16.0, 40.0]
FOOTAGE = [video(f"v{n}", length) for n, length in enumerate(LENGTHS)]


@pytest.mark.parametrize("length_s", [0.0, 1.0, SPAN_S, SPAN_S * 1.05, 47.0, 3600.0])
def test_units_are_the_whole_source_and_none_is_much_longer_than_a_span(length_s: float) -> None:
    units = units_of(video("a", length_s), cut=True)
    assert sum(unit.seconds for unit in units) == pytest.approx(length_s)
    assert all(unit.seconds <= SPAN_S * 1.1 + 1e-9 for unit in units)
    assert len({unit.key for unit in units}) == len(units) == units[0].pieces


@pytest.mark.parametrize("header", [video("a", 600.0, may_be_cut=False), still("b")])
def test_what_cannot_be_sought_is_one_unit(header: Header) -> None:
    assert [unit.pieces for unit in units_of(header, cut=True)] == [1]


def test_every_unit_has_the_same_chance_whatever_its_source_is() -> None:
    """Of 24 units a draw takes some eight: one in the film of ten minutes as often as a short video."""
    short, film = [video(f"s{n}", 12.0) for n in range(20)], video("film", 300.0)
    times: Counter[str] = Counter()
    sizes = []
    for seed in range(600):
        units = drawn([*short, film], 120.0, seed, cut=True)
        times.update(unit.key for unit in units)
        sizes.append(len(units))
    assert len(times) == 40
    expected = np.mean(sizes) * 600 / 40
    assert min(times.values()) > 0.7 * expected
    assert max(times.values()) < 1.3 * expected


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("budget_s", [60.0, 120.0, 300.0])
def test_the_budget_is_kept_and_a_seed_says_which_sample(budget_s: float, seed: int) -> None:
    units = drawn(FOOTAGE, budget_s, seed, cut=True)
    assert units == drawn(FOOTAGE[::-1], budget_s, seed, cut=True)
    assert budget_s / 2 < sum(unit.seconds for unit in units) < budget_s * 1.3


def test_the_budget_is_kept_on_average() -> None:
    seconds = [sum(u.seconds for u in drawn(FOOTAGE, 120.0, seed, cut=True)) for seed in range(200)]
    assert 100 < np.mean(seconds) <= 120


def test_few_units_are_three_and_stills_are_bounded() -> None:
    units = drawn([*FOOTAGE, *(still(f"i{n:03d}") for n in range(200))], 1.0, 0, cut=True)
    kinds = Counter(unit.header.kind for unit in units)
    assert kinds == {"video": 3, "image": STILLS}


def test_a_source_longer_than_the_budget_that_cannot_be_cut_is_left_out() -> None:
    uncut = video("uncut", 600.0, may_be_cut=False)
    assert all(
        unit.header != uncut for seed in range(20) for unit in drawn([*FOOTAGE, uncut], 60.0, seed, cut=True)
    )
    assert all(unit.seconds <= 60 for unit in drawn(FOOTAGE, 60.0, 1, cut=False))


@pytest.mark.parametrize("n", [10, 15, 40])
def test_nine_of_ten_ranges_hold_the_truth(n: int) -> None:
    """Clips a second over units of many lengths, drawn from a population of 120."""
    world = np.random.default_rng(1)
    seconds = world.uniform(1, 16, 120)
    cuts = world.poisson(seconds * world.gamma(4.0, 0.05, 120))
    truth = cuts.sum() / seconds.sum()
    hits = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        some = rng.choice(120, n, replace=False)
        span = range_of(Draws(n, 120, rng).ratio(cuts[some], seconds[some], ghost="events"))
        hits += span.low <= truth <= span.high
    assert 0.85 < hits / 300 < 0.97


def test_a_sample_of_all_is_sure_and_one_of_few_is_not() -> None:
    rng = np.random.default_rng(0)
    seconds, clips = np.arange(1.0, 21.0), np.arange(20.0)
    widths = []
    for n in (5, 10, 20):
        span = range_of(Draws(n, 20, rng).ratio(clips[:n], seconds[:n]))
        widths.append(span.high - span.low)
    assert widths[0] > widths[1] > widths[2] == 0.0


def test_where_the_sample_has_no_rejected_clip_others_still_may() -> None:
    rng = np.random.default_rng(0)
    span = range_of(Draws(10, 1000, rng).ratio([1.0] * 10, [1.0] * 10, ghost="share", most=1.0))
    assert span.value == span.high == 1.0
    assert 0.6 < span.low < 0.95
    none = range_of(Draws(10, 1000, rng).ratio([0.0] * 10, [5.0] * 10, ghost="events"))
    assert none.value == none.low == 0.0
    assert none.high > 0.01


def test_one_unit_alone_makes_a_wide_range() -> None:
    span = range_of(Draws(1, 1000, np.random.default_rng(0)).ratio([3.0], [10.0], ghost="double"))
    assert span.low < 0.15 < 0.45 < span.high


@pytest.mark.parametrize(("freedom", "exact"), [(3, 2.353), (5, 2.015), (10, 1.812), (100, 1.660)])
def test_student(freedom: int, exact: float) -> None:
    assert student(freedom) == pytest.approx(exact, rel=0.02)


def test_the_noise_of_a_machine_spreads_what_the_sample_is_sure_of() -> None:
    span = range_of(100 * noise(np.random.default_rng(0)))
    assert span.value == 100
    assert 80 < span.low < 95 < 105 < span.high < 120


def test_totals_of_all_headers_are_sums_and_of_some_of_them_ranges() -> None:
    headers = [*FOOTAGE, still("i"), Header(source_key="x", uri="x", size_bytes=5)]
    gigabytes = sum(h.size_bytes for h in headers) / 1e9
    exact = totals(headers, len(headers), gigabytes, np.random.default_rng(0))
    assert exact["video"].seconds == pytest.approx(np.full(DRAWS + 1, sum(LENGTHS)))
    assert exact["video"].sources == pytest.approx(NONE + 6)
    assert exact["image"].sources == pytest.approx(NONE + 1)
    double = totals(headers, 2 * len(headers), 2 * gigabytes, np.random.default_rng(0))
    span = range_of(double["video"].seconds)
    assert span.value == pytest.approx(2 * sum(LENGTHS))
    assert span.low < 0.8 * span.value < 1.2 * span.value < span.high


def test_rounding_never_moves_the_truth_out_of_a_range() -> None:
    figures = range_of(np.array([5.26, 5.21, 5.29])).as_dict(1)
    assert figures == {"value": 5.3, "low": 5.2, "high": 5.3}


def test_clock_and_money_follow_the_nodes() -> None:
    works = {
        "analyze": Work(worker_s=NONE + 7200.0, load_s=3.6, resources=Resources(cpus=1)),
        "caption": Work(worker_s=NONE + 3600.0, load_s=36.0, resources=Resources(cpus=4, gpus=0.5)),
    }
    prices = PricesConfig(cpu_hour=0.05, gpu_hour=2.0)
    fleet = Fleet(nodes=2, node_cpus=8, node_gpus=1, prices=prices)
    assert [fleet.workers(work.resources) for work in works.values()] == [16, 4]
    assert clock_hours(works, fleet)[0] == pytest.approx(2 / 16 + 1 / 4 + 39.6 / 3600)
    assert fleet.hour == pytest.approx(2 * (8 * 0.05 + 2.0))
    with pytest.raises(UsageError, match="no node has 1 CPUs and 2 GPUs"):
        fleet.workers(Resources(gpus=2))
    with pytest.raises(UsageError, match="0 nodes"):
        Fleet(nodes=0)


def test_the_bench_counts_the_ranges_that_hold_the_truth() -> None:
    plan = {
        "clips": {"value": 9, "low": 5, "high": 12},
        "cpu_s": {"encode": {"value": 1, "low": 1, "high": 2}},
    }
    assert held(5, [figure(plan, "clips")] * 2)["held"] == 2
    assert held(12.1, [figure(plan, "clips")])["held"] == 0
    assert held(2, [figure(plan, "cpu_s.encode")])["held"] == 1
    assert held(0, [figure(plan, "cpu_s.caption")])["held"] == 0  # unknown
