"""The data flow is the import order: no file imports against it; heavy libraries stay in their files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["pipeline", "captioner", "tokenizer_stage", "training"]
FILES = [*sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")), ROOT / "framemill.py"]


def module_of(path: Path) -> str:
    """`pipeline/corpus/ids.py` → `pipeline.corpus.corpus.ids`; a package's `__init__.py` → the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports_of(path: Path) -> set[str]:
    """Every dotted name that a file imports, inside functions too: `a.b` for `from a import b`."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def own_imports(path: Path) -> set[str]:
    """The modules of this project that a file imports."""
    targets = (name if name in MODULES else name.rpartition(".")[0] for name in imports_of(path))
    return {target for target in targets if target in MODULES} - {module_of(path)}


def test_every_file_is_looked_at() -> None:
    tracked = {path for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    assert tracked < set(FILES)
    assert len(FILES) > 100


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_above_it(path: Path) -> None:
    order = [*PACKAGES, "framemill"]
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    below = set(order[order.index(own) + 1 :])
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & below, f"{path.name} imports {tops & below}"
    name = str(path.relative_to(ROOT))
    assert "ray" not in tops or name == "pipeline/engine/ray_executor.py"
    assert "av" not in tops or name == "pipeline/media/decode.py"
    assert "torch" not in tops or own != "pipeline" or name == "pipeline/shots/transnet.py"  # its own process
    assert "open_clip" not in tops or own == "captioner"


def test_no_circles() -> None:
    edges = {module: own_imports(path) for module, path in MODULES.items()}
    assert sum(len(targets) for targets in edges.values()) > 300  # a net without holes
    state: dict[str, str] = {}

    def visit(module: str, trail: list[str]) -> None:
        assert state.get(module) != "open", " -> ".join([*trail, module])
        if module in state:
            return
        state[module] = "open"
        for target in sorted(edges[module]):
            visit(target, [*trail, module])
        state[module] = "done"

    for module in sorted(edges):
        visit(module, [])


def test_training_works_without_ray() -> None:
    modules = ", ".join(m for m in sorted(MODULES) if m.startswith("training"))
    code = f"import sys; sys.modules['ray'] = None; import {modules}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("heavy", ["torch", "ray", "av", "open_clip", "transformers", "rich"])
def test_nothing_heavy_at_import_of_the_command_line(heavy: str) -> None:
    code = f"import sys, framemill; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr
