"""Every reason is kept, failures stay failures, what was not measured is not held against a clip."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import SHORT_RULES, Config, JudgeConfig, load_config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.dedup.groups import PAIRS
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import ConfigError
from pipeline.progress import silent
from pipeline.rule_grammar import rules_of
from pipeline.settings import build, to_toml
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.stages.judge import STEPS, judge, judge_corpus, what_if, what_if_lines
from pipeline.stages.rules import PRESETS, resolved

GOOD = {
    "motion": 0.1,
    "camera_motion": 0.0,
    "sharpness": 0.1,
    "luma": 0.5,
    "contrast": 0.2,
    "saturation": 0.2,
    "static_ratio": 0.0,
    "text_area": None,
    "black_ratio": 0.0,
    "flicker": 0.001,
}


def clip(number: int, **changes: Any) -> dict[str, Any]:
    signals = GOOD | changes.pop("signals", {})
    row = {
        "clip_id": f"{number:016x}-0-2000",
        "source_id": f"{number:016x}",
        "kind": "video",
        "start_s": 0.0,
        "end_s": 2.0,
        "crop": [0, 0, 320, 180],
        "width": 320,
        "height": 180,
        "signals": signals,
        "status": "ok",
    }
    return row | changes


def copies(*joined: tuple[int, int]) -> pa.Table:
    """Pairs of row numbers that show the same."""
    rows = [{"a": a, "b": b, "kind": "perceptual", "mirrored": False, "distance": 0.1} for a, b in joined]
    return pa.Table.from_pylist(rows, schema=PAIRS)


def verdicts(*rows: dict[str, Any], pairs: pa.Table | None = None, **config: Any) -> list[dict[str, Any]]:
    """Judged rows; short names of rules, such as min_s, are understood."""
    judged = judge(tables.from_rows(rows, tables.CLIPS), build(JudgeConfig, config), pairs).judged
    assert judged.schema == tables.JUDGED
    return judged.to_pylist()


def test_a_good_clip_is_kept() -> None:
    (row,) = verdicts(clip(1))
    assert (row["status"], row["reasons"], row["duplicate_of"], row["duration_s"]) == ("kept", [], None, 2.0)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("short", {"end_s": 0.3}),
        ("long", {"end_s": 100.0}),
        ("small", {"crop": [0, 0, 16, 16]}),
        ("aspect", {"crop": [0, 0, 4000, 32]}),
        ("static", {"signals": {"static_ratio": 1.0}}),
        ("blurred", {"signals": {"sharpness": 0.001}}),
        ("dark", {"signals": {"luma": 0.005}}),
        ("flat", {"signals": {"contrast": 0.001}}),
        ("black", {"signals": {"black_ratio": 0.9}}),
        ("flicker", {"signals": {"flicker": 0.2}}),
    ],
)
def test_each_rule_gives_its_reason(reason: str, changes: dict[str, Any]) -> None:
    (row,) = verdicts(clip(1, **changes))
    assert (row["status"], row["reasons"]) == ("rejected", [reason])


def test_every_reason_is_kept() -> None:
    (row,) = verdicts(clip(1, end_s=0.3, signals={"static_ratio": 1.0, "luma": 0.0}))
    assert row["reasons"] == ["short", "static", "dark"]


def test_a_limit_itself_is_allowed() -> None:
    assert verdicts(clip(1, end_s=0.8), min_s=0.8)[0]["status"] == "kept"


def test_what_was_not_measured_is_not_held_against_a_clip() -> None:
    (row,) = verdicts(clip(1, signals=dict.fromkeys(GOOD)), min_motion=1.0, min_sharpness=1.0)
    assert row["status"] == "kept"


def test_a_failed_clip_stays_failed_with_its_reason() -> None:
    (row,) = verdicts(clip(1, status="failed", reason="no frame", end_s=0.1))
    assert (row["status"], row["reasons"]) == ("failed", ["no frame"])


def test_images_are_not_judged_on_time() -> None:
    still = {"kind": "image", "end_s": 0.0, "signals": {"motion": None, "static_ratio": None}}
    assert verdicts(clip(1, **still))[0]["status"] == "kept"


def test_the_best_copy_stays() -> None:
    small = clip(1, crop=[0, 0, 160, 90])
    short, sharp = clip(2, end_s=1.0), clip(3, signals={"sharpness": 0.5})
    plain = clip(4)
    rows = {
        r["clip_id"]: r
        for r in verdicts(small, short, sharp, plain, clip(5), pairs=copies((0, 1), (1, 3), (2, 3)))
    }
    assert [r["status"] for r in rows.values()] == ["rejected", "rejected", "kept", "rejected", "kept"]
    assert {r["duplicate_of"] for r in rows.values()} == {None, sharp["clip_id"]}
    assert all(r["reasons"] == ["duplicate"] for r in rows.values() if r["status"] == "rejected")


def test_the_groups_are_a_table() -> None:
    rows = tables.from_rows([clip(n) for n in range(5)], tables.CLIPS)
    found = judge(rows, JudgeConfig(), copies((1, 4), (1, 2))).duplicates
    assert found.schema == tables.DUPLICATES
    assert found["clip_id"].to_pylist() == [clip(n)["clip_id"] for n in (1, 2, 4)]
    assert set(found["group_id"].to_pylist()) == {clip(1)["clip_id"]}
    assert found["kept"].to_pylist() == [True, False, False]


def test_a_rejected_clip_does_not_push_its_good_copy_out() -> None:
    dark = clip(1, signals={"luma": 0.0}, crop=[0, 0, 640, 360])
    rows = verdicts(dark, clip(2), pairs=copies((0, 1)))
    assert [r["status"] for r in rows] == ["rejected", "kept"]
    assert rows[0]["reasons"] == ["dark"]


def test_copies_of_a_rejected_clip_are_copies_of_each_other() -> None:
    dark = clip(1, signals={"luma": 0.0})
    rows = verdicts(dark, clip(2), clip(3), pairs=copies((0, 1), (0, 2)))
    assert [r["status"] for r in rows] == ["rejected", "kept", "rejected"]


def test_dedup_can_be_off() -> None:
    rows = verdicts(clip(1), clip(2), pairs=copies((0, 1)), dedup=False)
    assert [r["status"] for r in rows] == ["kept", "kept"]


def test_no_clips_no_verdicts() -> None:
    assert verdicts() == []


# -- rules ----------------------------------------------------------------------------------------


def test_a_rule_can_be_on_any_signal_and_names_itself() -> None:
    rules = {"signals": {"saturation": {"max": 0.1}, "motion": {"min": 0.2}}, "fps": {"min": 24}}
    (row,) = verdicts(clip(1, fps=12.0), rules=rules)
    assert row["reasons"] == ["still", "high saturation", "low fps"]


def test_a_rule_can_be_for_one_kind() -> None:
    rules = {"signals": {"luma": {"image": {"min": 0.9, "low": "dim"}}}}
    still = clip(2, kind="image", end_s=0.0)
    assert [r["reasons"] for r in verdicts(clip(1), still, rules=rules)] == [[], ["dim"]]
    looser = {"signals": {"luma": {"min": 0.9, "image": {"min": 0.1}}}}
    assert [r["reasons"] for r in verdicts(clip(1), still, rules=looser)] == [["dark"], []]


def test_a_percentile_is_of_the_corpus_kind_by_kind() -> None:
    videos = [clip(n, signals={"contrast": n / 100}) for n in range(1, 21)]
    stills = [clip(n, kind="image", end_s=0.0, signals={"contrast": n / 200}) for n in range(21, 31)]
    unknown = clip(40, signals={"contrast": None})
    failed = clip(41, signals={"contrast": 0.0}, status="failed")
    rows = verdicts(
        *videos, *stills, unknown, failed, rules={"signals": {"contrast": {"min_percentile": 10}}}
    )
    rejected = [int(r["source_id"], 16) for r in rows if r["status"] == "rejected"]
    assert rejected == [1, 2, 21]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"signals": {"motoin": {"min": 1}}}, "signals.motion.min, perhaps"),
        ({"signals": {"motion": {"min": "fast"}}}, "a number in min"),
        ({"signals": {"motion": {"least": 1}}}, "a number in min"),
    ],
)
def test_a_wrong_rule_is_an_error_that_names_the_right_one(rules: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        verdicts(clip(1), rules=rules)


@pytest.mark.parametrize("preset", sorted(p.stem for p in PRESETS.glob("*.toml")))
def test_presets_are_sound(preset: str) -> None:
    text = (PRESETS / f"{preset}.toml").read_text()
    assert text.startswith(f"# {preset}:")
    assert bool(rules_of(resolved(JudgeConfig(preset=preset)))) == (preset != "keep-all")


def test_keep_all_keeps_all_and_an_unknown_preset_names_the_known() -> None:
    assert verdicts(clip(1, end_s=0.1, signals={"luma": 0.0}), preset="keep-all")[0]["status"] == "kept"
    with pytest.raises(ConfigError, match="keep-all, standard, strict"):
        verdicts(clip(1), preset="loose")


def test_strict_keeps_no_more_than_standard() -> None:
    rng = np.random.default_rng(0)
    rows = [
        clip(n, end_s=float(rng.uniform(0.3, 80)), signals={k: float(rng.beta(1, 4)) for k in GOOD})
        for n in range(200)
    ]
    loose, strict = (
        {r["clip_id"] for r in verdicts(*rows, preset=p) if r["status"] == "kept"}
        for p in ("standard", "strict")
    )
    assert strict < loose


def test_short_names_stand_for_rules_and_survive_the_corpus_file(tmp_path: Path) -> None:
    config = load_config(None, ["judge.min_s=1.5", "judge.rules.signals.noise.max=3"])
    assert config.judge.rules == {"duration_s": {"min": 1.5}, "signals": {"noise": {"max": 3}}}
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_config(str(tmp_path / "c.toml")) == config
    for name in SHORT_RULES:
        assert rules_of(resolved(load_config(None, [f"judge.{name}=0.5"]).judge))


# -- a corpus -------------------------------------------------------------------------------------


def _analyzed(root: Path, *files: Path) -> Corpus:
    corpus = Corpus(str(root))
    found = discover([str(f) for f in files]).inputs
    analyze_corpus(corpus, found, Config(), LocalExecutor(), silent)
    return corpus


def test_a_corpus_is_judged_again_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = Path(__file__).parents[1] / "infra" / "media"
    files = sorted(media.glob("*.mp4"))[:2]
    corpus = _analyzed(tmp_path / "c", files[0])
    first = judge_corpus(corpus, Config())
    corpus = _analyzed(tmp_path / "c", *files)
    monkeypatch.setattr(
        "pipeline.sandbox.sandbox.Sandbox.__init__", lambda *_: pytest.fail("a decoder was started")
    )
    second = judge_corpus(corpus, Config())
    assert sum(second.counts.values()) > sum(first.counts.values())
    assert judge_corpus(corpus, Config()).tasks == 0
    before = corpus.judged()

    found = what_if(corpus, Config(), ["signals.luma.max=0.0"])
    assert found["now"]["status"] == second.counts
    assert found["then"]["status"] == {"rejected": corpus.clips().num_rows}
    assert any("high luma" in line for line in what_if_lines(found))
    assert corpus.judged().equals(before)


def test_judging_says_where_it_is(tmp_path: Path) -> None:
    files = sorted((Path(__file__).parents[1] / "infra" / "media").glob("*.mp4"))[:2]
    corpus = _analyzed(tmp_path / "c", *files)
    reports: list[tuple[int, int, dict[str, object]]] = []

    def note(done: int, total: int, facts: Mapping[str, object]) -> None:
        reports.append((done, total, dict(facts)))

    judge_corpus(corpus, Config(), progress=note)
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    assert {total for _, total, _ in reports} == {len(STEPS)}
    assert list(dict.fromkeys(facts.get("step") for _, _, facts in reports)) == [*STEPS, None]
    assert reports[-1] == (len(STEPS), len(STEPS), {})
    doing = [
        facts["doing"] for _, _, facts in reports if facts.get("step") == "video copies" and "doing" in facts
    ]
    assert list(dict.fromkeys(doing))[:2] == ["prints", "candidate pairs"]
    reports.clear()
    judge_corpus(corpus, Config(), progress=note)
    assert not reports  # nothing to do


def test_what_an_evaluation_set_holds_is_rejected(tmp_path: Path) -> None:
    media = Path(__file__).parents[1] / "infra" / "media"
    files = sorted(media.glob("*.mp4"))[:2]
    corpus = _analyzed(tmp_path / "c", *files)
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "held_out.mp4").write_bytes(files[0].read_bytes() + bytes(8))  # other bytes, the same footage
    config = load_config(None, [f"judge.decontaminate={tests}", "judge.preset=keep-all"])
    judge_corpus(corpus, config)
    uri_of = {r["source_id"]: r["uri"] for r in corpus.sources().to_pylist()}
    verdicts = {(uri_of[r["source_id"]], tuple(r["reasons"])) for r in corpus.judged().to_pylist()}
    assert verdicts == {(str(files[0]), ("contaminated",)), (str(files[1]), ())}
    as_corpus = load_config(None, [f"judge.decontaminate={tmp_path}/c/evaluation", "judge.preset=keep-all"])
    judge_corpus(corpus, as_corpus)
    assert {(uri_of[r["source_id"]], tuple(r["reasons"])) for r in corpus.judged().to_pylist()} == verdicts
