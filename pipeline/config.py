"""Every data knob, as frozen dataclasses that read from TOML and `--set section.key=value`.

In: a TOML file and overrides. Out: one `Config`. An unknown key is an error that names the nearest
known one; `fingerprint` turns a section into the hash that keys the parts made with it.
"""

import dataclasses
import difflib
import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pipeline.errors import ConfigError

D = TypeVar("D")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShotConfig:
    """How a video is cut into shots (pipeline/shots/boundaries.py)."""

    detector: str = "default"  # or content, adaptive, hash, histogram, transnetv2 (shots/detectors.py)
    min_shot_s: float = 0.3  # of two boundaries closer than this the surer one stays
    max_shot_s: float = 60.0  # longer shots are split where least happens; 0: never
    cut_probability: float = 0.5  # least probability of a hard cut
    gradual_probability: float = 0.65  # and of a dissolve or wipe


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalyzeConfig:
    """The one-pass analysis (pipeline/stages/analyze.py)."""

    sources_per_task: int = 4
    strip_frames: int = 8
    strip_long_px: int = 256
    strip_quality: int = 92
    thumb_long_px: int = 160
    max_pixels: int = 100_000_000  # declared width × height; more is refused from the header
    max_frames: int = 2_000_000  # of one pass (18 hours at 30 a second); a source with more fails
    deadline_s: float = 600.0  # a source that takes longer fails
    memory_gb: float = 4.0  # address space of the decoding child
    segment_s: float = 600.0  # longer sources are decoded in parts of this length, in parallel; 0: never
    segment_min_mb: float = 32.0  # smaller files are not asked how long they are
    shots: ShotConfig = field(default_factory=ShotConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeConfig:
    """What is kept (pipeline/stages/judge.py). A rule applies only to what was measured."""

    preset: str = "standard"  # strict | standard | keep-all, or a TOML file like those in pipeline/presets
    rules: dict[str, Any] = field(default_factory=dict)  # changes: rules.signals.motion.min = 0.1
    dedup: bool = True  # one clip of each group of copies stays
    mirrored: bool = True  # a mirrored copy is a copy
    embedder: str = ""  # builtin: or clip:MODEL/TAG, for the two below; empty: none
    semantic_distance: float = 0.0  # clips whose vectors are this near (1 - cosine) are copies; 0: off
    aesthetic_head: str = ""  # safetensors of a linear head; its score is the column `aesthetic`
    decontaminate: str = ""  # reject what shows footage of this evaluation set: media, or a corpus


SHORT_RULES = {  # judge.min_s is short for judge.rules.duration_s.min, and so on
    "min_s": "duration_s.min",
    "max_s": "duration_s.max",
    "min_side_px": "short_side_px.min",
    "max_aspect": "aspect.max",
    "min_motion": "signals.motion.min",
    "min_sharpness": "signals.sharpness.min",
    "min_luma": "signals.luma.min",
    "min_contrast": "signals.contrast.min",
    "max_static_ratio": "signals.static_ratio.max",
    "max_black_ratio": "signals.black_ratio.max",
    "max_flicker": "signals.flicker.max",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CaptionConfig:
    """Re-captioning (captioner/recaption.py)."""

    captioner: str = "builtin:"
    clips_per_task: int = 32
    max_tokens: int = 112


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeConfig:
    """Latent shards (tokenizer_stage/). `max_frames` is 1 + 4k; `area_px` bounds width × height."""

    vae: str = "builtin:"
    name: str = "default"
    fps: float = 8.0
    max_frames: int = 17
    area_px: int = 96 * 64
    samples_per_shard: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All sections; the resolved one is saved as corpus.toml."""

    analyze: AnalyzeConfig = field(default_factory=AnalyzeConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    caption: CaptionConfig = field(default_factory=CaptionConfig)
    encode: EncodeConfig = field(default_factory=EncodeConfig)


def fingerprint(*parts: Any) -> str:
    """16 hex of the canonical JSON of dataclasses and plain values: equal values, equal hash."""
    plain = [
        dataclasses.asdict(p) if dataclasses.is_dataclass(p) and not isinstance(p, type) else p for p in parts
    ]
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def load_config(path: str | None = None, overrides: Sequence[str] = (), base: Config | None = None) -> Config:
    """`base` (the defaults), then the TOML file, then `section.key=value` overrides."""
    return load(base or Config(), path, overrides)


def load(base: D, path: str | None, overrides: Sequence[str]) -> D:
    """Any config dataclass with the values of a TOML file and of `key=value` overrides (the value in
    TOML, or a bare word) put in place of its own."""
    values: dict[str, Any] = dataclasses.asdict(base)  # type: ignore[call-overload]
    if path is not None:
        try:
            _merge(values, tomllib.loads(Path(path).read_text()))
        except OSError as error:
            raise ConfigError(
                f"cannot read config {path}: {error.strerror}", fix="give an existing file to --config"
            ) from error
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}", expected="section.key=value")
        _merge(values, _nested(key.strip(), _parse_value(text.strip())))
    return build(type(base), values)


def _merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            _merge(values[key], change)
        else:
            values[key] = change


def build(kind: type[D], values: dict[str, Any], where: str = "") -> D:
    """A dataclass from nested plain values; unknown keys and wrong types are errors that name the key."""
    hints = get_type_hints(kind)
    if kind is JudgeConfig:
        values = _spelled_out(values)
    made: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in hints:
            near = difflib.get_close_matches(key, [*hints, *_short(kind)], n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"unknown config key {name!r}",
                expected=f"{where}{near}, perhaps",
                fix="see README, Configuration",
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"config key {name!r} is {value!r}", expected="a table of keys")
            made[key] = build(hints[key], value, f"{name}.")
        else:
            made[key] = _checked(value, hints[key], name)
    return kind(**made)


def to_toml(config: Any) -> str:
    """The config as TOML that `load_config` reads back to an equal value."""
    lines: list[str] = []

    def table(value: Any, prefix: str) -> None:
        is_dict = isinstance(value, dict)
        scalars = value if is_dict else {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        nested = {k: v for k, v in scalars.items() if dataclasses.is_dataclass(v) or isinstance(v, dict)}
        if prefix and not (is_dict and len(nested) == len(scalars)):
            lines.append(f"[{prefix}]")
        lines.extend(f"{k} = {_toml_value(v)}" for k, v in scalars.items() if k not in nested)
        for key, inner in nested.items():
            table(inner, f"{prefix}.{key}" if prefix else key)

    table(config, "")
    return "\n".join(lines) + "\n"


def _short(kind: type[Any]) -> Sequence[str]:
    return list(SHORT_RULES) if kind is JudgeConfig else []


def _spelled_out(values: dict[str, Any]) -> dict[str, Any]:
    """The judge section with short names of rules put where they stand for."""
    rules: dict[str, Any] = {}
    for name in (n for n in SHORT_RULES if n in values):
        _merge(rules, _nested(SHORT_RULES[name], _checked(values[name], float, f"judge.{name}")))
    kept = {k: v for k, v in values.items() if k not in SHORT_RULES}
    if rules:
        kept["rules"] = dict(kept.get("rules", {}))
        _merge(kept["rules"], rules)
    return kept


def _nested(path: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 -> {"a": {"b": 1}}"""
    *tables, last = path.split(".")
    nested: dict[str, Any] = {last: value}
    for name in reversed(tables):
        nested = {name: nested}
    return nested


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    return json.dumps(value, ensure_ascii=False)  # TOML and JSON write these scalars alike


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _checked(value: Any, kind: Any, name: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_checked(v, get_args(kind)[0], name) for v in value)
    if get_origin(kind) is dict and isinstance(value, dict):
        return value
    if not isinstance(value, get_origin(kind) or kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"config key {name!r} is {value!r}", expected=f"a value of type {kind.__name__}")
    return value
