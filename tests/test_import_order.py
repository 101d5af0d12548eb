"""The data flow is the import order: no file imports against it; heavy libraries stay in their files."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ["pipeline", "captioner", "tokenizer_stage", "training"]
ROOMS = [  # in import order: a file imports from its own folder and from those above it
    "pipeline",
    "pipeline.children",
    "pipeline.engine",
    "pipeline.operation",
    "pipeline.lease",
    "pipeline.corpus",
    "pipeline.sources",
    "pipeline.media",
    "pipeline.shots",
    "pipeline.signals",
    "pipeline.dedup",
    "pipeline.toyworld",
    "pipeline.zoo",
    "pipeline.onepass",
    "pipeline.sandbox",
    "pipeline.stages",
    "pipeline.forecast",
    "pipeline.endurance",
    "pipeline.bench",
    "captioner",
    "captioner.training",
    "captioner.audit",
    "tokenizer_stage.vae",
    "tokenizer_stage.text",
    "tokenizer_stage",
    "training",
    "training.run",
    "framemill",
]
LIBRARIES = {  # where a library may be imported; what stands here is imported nowhere else
    "av": ("pipeline/media/", "pipeline/zoo/"),
    "ray": "pipeline/engine/ray_executor.py",
    "open_clip": "captioner/",
    "diffusers": "tokenizer_stage/vae/diffusers.py",
    "boto3": "pipeline/s3.py",
    "botocore": ("pipeline/s3.py", "pipeline/lease/lease_stores.py"),
}
FILES = [*sorted(p for name in PACKAGES for p in (ROOT / name).rglob("*.py")), ROOT / "framemill.py"]


def module_of(path: Path) -> str:
    """`pipeline/corpus/tables.py` → `pipeline.corpus.tables`; a package's `__init__.py` → the package."""
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
    """Also those below new folders: the list comes from git, where there is one."""
    listed = subprocess.run(
        ["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    tracked = {ROOT / name for name in listed.stdout.splitlines() if name.split("/")[0] in PACKAGES}
    assert {path for path in tracked if path.exists()} <= set(FILES)
    assert len(FILES) > 100


def room_of(module: str) -> str:
    """The folder a module stands in; the top-level file is a room of its own."""
    path = MODULES[module]
    return module if path.name == "__init__.py" or path.parent == ROOT else module.rpartition(".")[0]


def test_every_folder_has_its_place() -> None:
    assert {room_of(module) for module in MODULES} == set(ROOMS)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_only_what_stands_above_it(path: Path) -> None:
    own = ROOMS.index(room_of(module_of(path)))
    below = {m for m in own_imports(path) if ROOMS.index(room_of(m)) > own}
    assert not below, f"{path.relative_to(ROOT)} imports {below}, which stands below it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_stay_in_their_files(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    tops = {imported.split(".")[0] for imported in imports_of(path)}
    for library, home in LIBRARIES.items():
        assert library not in tops or name.startswith(home), f"{name} imports {library}"
    assert "torch" not in tops or not name.startswith("pipeline/") or name == "pipeline/shots/transnet.py"


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


@pytest.mark.parametrize("heavy", ["torch", "ray", "av", "open_clip", "transformers", "rich", "boto3"])
def test_nothing_heavy_at_import_of_the_command_line(heavy: str) -> None:
    code = f"import sys, framemill; print({heavy!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout.strip() == "False", done.stderr
