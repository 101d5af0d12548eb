"""Config: TOML round trip, overrides, errors that name the nearest key, stable fingerprints."""

import dataclasses
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import (
    AnalyzeConfig,
    CaptionConfig,
    Config,
    EncodeConfig,
    JudgeConfig,
    ShotConfig,
    load_config,
)
from pipeline.corpus.corpus import Corpus
from pipeline.engine.stage import Resources
from pipeline.errors import ConfigError
from pipeline.rule_grammar import COLUMNS, KINDS, LIMITS
from pipeline.settings import build, fingerprint, to_toml


def test_toml_round_trip(tmp_path: Path) -> None:
    config = load_config(
        None, ["encode.fps=12", "analyze.shots.min_shot_s=0.5", "caption.captioner=openai:http://x#m"]
    )
    (tmp_path / "c.toml").write_text(to_toml(config))
    assert load_config(str(tmp_path / "c.toml")) == config
    assert config.encode.fps == 12.0
    assert config.analyze.shots.min_shot_s == 0.5


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown config key 'encode\.max_frame'; expected encode\.max_frames"
    ):
        load_config(None, ["encode.max_frame=5"])


@pytest.mark.parametrize(
    "override", ["encode.max_frames=many", "encode.max_frames=true", "judge=3", "judge.min_s"]
)
def test_wrong_values_are_errors(override: str) -> None:
    with pytest.raises(ConfigError):
        load_config(None, [override])


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        load_config(str(tmp_path / "missing.toml"))
    (tmp_path / "bad.toml").write_text("[judge\n")
    with pytest.raises(ConfigError, match="not TOML"):
        load_config(str(tmp_path / "bad.toml"))


def test_fingerprints_follow_values() -> None:
    assert fingerprint(Config()) == fingerprint(load_config(None, ["encode.fps=8"]))
    assert fingerprint(EncodeConfig()) != fingerprint(EncodeConfig(fps=9.0))
    assert fingerprint(EncodeConfig(), 1) != fingerprint(EncodeConfig(), 2)


def test_resources_are_set_by_stage_and_neither_keyed_nor_written_with_a_corpus(tmp_path: Path) -> None:
    words = ["resources.caption.gpus=0.25", "resources.caption.workers=3", "resources.encode.memory_gb=9"]
    config = load_config(None, words)
    assert (config.resources.caption.gpus, config.resources.caption.cpus) == (0.25, None)
    wanted = Resources(cpus=2, gpus=1, memory_gb=5)
    given = wanted.set_to("caption", config.resources.caption)
    assert (given.cpus, given.gpus, given.memory_gb) == (2, 0.25, 5)
    assert (given.min_workers, given.max_workers) == (3, 3)
    assert wanted.set_to("encode", config.resources.encode).memory_gb == 9.0
    assert fingerprint(config) == fingerprint(Config())
    assert to_toml(config) == to_toml(Config())
    (tmp_path / "own.toml").write_text("[resources.embed]\ncpus = 2\n")
    assert load_config(str(tmp_path / "own.toml"), base=config).resources.embed.cpus == 2.0


@pytest.mark.parametrize(
    "setting",
    [
        *("caption.gpus=1.5", "caption.gpus=-1", "embed.cpus=0", "encode.workers=0", "encode.workers=2.5"),
        *("analyze.memory_gb=much", "analyze.deadline_s=-1", "judge.cpus=1"),
    ],
)
def test_resources_that_cannot_be_are_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match="resources"):
        load_config(None, [f"resources.{setting}"])


def test_how_work_is_done_is_in_no_fingerprint() -> None:
    """The value is that of 0.1.0: parts that are there stay current."""
    assert fingerprint(AnalyzeConfig(), 3) == "251a7cf203b49456"
    other = AnalyzeConfig(
        sources_per_task=9, max_frames=1, deadline_s=1, memory_gb=1, segment_s=1, segment_min_mb=1
    )
    assert fingerprint(other, 3) == fingerprint(AnalyzeConfig(), 3)
    assert fingerprint(AnalyzeConfig(shots=ShotConfig(min_shot_s=1.0)), 3) != fingerprint(AnalyzeConfig(), 3)


REFUSED = [
    "judge.min_luma=nan",
    "judge.rules.signals.motion.min=nan",
    "judge.rules.signals.motion.video.max=-inf",
    "judge.rules.signals.motion.min=1e999",
    f"judge.rules.signals.motion.min={10**400}",
    "judge.rules.signals.motion.min=[1.0, nan]",
    "judge.rules.signals.motion.low=[nan]",
    "judge.rules.signals.motion.min=1979-05-27T07:32:00Z",
    "judge.rules.nothing.min=1",
    "judge.rules.nothing={}",
    'judge.rules={"odd\\nkey" = {}}',
    'judge.rules={"a \\"quoted\\" key" = {min = 1}}',
    'judge.rules={"signals.motion" = {min = 1}}',
    "judge.rules.signals.motion.min.deeper.and.deeper=1",
    "judge.rules=3",
    "judge.preset=\udcff",
    "judge.rules.signals.motion.low=\ud800",
    "judge.\ud800=1",
    "judge.rules.\ud800={}",
    "analyze.deadline_s=inf",
    f"analyze.max_frames={10**400}",
    f"analyze.max_frames={2**63}",
    "analyze.max_frames=" + "9" * 5000,
    "analyze.sources_per_task=-1",
    "analyze.shots=3",
    "encode.vae.x=1",
    "encode.fps=07:32:00",
    "encode.fps=-1",
    "encode.clips_per_task=0",
    "encode.shard_mb=0",
    "encode.name=../x",
    "encode.name=a/b",
    "encode.name=.hidden",
    'encode.name=a"b',
    "encode.name=",
    "=1",
    "judge.rules=" + "[" * 5000,
]


@pytest.mark.parametrize("override", REFUSED, ids=lambda o: ascii(o)[:60])
def test_what_toml_or_a_corpus_cannot_hold_is_refused_and_the_corpus_stays_readable(
    override: str, tmp_path: Path
) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.record(Config(), "analyze", "a" * 16)
    with pytest.raises(ConfigError):
        corpus.record(load_config(None, [override], corpus.config()), "judge", "b" * 16)
    assert (corpus.config(), corpus.fingerprints()) == (Config(), {"analyze": "a" * 16})


UNCHECKED: list[Config] = [  # made in Python, where nothing checks a value before it is written
    Config(analyze=AnalyzeConfig(deadline_s=math.inf)),
    Config(judge=JudgeConfig(preset="\udcff")),
    Config(caption=CaptionConfig(captioner=None)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("config", UNCHECKED, ids=["infinite", "surrogate", "none"])
def test_a_config_that_cannot_be_read_back_is_never_written(config: Config, tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.record(Config(), "analyze", "a" * 16)
    with pytest.raises(ConfigError):
        corpus.record(config, "judge", "b" * 16)
    assert corpus.config() == Config()


@pytest.mark.parametrize(
    "text", ["a\x7fb", "a\x00b", "tab\t, line\r\n", "\"quoted\" 'too' \\", "视频 \U0001f3ac"]
)
def test_odd_text_is_read_back(text: str, tmp_path: Path) -> None:
    config = Config(judge=JudgeConfig(preset=text, rules={"signals": {"motion": {"min": 0.1, "low": text}}}))
    corpus = Corpus(str(tmp_path))
    corpus.record(config, "captions/" + text, "a" * 16)
    assert corpus.config() == config
    assert corpus.fingerprints() == {"captions/" + text: "a" * 16}


@pytest.mark.parametrize(
    "data", [b"judge = '\xff'", b"[analyze]\nmax_frames = " + b"9" * 5000, b"x = " + b"[" * 9999]
)
def test_a_file_that_is_no_toml_is_an_error_of_config(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(data)
    with pytest.raises(ConfigError):
        load_config(str(tmp_path / "c.toml"))


def test_short_rules_beside_rules_of_another_kind_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text("[judge]\nrules = 3\nmin_s = 1.0\n")
    with pytest.raises(ConfigError, match=r"judge\.rules"):
        load_config(str(tmp_path / "c.toml"))


ANYTHING = st.recursive(
    st.text() | st.floats() | st.integers() | st.booleans() | st.none() | st.dates(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
NUMBERS = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
FITTING = {str: st.text(), float: NUMBERS, int: st.integers(1, 2**63 - 1), bool: st.booleans()}
NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True)


@st.composite
def rule_trees(draw: st.DrawFn) -> dict[str, Any]:
    """Rules that a config may well hold, and now and then something else among them."""
    tree: dict[str, Any] = {}
    if draw(st.integers(0, 7)) == 0:
        tree = draw(st.dictionaries(st.text(max_size=3), ANYTHING, max_size=1))
    for column in draw(st.lists(st.sampled_from(COLUMNS), max_size=3)):
        table = tree
        for name in [*column.split("."), *draw(st.lists(st.sampled_from(KINDS), max_size=1))]:
            table = table.setdefault(name, {})
        table[draw(st.sampled_from(LIMITS))] = draw(NUMBERS | st.integers(-(2**63), 2**63 - 1))
        table[draw(st.sampled_from(["low", "high"]))] = draw(st.text())
    return tree


@st.composite
def sections(draw: st.DrawFn) -> dict[str, Any]:
    """Nested values for a `Config`: mostly of the right types, any value of them."""
    values: dict[str, Any] = {}
    for section, default in dataclasses.asdict(Config()).items():
        for name in draw(st.lists(st.sampled_from(sorted(default)), max_size=3)):
            fitting = {"rules": rule_trees(), "name": NAMES}.get(
                name, FITTING.get(type(default[name]), ANYTHING)
            )
            values.setdefault(section, {})[name] = draw(fitting if draw(st.integers(0, 19)) else ANYTHING)
    return values


@settings(deadline=None, max_examples=300)
@given(sections())
def test_what_is_accepted_is_read_back(values: dict[str, Any]) -> None:
    try:
        config = build(Config, values)
    except ConfigError:
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.toml"
        path.write_bytes(to_toml(config).encode())
        of_the_run = {f.name: getattr(Config(), f.name) for f in dataclasses.fields(Config) if f.metadata}
        assert load_config(str(path)) == dataclasses.replace(config, **of_the_run)
        assert fingerprint(load_config(str(path))) == fingerprint(config)


def test_a_corpus_of_the_time_when_shards_were_counted_is_read(tmp_path: Path) -> None:
    corpus = Corpus(str(tmp_path))
    corpus.record(Config(), "analyze", "a" * 16)
    text = (tmp_path / "corpus.toml").read_text()
    (tmp_path / "corpus.toml").write_text(text.replace("[encode]", "[encode]\nsamples_per_shard = 64"))
    assert Corpus(str(tmp_path)).config() == Config()
    with pytest.raises(ConfigError, match="shard_mb"):
        load_config(None, ["encode.samples_per_shard=64"])
