"""What the documents say is so: files, links, names, versions, and the pages that are made from the code."""

import ast
import importlib.util
import re
import subprocess
from pathlib import Path
from types import ModuleType

import pytest
import yaml
from test_import_order import ROOMS

import pipeline
from pipeline import rule_grammar

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(
    r"(?<![\w./-])((?:pipeline|captioner|tokenizer_stage|training|infra|tests|docs)/[\w./-]*\w\.(?:py|toml|md|sh|css|json|yml))\b"
)
MODULE = re.compile(r"`((?:pipeline|captioner|tokenizer_stage|training)(?:\.\w+)+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
MOST_LINES, MOST_MODULES = 350, 15
GENERATE = ROOT / "infra" / "docs" / "generate.py"


def tracked(*suffixes: str) -> list[Path]:
    """Every file of the project with one of these suffixes."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    paths = [ROOT / name for name in listed.splitlines()] or [*ROOT.rglob("*.py"), *ROOT.glob("*.md")]
    return [path for path in paths if path.suffix in suffixes and path.is_file()]


def texts() -> list[Path]:
    """Every file of the project that people read as text."""
    return tracked(".py", ".md", ".toml", ".sh")


def test_every_file_that_is_named_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)} names {name}"
        for path in texts()
        if path != Path(__file__)
        for name in NAMED.findall(path.read_text())
        if not (ROOT / name).exists()
    ]
    assert not missing, "\n".join(missing)


def test_every_module_that_is_named_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)} names {name}"
        for path in texts()
        for name in MODULE.findall(path.read_text())
        if not any(_exists(name.rsplit(".", cut)[0]) for cut in (0, 1))
    ]
    assert not missing, "\n".join(missing)


def _exists(module: str) -> bool:
    path = ROOT / module.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").exists()


@pytest.mark.parametrize("page", tracked(".md"), ids=lambda p: str(p.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(file), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- where is …, and the layout -------------------------------------------------------------------


def where_is() -> list[tuple[str, list[str], list[str]]]:
    """(concept, files, names) of each row of the table in CONTRIBUTING.md."""
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## Where is …")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    return [
        (row[0], LINK.findall(row[1]), re.findall(r"`([\w.]+)`", row[2] if len(row) > 2 else ""))
        for row in rows
    ]


def defined_in(path: Path) -> set[str]:
    """The names that a module defines at its top."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        for target in node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]:
            names |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} if target else set()
    return names


def test_the_table_of_places_is_long_enough() -> None:
    assert len(where_is()) >= 20


@pytest.mark.parametrize(("concept", "files", "names"), where_is(), ids=lambda value: str(value)[:40])
def test_every_place_that_is_named_holds_its_name(concept: str, files: list[str], names: list[str]) -> None:
    assert files, concept
    if names:
        for file, name in zip(files, names, strict=True):
            assert name in defined_in(ROOT / file), f"{concept}: {file} defines no {name}"


def test_the_picture_of_the_layout_is_the_import_order() -> None:
    picture = (ROOT / "CONTRIBUTING.md").read_text().split("## The layout")[1].split("```")[1]
    drawn, package = [], ""
    for indent, name, says in re.findall(r"^( *)([\w.]+)/? *(.*)$", picture, re.MULTILINE):
        package = package if indent else name
        if says:  # a folder that is drawn only for those in it says nothing
            drawn.append((f"{package}.{name}" if indent else name).removesuffix(".py"))
    assert drawn == ROOMS


def test_files_and_folders_stay_small() -> None:
    code = tracked(".py")
    assert len(code) > 100
    long = {p.relative_to(ROOT): n for p in code if (n := len(p.read_text().splitlines())) > MOST_LINES}
    assert not long
    folders: dict[Path, int] = {}
    for path in code:
        if path.name != "__init__.py" and path.parent != ROOT / "tests":
            folders[path.parent] = folders.get(path.parent, 0) + 1
    assert not {str(folder): n for folder, n in folders.items() if n > MOST_MODULES}


# -- pages made from the code, versions -----------------------------------------------------------


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", GENERATE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_pages_made_from_the_code_are_up_to_date() -> None:
    for name, text in generator().pages().items():
        assert (ROOT / name).read_text() == text, f"{name} is not what the code says: make docs"


def test_every_column_signal_and_verb_is_described() -> None:
    pages = generator().pages()
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", pages["docs/tables.md"], re.MULTILINE)
    assert all(cells.rsplit(" | ")[-1].strip() for _, cells in rows)
    assert {name for name, _ in rows} > set(rule_grammar.SIGNALS) | {"clip_id", "captioner_sha256", "reason"}
    assert "\n## framemill bench kill\n" in pages["docs/cli.md"]


def test_one_version_everywhere() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pipeline.__version__
    newest = re.search(r"^## \[([\d.]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == pipeline.__version__


def test_the_citation_has_what_its_format_asks_for() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    assert all("name" in author or "family-names" in author for author in citation["authors"])


def test_the_workflow_tests_what_the_package_says_it_runs_on() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    said = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    for job in workflow["jobs"].values():
        assert job["strategy"]["matrix"]["python"] == said
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert [hook["id"] for repo in hooks for hook in repo["hooks"]] == ["ruff", "ruff-format", "mypy"]
