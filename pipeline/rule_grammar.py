"""The grammar of rules that clips must keep: which columns they may name, and which limits.

In: tables of a preset or of a config, as TOML gives them. Out: `Rule` values; an unknown name is an error
that names the nearest. Never: a table of clips, a verdict (pipeline/stages/rules.py).
"""

import difflib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.errors import ConfigError

SIGNALS = (  # what is measured of a clip: units and ranges in pipeline/signals/measure.py
    "motion",
    "camera_motion",
    "pan",
    "tilt",
    "zoom",
    "roll",
    "shake",
    "sharpness",
    "blockiness",
    "noise",
    "quality",
    "interlacing",
    "luma",
    "contrast",
    "saturation",
    "underexposed",
    "overexposed",
    "static_ratio",
    "duplicate_ratio",
    "black_ratio",
    "flicker",
    "text_area",
    "logo_area",
)
KINDS = ("video", "image")
LIMITS = ("min", "max", "min_percentile", "max_percentile")
NAMES = ("low", "high")
BASIC: tuple[str, ...] = ("duration_s", "short_side_px", "long_side_px", "area_px", "aspect", "fps")
BASIC += ("boundary_confidence", "aesthetic")  # the last where a head is named: captioner/embed.py
COLUMNS = (*BASIC, *(f"signals.{name}" for name in SIGNALS))
TABLES = {"signals", *COLUMNS, *(f"{column}.{kind}" for column in COLUMNS for kind in KINDS)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One limit on one column; `kind` None: videos and images alike."""

    column: str
    kind: str | None
    limit: str  # one of LIMITS
    value: float
    reason: str


def rules_of(tree: Mapping[str, Any]) -> list[Rule]:
    """The rules of resolved tables, in their order; unknown names are errors that name the nearest."""
    return list(_parsed(tree, "", {}))


def _parsed(tree: Mapping[str, Any], path: str, names: Mapping[str, Any]) -> Iterator[Rule]:
    names = {**names, **{key: tree[key] for key in NAMES if key in tree}}
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            if (
                "." in key or where not in TABLES
            ):  # a quoted "signals.motion" would stand beside signals.motion
                raise _about_nothing(where, where)
            yield from _parsed(value, where, names)
            continue
        name, kind = _column_and_kind(path, where)
        if key in NAMES and isinstance(value, str):
            continue
        if key not in LIMITS or not _is_finite(value):
            raise ConfigError(
                f"rule {where} = {value!r}",
                expected=f"a number in {', '.join(LIMITS)}; a text in {', '.join(NAMES)}",
            )
        side = "low" if key.startswith("min") else "high"
        reason = names.get(side, f"{side} {name.removeprefix('signals.')}")
        yield Rule(column=name, kind=kind, limit=key, value=float(value), reason=reason)


def _column_and_kind(path: str, where: str) -> tuple[str, str | None]:
    name, _, last = path.rpartition(".")
    kind = last if last in KINDS else None
    name = name if kind else path
    if name not in COLUMNS:
        raise _about_nothing(where, name)
    return name, kind


def _about_nothing(where: str, name: str) -> ConfigError:
    near = difflib.get_close_matches(name, COLUMNS, n=1, cutoff=0.0)[0]
    return ConfigError(f"rule {where!r} is about no column of a clip", expected=f"{near}.min, perhaps")


def _is_finite(value: Any) -> bool:
    """A number that a float holds, whole ones of any length included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max
