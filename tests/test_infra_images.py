"""The Dockerfile, the Slurm script and the guide's commands, as far as they can be checked where none of them
runs. hadolint and shellcheck look at them where they are installed."""

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from framemill import all_verbs

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "infra" / "docker" / "Dockerfile"
SLURM = ROOT / "infra" / "slurm" / "framemill.sbatch"
GUIDE = ROOT / "docs" / "cluster.md"


def instructions() -> list[tuple[str, str]]:
    """(word, rest) of each instruction, lines that go on joined and comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for line in joined.splitlines() if line for word, _, rest in [line.partition(" ")]]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name."""
    named: dict[str, list[tuple[str, str]]] = {"": []}
    for word, rest in instructions():
        if word == "FROM":
            named[rest.split(" AS ")[1]] = []
        named[list(named)[-1]].append((word, rest))
    return named


def copied() -> list[str]:
    """What the image takes from the checkout."""
    rests = [rest for word, rest in instructions() if word == "COPY" and not rest.startswith("--from")]
    return [name for rest in rests for name in rest.split()[:-1]]


def test_the_image_takes_what_is_there_and_what_the_context_lets_through() -> None:
    passed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(copied()) == sorted(passed)
    for name in copied():
        assert (ROOT / name).exists(), name


def test_the_image_holds_every_package_and_their_data() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    modules = project["tool"]["setuptools"]["py-modules"]
    needed = {*(pattern.rstrip("*") for pattern in packages), *(f"{name}.py" for name in modules)}
    assert needed | {project["project"]["readme"], "constraints.txt", "pyproject.toml"} <= set(copied())
    extras = project["project"]["optional-dependencies"]
    for word, rest in instructions():
        if word == "ARG" and rest.startswith("EXTRAS="):
            assert set(rest.partition("=")[2].split(",")) <= set(extras)
            assert "cluster" in rest


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_images_run_as_nobody_and_prove_that_they_run(target: str) -> None:
    words = stages()[target]
    assert ("USER", "1000") in words
    assert words[-1] == ("RUN", "framemill --version && ray --version")
    assert words.index(("USER", "1000")) < len(words) - 1


def test_no_layer_keeps_a_secret_and_versions_are_the_tested_ones() -> None:
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip " in rest]
    assert installs
    for rest in installs:
        assert rest.startswith("--mount=type=secret,id=pip,")
        assert rest.count("pip install") == rest.count("-c constraints.txt")


def test_the_linters_agree() -> None:
    commands = [("hadolint", DOCKERFILE), ("shellcheck", SLURM)]
    installed = [(shutil.which(name), path) for name, path in commands if shutil.which(name)]
    if not installed:
        pytest.skip("neither hadolint nor shellcheck")
    for command in installed:
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def blocks() -> list[str]:
    """The commands of the guide, a block each."""
    return re.findall(r"^```(?:text)?\n(.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)


def framemill_commands() -> list[list[str]]:
    """The words after `framemill` of every command, whoever starts it, and after the Slurm script."""
    commands = []
    for line in "".join(blocks()).splitlines():
        words = shlex.split(line, comments=True) if not line.startswith("framemill:") else []
        starts = [n for n, word in enumerate(words) if word == "framemill" or word.endswith(".sbatch")]
        if starts and words[0] != "kubectl":
            commands.append(words[starts[-1] + 1 :])
    return commands


def test_the_commands_of_the_guide_parse() -> None:
    commands = framemill_commands()
    assert len(commands) >= 9
    for words in commands:
        all_verbs().parser.parse_args(words)


def test_the_guide_names_no_port_that_ray_takes_for_workers() -> None:
    ports = re.findall(r"(?:port=|127\.0\.0\.1:|-p )(\d+)", "".join(blocks()))
    assert len(ports) >= 6
    assert not [port for port in ports if 10002 <= int(port) <= 19999]


def test_scripts_are_bash() -> None:
    shell = [block for block in blocks() if not block.startswith("framemill:")]
    for text in (SLURM.read_text(), *shell):
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{done.stderr}\n{text}"


def test_the_guide_names_every_file_of_the_deployment() -> None:
    text = GUIDE.read_text()
    folders = ("docker", "ray", "slurm", "policy")
    files = [path for folder in folders for path in (ROOT / "infra" / folder).iterdir() if path.is_file()]
    assert len(files) >= 5
    assert [path.name for path in files if f"infra/{path.parent.name}/{path.name}" not in text] == []
    for name in re.findall(r"overlays/(\w+)", text):
        assert (ROOT / "infra" / "kuberay" / "overlays" / name / "kustomization.yaml").is_file()
