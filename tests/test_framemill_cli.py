"""The command line: every verb has help with an example; errors are one line with the right exit code."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline
from framemill import all_verbs, main

VERBS = all_verbs().names
WITH_SETTINGS = (
    "text",
    *("toyworld", "analyze", "plan", "judge", "caption", "encode", "run", "cost", "train"),
    *("captioner train", "vae train"),
)
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "example: framemill" in re.sub(r"\s+", " ", shown)
    assert "--json" in shown
    assert "--debug" in shown
    assert ("--set" in shown) == ("--config" in shown) == (verb in WITH_SETTINGS)


def test_the_readme_names_every_verb_and_its_commands_parse() -> None:
    text = (ROOT / "README.md").read_text()
    for verb in VERBS:
        assert f"framemill {verb}".replace("train-eval", "train eval") in text, verb
    commands = re.findall(r"^framemill .+$", text, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        all_verbs().parser.parse_args(shlex.split(command, comments=True)[1:])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status", "no-such-corpus"], 1, "no corpus at no-such-corpus; fix: framemill analyze"),
        (["run", "no-such-folder", "--out", "x"], 2, "no files at no-such-folder"),
        (
            ["run", ".", "--out", "x", "--set", "judge.min_seconds=1"],
            2,
            "unknown config key 'judge.min_seconds'",
        ),
        (["sample", "--prompt", "x", "--size", "wide"], 2, "expected WIDTHxHEIGHT"),
    ],
)
def test_errors_are_one_line_that_says_the_fix(
    words: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    err = capsys.readouterr().err.strip()
    assert said in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


def test_the_console_script_and_the_module_agree() -> None:
    script = Path(sys.executable).with_name("framemill")
    commands = ([str(script), "--help"], [sys.executable, "-m", "framemill", "--help"])
    helps = [subprocess.run(c, capture_output=True, text=True, check=True, cwd=ROOT).stdout for c in commands]
    assert helps[0] == helps[1]
    assert "VERB" in helps[0]


def test_the_version_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"framemill {pipeline.__version__}\n"


def test_the_log_bears_the_identity_of_its_run(tmp_path: Path) -> None:
    for _ in range(2):
        main(["status", str(tmp_path / "none"), "--log-file", str(tmp_path / "run.log")])
    lines = (tmp_path / "run.log").read_text().splitlines()
    runs = [line.split()[2] for line in lines]
    assert len(set(runs)) == 2
    assert all(re.fullmatch("[0-9a-f]{8}", run) for run in runs)
    assert "framemill" in lines[0]
    assert "no corpus at" in lines[1]
