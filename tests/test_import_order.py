"""The data flow is the import order: no file imports against it; heavy libraries stay in their files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ["pipeline", "captioner", "tokenizer_stage", "training", "framemill"]
FILES = sorted(p for name in ORDER for p in [*ROOT.glob(f"{name}/*.py"), *ROOT.glob(f"{name}.py")])


def imports_of(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_above_it(path: Path) -> None:
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    below = set(ORDER[ORDER.index(own) + 1 :])
    tops = {name.split(".")[0] for name in imports_of(path)}
    assert not tops & below, f"{path.name} imports {tops & below}"
    name = str(path.relative_to(ROOT))
    assert "ray" not in tops or name == "pipeline/ray_executor.py"
    assert "av" not in tops or name == "pipeline/media.py"
    assert "torch" not in tops or own != "pipeline" or name == "pipeline/transnet.py"  # its own process
    assert "open_clip" not in tops or own == "captioner"


def test_no_circles() -> None:
    edges = {}
    for path in FILES:
        module = str(path.relative_to(ROOT)).removesuffix(".py").replace("/", ".")
        edges[module] = {".".join(n.split(".")[:2]) for n in imports_of(path)}
    seen: dict[str, int] = {}

    def visit(module: str, trail: list[str]) -> None:
        assert seen.get(module) != 1, " -> ".join([*trail, module])
        if module in seen or module not in edges:
            return
        seen[module] = 1
        for target in sorted(edges[module]):
            visit(target, [*trail, module])
        seen[module] = 2

    for module in sorted(edges):
        visit(module, [])


def test_training_works_without_ray() -> None:
    code = "import sys; sys.modules['ray'] = None; import training.train; print('ray' in dir(training.train))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("heavy", ["torch", "ray", "av", "open_clip", "transformers", "rich"])
def test_nothing_heavy_at_import_of_the_command_line(heavy: str) -> None:
    code = f"import sys, framemill; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr
