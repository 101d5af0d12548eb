"""What the documents and docstrings name exists."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(
    r"(?<![\w./-])((?:pipeline|captioner|tokenizer_stage|training|infra|tests|docs)/[\w./-]*\w\.(?:py|toml|md|sh|css|json|yml))\b"
)
MODULE = re.compile(r"`((?:pipeline|captioner|tokenizer_stage|training)(?:\.\w+)+)`")


def texts() -> list[Path]:
    """Every file of the project that people read as text."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    paths = [ROOT / name for name in listed.splitlines()] or [*ROOT.rglob("*.py"), *ROOT.glob("*.md")]
    return [path for path in paths if path.suffix in (".py", ".md", ".toml", ".sh") and path.is_file()]


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
