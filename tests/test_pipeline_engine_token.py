"""A cluster that asks for a token: who brings it works, who does not is told so in one line."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.endurance.raylets import Raylets

ROOT = Path(__file__).resolve().parents[1]
TOKEN = "0123456789abcdef" * 4

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster() -> Iterator[Raylets]:
    with (
        tempfile.TemporaryDirectory(prefix="fm-") as folder,
        Raylets(Path(folder), head_cpus=1, token=TOKEN) as cluster,
    ):
        yield cluster


def analyzed(environment: dict[str, str], folder: Path) -> tuple[int, list[str]]:
    """The exit code of a run over one image, and what it says on stderr beside its progress."""
    Image.effect_noise((96, 64), 40).convert("RGB").save(folder / "a.png")
    words = ["analyze", str(folder / "a.png"), "--out", str(folder / "corpus"), "--executor", "ray"]
    done = subprocess.run(
        [sys.executable, "-m", "framemill", *words],
        env=environment | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("analyze: ")]


def test_who_brings_the_token_works(cluster: Raylets, tmp_path: Path) -> None:
    assert analyzed(cluster.environment, tmp_path) == (0, [])


@pytest.mark.parametrize("brings", ["nothing", "another", "no file"])
def test_who_does_not_is_told_in_one_line(cluster: Raylets, tmp_path: Path, brings: str) -> None:
    environment = {n: v for n, v in cluster.environment.items() if not n.startswith("RAY_AUTH")}
    if brings == "nothing":
        environment |= {"RAY_AUTH_MODE": "disabled"}
    else:
        environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    if brings != "no file":
        (tmp_path / "token").write_text({"another": "f" * 64}.get(brings, ""))
    code, said = analyzed(environment, tmp_path)
    assert code == 2, said
    assert len(said) == 1, said
    assert f"cannot join the Ray at {cluster.environment['RAY_ADDRESS']}" in said[0]
    assert "RAY_AUTH_TOKEN_PATH" in said[0]
    assert not (tmp_path / "corpus" / "sources").exists()
