"""The wheel holds everything: installed away from the checkout, the commands of the README run from it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

import pipeline

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "framemill.py")
DATA = (".toml", ".css", ".json", ".safetensors", ".md", ".typed")
PACKAGES = ("pipeline", "captioner", "tokenizer_stage", "training")


def run(*command: object, cwd: Path) -> str:
    words = [str(word) for word in command]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def framemill(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script of a wheel, in an environment that has the dependencies but not the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in SHIPPED:
        shutil.copy(ROOT / name, source)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", source, "--no-deps", "--no-build-isolation", "-w", folder, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    run(*pip, "--python", python, "install", "--no-deps", wheel, cwd=folder)
    site = Path(
        run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    )
    # A path in a .pth file is searched, but the .pth files in it (the checkout's) are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    where = run(python, "-c", "import pipeline; print(pipeline.__file__)", cwd=folder)
    assert where.startswith(str(site))
    return folder / "env" / "bin" / "framemill"


def test_help(framemill: Path, tmp_path: Path) -> None:
    assert "toyworld" in run(framemill, "--help", cwd=tmp_path)
    assert run(framemill, "--version", cwd=tmp_path) == f"framemill {pipeline.__version__}\n"


def test_what_is_no_code_is_in_it_too(framemill: Path, tmp_path: Path) -> None:
    printed = run(
        framemill.with_name("python"), "-c", "import pipeline; print(pipeline.__file__)", cwd=tmp_path
    )
    site = Path(printed.strip()).parents[1]
    data = [path for name in PACKAGES for path in (ROOT / name).rglob("*") if path.suffix in DATA]
    files = [path.relative_to(ROOT) for path in data]
    assert len(files) > 10
    assert not [str(file) for file in files if not (site / file).is_file()]


@pytest.mark.slow
def test_run_and_sample(framemill: Path, tmp_path: Path) -> None:
    run(framemill, "toyworld", "toy", "--videos", "1", "--images", "1", cwd=tmp_path)
    run(framemill, "run", "toy", "--out", "corpus", cwd=tmp_path)
    assert (tmp_path / "corpus" / "report" / "index.html").stat().st_size > 10_000
    assert list((tmp_path / "corpus" / "latents" / "default").glob("shard-*.tar"))
    run(framemill, "verify", "corpus", cwd=tmp_path)
    run(framemill, "run", ROOT / "infra" / "media", "--out", "clips", cwd=tmp_path)
    assert list((tmp_path / "clips" / "latents" / "default").glob("shard-*.tar"))
    run(
        framemill,
        "sample",
        "--prompt",
        "a red circle",
        "--frames",
        "1",
        "--steps",
        "4",
        "--out",
        "red.png",
        cwd=tmp_path,
    )
    assert (tmp_path / "red.png").stat().st_size > 0
