"""The zoo: some of every axis on each run, all of it in the slow one; and that it can fail."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.bench.zoo import bench_zoo, check
from pipeline.zoo.case import Case, Corners
from pipeline.zoo.cases import all_cases, chosen_cases
from pipeline.zoo.check import combing, corners_of
from pipeline.zoo.pictures import moving, other_scene, seeded_corners

EVERY = 12  # of the cases, in the quick test
Corner = tuple[int, int, int]


def test_every_twelfth_case_comes_out_as_it_went_in(tmp_path: Path) -> None:
    cases = all_cases(0)[::EVERY]
    assert len({case.axis for case in cases}) >= 7
    verdicts = check(cases, tmp_path, 0)
    assert {name: wrong for name, wrong in verdicts.wrong.items() if wrong} == {}
    assert len(verdicts.left_out) <= 2


def with_corners(case: Case, corners: Corners) -> Case:
    """The case, its pictures expected otherwise."""
    sources = {
        path: replace(right, scenes=tuple(replace(scene, corners=corners) for scene in right.scenes))
        for path, right in case.sources.items()
    }
    return replace(case, sources=sources)


def test_a_case_that_expects_something_else_is_wrong(tmp_path: Path) -> None:
    corners = seeded_corners(0)
    turned, longer, refused = (chosen_cases("containers/mp4-mpeg4", 0)[0] for _ in range(3))
    turned = with_corners(turned, other_scene(corners))
    ((path, right),) = longer.sources.items()
    longer = replace(longer, sources={path: replace(right, frames=(26, 26), caption="none of it")})
    refused = replace(refused, refused="no such codec")
    for case, words in ((turned, "corners"), (longer, "frames 26"), (refused, "must be refused")):
        wrong = "; ".join(check([case], tmp_path / words.replace(" ", ""), 0).wrong[case.name])
        assert words.split()[0] in wrong or "caption" in wrong


def test_names_of_cases_are_unique_and_many() -> None:
    names = [case.name for case in all_cases(3)]
    assert len(set(names)) == len(names) > 300


def test_corners_and_combs_are_measured() -> None:
    corners = seeded_corners(5)
    first, last = moving(corners)[0], moving(corners)[-1]
    assert corners_of(first) == corners
    woven = first.copy()
    woven[1::2] = last[1::2]
    assert combing(woven) > 60 > combing(first)


@pytest.mark.slow
def test_the_whole_zoo_comes_out_as_it_went_in() -> None:
    result = bench_zoo(seed=1)
    assert result["details"]["wrong"] == {}
    assert result["details"]["cases"] > 300
