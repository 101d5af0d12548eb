"""The pages of docs/ that are made from the code: `python infra/docs/generate.py` (or `make docs`).

In: the comments of pipeline/corpus/tables.py and of the schema of receipts, the docstring of the signals, the
parser of the command line. Out:
docs/tables.md and docs/cli.md, the same text everywhere. tests/test_docs.py holds the pages equal to this.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import framemill  # noqa: E402
from pipeline import rule_grammar  # noqa: E402
from pipeline.corpus import tables  # noqa: E402
from pipeline.operation import receipts  # noqa: E402
from pipeline.signals import measure  # noqa: E402

TABLES_FILE, RECEIPTS_FILE = "pipeline/corpus/tables.py", "pipeline/operation/receipts.py"
MADE_BY = "*Made by `make docs` from {source}; change it there.*"
UNITS = (
    "Times are seconds of the source, spans are half open, pixels are display pixels (rotation and sample "
    "aspect applied). Null means not known or not measured."
)
COMMON = "Every verb takes:"


def main() -> None:
    """Writes every page."""
    for name, text in pages().items():
        (ROOT / name).write_text(text, encoding="utf-8")


def pages() -> dict[str, str]:
    """Path in the repository → text of the page."""
    return {"docs/tables.md": tables_page(), "docs/cli.md": command_line_page()}


# -- tables ---------------------------------------------------------------------------------------


def tables_page() -> str:
    """Every table's columns, their types and what they mean."""
    source = (ROOT / TABLES_FILE).read_text(encoding="utf-8")
    schemas = {name: value for name, value in vars(tables).items() if isinstance(value, pa.Schema)}
    about, meanings = _comments(source)
    of_receipts = _comments((ROOT / RECEIPTS_FILE).read_text(encoding="utf-8"))
    schemas["RECEIPTS"], about["RECEIPTS"] = receipts.RECEIPTS, of_receipts[0]["RECEIPTS"]
    meanings["RECEIPTS"] = of_receipts[1]["RECEIPTS"]
    first: dict[str, str] = {}
    for columns in meanings.values():
        for column, meaning in columns.items():
            first.setdefault(column, meaning)
    parts = ["# Tables", MADE_BY.format(source=f"[{TABLES_FILE}](../{TABLES_FILE})"), UNITS]
    for name, schema in schemas.items():
        own = meanings["PROVENANCE"] | meanings[name]
        rows = [(f.name, _type(f.type), own.get(f.name) or first[f.name]) for f in schema]
        parts += [
            f"## {name.lower()}",
            f"{_plain(about[name])}.",
            _markdown(("column", "type", "meaning"), rows),
        ]
        if name == "CLIPS":
            parts += ["The fields of `signals`, all float:", _markdown(("signal", "meaning"), signals())]
    return "\n\n".join(parts) + "\n"


def signals() -> list[tuple[str, str]]:
    """(signal, meaning) in the order of the struct, from the docstring that states units and ranges."""
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in (measure.__doc__ or "").splitlines():
        if entry := re.fullmatch(r"    (\w+(?:, \w+)*)  +(\S.*)", line):
            names = entry[1].split(", ")
            meanings |= dict.fromkeys(names, entry[2])
        elif names and re.match(r" {8,}\S", line):
            meanings |= {name: f"{meanings[name]} {line.strip()}" for name in names}
        else:
            names = []
    return [(name, meanings[name]) for name in rule_grammar.SIGNALS]


def _comments(source: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """What the comments say of each table, and of each of its columns, by the names of the schemas."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    on_line = {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}
    about: dict[str, str] = {}
    meanings: dict[str, dict[str, str]] = {}
    for node in ast.parse(source).body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            continue
        name = node.targets[0].id
        about[name] = on_line.get(node.lineno, "")
        meanings[name] = {
            column: comment
            for column, lines in _columns(node.value)
            for comment in [" ".join(on_line[line] for line in lines if line in on_line)]
            if comment
        }
    return about, meanings


def _columns(value: ast.expr) -> Iterator[tuple[str, range]]:
    """("name", its lines) of each `("name", type)` in the list that a schema is made of."""
    for node in ast.walk(value):
        if isinstance(node, ast.Tuple) and isinstance(node.elts[0], ast.Constant):
            yield str(node.elts[0].value), range(node.lineno, (node.end_lineno or node.lineno) + 1)


def _type(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return "struct"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    if pa.types.is_map(kind):
        return f"map of {_type(kind.item_type)} by {_type(kind.key_type)}"
    return str(kind)


def _markdown(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for name, *cells in rows:
        lines.append(" | ".join([f"`{name}`", *map(_plain, cells)]))
    return "\n".join(f"| {line} |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is, in a table too."""
    return re.sub(r"([|<\[\]*])", r"\\\1", text)


# -- command line ---------------------------------------------------------------------------------


def command_line_page() -> str:
    """Every verb's arguments. Not the text of --help: that is wrapped differently from Python to Python."""
    verbs = [(words, parser) for words, parser in _parsers(framemill.all_verbs().parser) if parser.epilog]
    shared = set.intersection(*({_name(action) for action in parser._actions} for _, parser in verbs))
    everywhere = [_argument(action) for action in verbs[0][1]._actions if _name(action) in shared]
    head = ("argument", "meaning", "default")
    parts = ["# Command line", MADE_BY.format(source="the verbs' own arguments"), COMMON]
    parts.append(_markdown(head, everywhere))
    for words, parser in verbs:
        own = [_argument(action) for action in parser._actions if _name(action) not in shared]
        parts += [f"## {words.replace('train-eval', 'train eval')}", _plain(parser.description or "")]
        parts.append(f"```\n{(parser.epilog or '').removeprefix('example: ')}\n```")
        parts.append(_markdown(head, own))
    return "\n\n".join(parts) + "\n"


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(words, parser) of the program and, below it, of every group of verbs and every verb."""
    yield parser.prog, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                yield from _parsers(verb)


def _name(action: argparse.Action) -> str:
    """`--out`; `src …` for one that takes several words; `SRC` never: names are as the user types them."""
    several = " …" if action.nargs in ("+", "*") else ""
    if not action.option_strings:
        return f"{action.dest}{several}"
    value = action.metavar or action.dest.upper()
    return action.option_strings[-1] + ("" if action.nargs == 0 else f" {value}{several}")


def _argument(action: argparse.Action) -> tuple[str, str, str]:
    meaning = (action.help or "").replace("%%", "%")
    if action.choices:
        meaning = f"{' | '.join(map(str, action.choices))}{': ' * bool(meaning)}{meaning}"
    if action.required and action.option_strings:
        meaning = f"{meaning}{', ' * bool(meaning)}required"
    given = action.default
    unset = given is None or given is False or given == [] or given is argparse.SUPPRESS or given == ""
    return _name(action), meaning, "" if unset else str(given)


if __name__ == "__main__":
    main()
