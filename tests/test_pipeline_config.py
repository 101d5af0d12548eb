"""Config: TOML round trip, overrides, errors that name the nearest key, stable fingerprints."""

from pathlib import Path

import pytest

from pipeline.config import Config, EncodeConfig, load_config
from pipeline.errors import ConfigError
from pipeline.settings import fingerprint, to_toml


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
