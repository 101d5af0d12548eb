"""What a command says reaches whoever reads it, in whatever encoding."""

import argparse
import io
import json
from contextlib import redirect_stdout

import pytest

from pipeline.command import show

RESULT = {"uri": "/raw/Käfer/日本.mp4", "reason": "2 × no such file"}


def said(encoding: str, *, as_json: bool) -> str:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    with redirect_stdout(out):
        show(argparse.Namespace(json=as_json), RESULT)
    out.seek(0)
    return out.read()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_a_result_is_written_in_every_encoding(encoding: str) -> None:
    """The work is done by then: exit code 1 for a name would be wrong."""
    assert json.loads(said(encoding, as_json=True)) == RESULT
    text = said(encoding, as_json=False)
    assert ("日本" if encoding == "utf-8" else "\\u65e5\\u672c") in text
    assert ("Käfer" if encoding != "ascii" else "K\\xe4fer") in text
