"""Rules that clips must keep: read from TOML, applied to whole columns.

In: a preset (presets/NAME.toml, or a path) and changes to it; the clips table. Out: for each
reason which clips break it. Never: a clip's fate (pipeline/stages/judge.py), a verdict on what was not
measured. The format is described at the head of presets/standard.toml.
"""

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import JudgeConfig
from pipeline.errors import ConfigError
from pipeline.rule_grammar import KINDS, Rule

PRESETS = Path(__file__).parent / "presets"


def resolved(config: JudgeConfig) -> dict[str, Any]:
    """The preset's tables with the config's changes in them."""
    path = PRESETS / f"{config.preset}.toml"
    try:
        if not path.exists():
            path = Path(config.preset)
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
        raise ConfigError(f"no preset {config.preset!r}", expected=f"{known}, or a TOML file") from error
    except (ValueError, RecursionError) as error:  # no TOML, not UTF-8, or a path that cannot be one
        raise ConfigError(f"{path} is not TOML: {error}") from error
    return _merged(tree, config.rules)


def broken(clips: pa.Table, rules: list[Rule]) -> dict[str, np.ndarray]:
    """Reason → bool [N]: which clips break a rule of that reason. A limit for one kind replaces the one for
    both. Failed clips break none and weigh in no percentile."""
    judged = pc.equal(clips["status"], "ok").to_numpy(zero_copy_only=False)
    of_kind = {kind: _is(clips, kind) & judged for kind in KINDS}
    special = {(rule.column, rule.limit, rule.kind) for rule in rules}
    values: dict[str, np.ndarray] = {}
    masks: dict[str, np.ndarray] = {}
    for rule in rules:
        if rule.column not in values:
            values[rule.column] = column(clips, rule.column)
        breaks = np.zeros(len(judged), bool)
        general = [k for k in KINDS if (rule.column, rule.limit, k) not in special]
        for kind in general if rule.kind is None else [rule.kind]:
            breaks |= of_kind[kind] & _breaks(rule, values[rule.column], of_kind[kind])
        masks[rule.reason] = masks.get(rule.reason, False) | breaks
    return masks


def column(clips: pa.Table, name: str) -> np.ndarray:
    """float64 [N]; NaN where it was not measured."""
    if name.startswith("signals."):
        return _floats(pc.struct_field(clips["signals"], name.removeprefix("signals.")))
    if name == "duration_s":
        return np.where(_is(clips, "image"), np.nan, _floats(pc.subtract(clips["end_s"], clips["start_s"])))
    if name in ("fps", "boundary_confidence", "aesthetic"):
        known = name in clips.column_names
        return _floats(clips[name]) if known else np.full(clips.num_rows, np.nan)
    width, height = active_size(clips)
    short_px, long_px = np.minimum(width, height), np.maximum(width, height)
    sizes = {"short_side_px": short_px, "long_side_px": long_px, "area_px": width * height}
    return long_px / np.maximum(short_px, 1) if name == "aspect" else sizes[name]


def _breaks(rule: Rule, values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """bool [N]; a comparison with NaN is false."""
    limit = rule.value
    if rule.limit.endswith("percentile"):
        measured = values[among & ~np.isnan(values)]
        if not len(measured):
            return np.zeros(len(values), bool)
        share = limit if rule.limit == "min_percentile" else 100 - limit
        limit = float(np.percentile(measured, share))
    return values < limit if rule.limit.startswith("min") else values > limit


def _merged(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = deepcopy(tree)
    for key, change in changes.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(change, Mapping):
            change = _merged(old, change)
        merged[key] = change
    return merged


def _is(clips: pa.Table, kind: str) -> np.ndarray:
    return pc.equal(clips["kind"], kind).to_numpy(zero_copy_only=False)


def _floats(values: pa.ChunkedArray) -> np.ndarray:
    return values.cast(pa.float64()).to_numpy(zero_copy_only=False)


def active_size(clips: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Width and height of the active picture, float64 [N] each; NaN where there is none."""
    crops = clips["crop"].combine_chunks()
    known = pc.fill_null(pc.equal(pc.list_value_length(crops), 4), False)
    sizes = np.full((len(crops), 4), np.nan)
    sizes[known.to_numpy(zero_copy_only=False)] = crops.filter(known).flatten().to_numpy().reshape(-1, 4)
    return sizes[:, 2], sizes[:, 3]
