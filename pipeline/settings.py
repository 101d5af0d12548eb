"""Config dataclasses from TOML and `--set key=value`, and back; the fingerprint of a config.

In: a dataclass with defaults, a TOML file, overrides. Out: a checked dataclass, TOML text, a hash. An
unknown key is an error that names the nearest known one; what TOML cannot give back (a number that is not
finite, text that is not Unicode) is an error too, before it is written anywhere. Knows no section by name:
a dataclass with short spellings of its keys offers `short_names()` and `spelled_out(values)`.
"""

import dataclasses
import difflib
import hashlib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import tomli_w

from pipeline.errors import ConfigError

D = TypeVar("D")
# Of a section that says where work is done: no fingerprint depends on it, and no corpus remembers it, since
# the next run may be on another machine.
OF_THE_RUN = {"keyed_as": None, "written": False}


def no_key(default: Any) -> Any:
    """A field of a config that says how work is done, not what comes of it: no fingerprint depends on it."""
    return dataclasses.field(default=default, metadata={"keyed_as": type(default)()})


def fingerprint(*parts: Any) -> str:
    """16 hex of the canonical JSON of dataclasses and plain values: equal values, equal hash, whatever their
    `no_key` fields say."""
    canonical = json.dumps(
        list(map(_keyed, parts)), sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def _keyed(part: Any) -> Any:
    """A dataclass as a dict in which `no_key` fields are zero; other values as they are."""
    if not dataclasses.is_dataclass(part) or isinstance(part, type):
        return part
    return {
        field.name: field.metadata["keyed_as"]
        if "keyed_as" in field.metadata
        else _keyed(getattr(part, field.name))
        for field in dataclasses.fields(part)
    }


def load(base: D, path: str | None, overrides: Sequence[str], given: Mapping[str, Any] | None = None) -> D:
    """Any config dataclass with its values replaced by those of a TOML file, of `key=value` overrides (the
    value in TOML, or a bare word) and of flags (`given`: key → value, None where a flag was not given)."""
    values: dict[str, Any] = dataclasses.asdict(base)  # type: ignore[call-overload]
    if path is not None:
        try:
            merge(values, tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise ConfigError(
                f"cannot read config {path}: {error.strerror}", fix="give an existing file to --config"
            ) from error
        except (ValueError, RecursionError) as error:  # not UTF-8, thousands of digits or brackets
            raise ConfigError(f"{path} is not TOML: {error}") from error
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}", expected="section.key=value")
        merge(values, nested(key.strip(), _parse_value(text.strip())))
    for key, value in (given or {}).items():
        if value is not None:
            merge(values, nested(key, value))
    return build(type(base), values)


def merge(values: dict[str, Any], changes: dict[str, Any]) -> None:
    """Puts the changes into nested values, in place."""
    for key, change in changes.items():
        if isinstance(change, dict) and isinstance(values.get(key), dict):
            merge(values[key], change)
        else:
            values[key] = change


def build(kind: type[D], values: dict[str, Any], where: str = "") -> D:
    """A dataclass from nested plain values; unknown keys and wrong types are errors that name the key."""
    hints = get_type_hints(kind)
    section: Any = kind
    short_names = section.short_names() if hasattr(section, "short_names") else ()
    values = section.spelled_out(values) if hasattr(section, "spelled_out") else values
    fields: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in hints:
            near = difflib.get_close_matches(key, [*hints, *short_names], n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"unknown config key {name!r}",
                expected=f"{where}{near}, perhaps",
                fix="see README, Configuration",
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(f"config key {name!r} is {value!r}", expected="a table of keys")
            fields[key] = build(hints[key], value, f"{name}.")
        else:
            fields[key] = checked(value, hints[key], name)
    return kind(**fields)


def to_toml(*tables: Any) -> str:
    """Dataclasses and dicts, one after another, as TOML that `load` reads back to equal values, but for the
    sections that are OF_THE_RUN, which are left out."""
    plain: dict[str, Any] = {}
    for table in tables:
        if dataclasses.is_dataclass(table):
            left_out = {f.name for f in dataclasses.fields(table) if not f.metadata.get("written", True)}
            values = dataclasses.asdict(table)  # type: ignore[arg-type]
            plain |= {name: value for name, value in values.items() if name not in left_out}
        else:
            plain |= table
    _refuse_unwritable(plain, "")
    return tomli_w.dumps(plain)


def nested(path: str, value: Any) -> dict[str, Any]:
    """ "a.b", 1 -> {"a": {"b": 1}}"""
    *tables, last = path.split(".")
    nested: dict[str, Any] = {last: value}
    for name in reversed(tables):
        nested = {name: nested}
    return nested


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except (ValueError, RecursionError):  # a TOMLDecodeError is a ValueError; so are thousands of digits
        return text


def checked(value: Any, kind: Any, name: str) -> Any:
    """The value as this type, or a ConfigError that names the key; whole numbers pass as floats, and None
    where the type allows it."""
    if get_origin(kind) is UnionType and NoneType in get_args(kind):
        if value is None:
            return None
        kind = next(other for other in get_args(kind) if other is not NoneType)
    _refuse_unwritable(value, name)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(checked(v, get_args(kind)[0], name) for v in value)
    if not isinstance(value, get_origin(kind) or kind) or (kind is int and isinstance(value, bool)):
        raise ConfigError(f"config key {name!r} is {value!r}", expected=f"a value of type {kind.__name__}")
    return value


def positive(config: Any, section: str, *names: str) -> None:
    """ConfigError for the first of these fields that is not above zero."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{section}.{name} is {getattr(config, name)}", expected="a number above 0")


def _refuse_unwritable(value: Any, name: str) -> None:
    """ConfigError for what would not come back from TOML, however deep it lies."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _refuse_unwritable(key, f"{name}.{key}" if name else key)
            _refuse_unwritable(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list | tuple):
        for inner in value:
            _refuse_unwritable(inner, name)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"config key {name!r} is {value}", expected="a finite number")
    elif isinstance(value, int):
        if not -(2**63) <= value < 2**63:  # what every reader of TOML can hold
            raise ConfigError(f"config key {name!r} is too large", expected="a whole number of 64 bits")
    elif isinstance(value, str):
        if value != value.encode(errors="ignore").decode():
            raise ConfigError(f"config key {name!a} is {value!a}", expected="text in Unicode")
    else:
        raise ConfigError(f"config key {name!r} is {value!r}", expected="a number, a text or a table of them")
