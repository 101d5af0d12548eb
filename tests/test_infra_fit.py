"""The fit of the shot models: montages hold what their truth says; the fit finds weights that it should."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from infra.fit.described import Described
from infra.fit.footage import Take
from infra.fit.labelled import CUT, DISSOLVE, NEITHER, cut_table, span_table
from infra.fit.logistic import fit_logistic
from infra.fit.montages import Join, Montage, PlannedShot, plan, render, truth
from infra.fit.pictures import Look
from infra.fit.shots import source
from pipeline.bench.shots import Truth
from pipeline.shots import weights
from pipeline.shots.descriptor import descriptors
from pipeline.shots.logistic import fields, probability
from pipeline.shots.weights import MODELS

PLAIN = Look(
    box_start=(0.5, 0.5, 1.0),
    box_end=(0.5, 0.5, 1.0),
    shake=0.0,
    shake_seed=0,
    mirrored=False,
    bars=False,
    gain=1.0,
    lift=0.0,
    saturation=1.0,
)


def take(seed: int, frames: int = 90) -> Take:
    """Large patches that do not move."""
    rng = np.random.default_rng(seed)
    patches = np.kron(rng.uniform(20, 235, (4, 6, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    pixels = np.repeat(patches[None], frames, axis=0)  # [T, 64, 96, 3]
    return Take(file=f"take{seed}", first=0, end=frames, fps=25.0, pixels=pixels)


def montage(*joins: Join) -> Montage:
    shots = tuple(
        PlannedShot(take=take(k), start=20, rate=1.0, frames=30, look=PLAIN) for k in range(len(joins) + 1)
    )
    return Montage(
        name="m.mp4",
        size_px=(96, 64),
        fps=Fraction(25),
        crf=20,
        shots=shots,
        joins=joins,
        fade_in=0,
        fade_out=0,
    )


def described(edited: Montage) -> Described:
    row = truth(edited)
    frames = np.stack(list(render(edited)))
    y, u, v = frames[..., 0], frames[:, ::2, ::2, 1], frames[:, ::2, ::2, 2]
    spans = tuple((a, b) for a, b in row["gradual"])
    return Described(
        frames=descriptors(y, u, v),
        fps=25.0,
        truth=Truth(file="m", hard=tuple(row["hard_cuts"]), gradual=spans, ignored=()),
        kinds=tuple(row["gradual_kinds"]),
    )


@pytest.mark.parametrize("index", range(12))
def test_a_montage_has_the_frames_that_its_truth_counts(index: int) -> None:
    edited = plan([take(k, frames) for k, frames in enumerate((200, 40, 1, 120))], "fit", index)
    row = truth(edited)
    assert sum(1 for _ in render(edited)) == row["frames"]
    covered = [f for s in row["shots"] for f in range(s["start"], s["end"] + 1)]
    covered += [f for a, b in row["gradual"] for f in range(a, b + 1)]
    assert sorted(covered) == list(range(row["frames"]))


def test_a_montage_changes_where_its_truth_says() -> None:
    edited = montage(Join(kind="cut"), Join(kind="dissolve", frames=8))
    frames = np.stack(list(render(edited))).astype(int)
    changed = np.flatnonzero(np.abs(np.diff(frames, axis=0)).max(axis=(1, 2, 3)) > 0) + 1
    row = truth(edited)
    ((start, last),) = row["gradual"]
    assert changed.tolist() == [*row["hard_cuts"], *range(start, last + 2)]


def test_a_montage_is_the_same_every_time() -> None:
    takes = [take(k) for k in range(3)]
    assert truth(plan(takes, "fit", 4)) == truth(plan(takes, "fit", 4)) != truth(plan(takes, "fit", 5))


def test_labels_follow_the_truth() -> None:
    video = described(montage(Join(kind="cut"), Join(kind="dissolve", frames=12)))
    assert cut_table([video]).label.tolist().count(CUT) == 1
    spans = span_table([video], MODELS)
    assert DISSOLVE in spans.label
    unedited = described(montage())
    assert set(span_table([unedited], MODELS).label) <= {NEITHER}


def test_a_fit_finds_the_weights_that_the_labels_come_from() -> None:
    rng = np.random.default_rng(0)
    rows = np.empty(20_000, fields("a", "b"))
    rows["a"], rows["b"] = rng.normal(3, 2, 20_000), rng.normal(-1, 0.5, 20_000)
    true = {"constant": 1.0, "a": -0.8, "b": 2.0}
    labels = rng.random(20_000) < probability(rows, true)
    fitted = fit_logistic(rows, labels, np.ones(20_000), 1.0)
    assert list(fitted) == list(true)
    assert all(abs(fitted[name] - true[name]) < 0.15 for name in true)


def test_a_fit_of_labels_that_split_stays_finite() -> None:
    rows = np.zeros(100, fields("a"))
    rows["a"] = np.arange(100)
    fitted = fit_logistic(rows, np.arange(100) >= 50, np.ones(100), 1.0)
    assert np.isfinite(list(fitted.values())).all()
    assert ((probability(rows, fitted) > 0.5) == (np.arange(100) >= 50)).all()


def test_weights_are_written_as_they_stand_in_the_code() -> None:
    assert source(MODELS) == Path(weights.__file__).read_text()
