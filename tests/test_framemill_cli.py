"""The command line: every verb has help with an example; errors are one line with the right exit code."""

import inspect
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from framemill import VERBS, main
from pipeline.command import parser

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
    code = inspect.getsource(VERBS[verb])
    reads_config = any(call in code for call in ("args.set", "_config(", "_stages("))
    assert ("--set" in shown) == ("--config" in shown) == reads_config


def test_the_readme_names_every_verb_and_its_commands_parse() -> None:
    text = (ROOT / "README.md").read_text()
    for verb in VERBS:
        assert f"framemill {verb}".replace("train-eval", "train eval") in text, verb
    commands = re.findall(r"^framemill .+$", text, re.MULTILINE)
    assert len(commands) >= 7
    for command in commands:
        parser(VERBS, "").parse_args(shlex.split(command, comments=True)[1:])


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
    done = subprocess.run(
        [sys.executable, "-m", "framemill", "--help"], capture_output=True, text=True, check=True
    )
    assert "VERB" in done.stdout
