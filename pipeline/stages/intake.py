"""What a run takes in, beside what the last one took in.

In: the words that name sources. Out: the inputs table of the run, and remarks for its result; people hear of
what is left out and what is missing on stderr. Never: a source's content.
"""

import sys
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipeline.corpus.corpus import Corpus
from pipeline.sources.absent import absent_inputs, absent_line, absent_remark, with_absent
from pipeline.sources.discover import discover

NOTES = 20  # on the sources, that a run says one by one


def take_in(corpus: Corpus, src: Sequence[str], *, keep_absent: bool) -> tuple[pa.Table, dict[str, Any]]:
    """Schema INPUTS, and the remarks. `keep_absent` keeps sources of the last run that `src` does not name.

    Raises:
        StorageError: a folder cannot be listed that sources of the last run lie in.
    """
    sources = discover(src)
    _say_left_out(sources.ignored, sources.notes)
    closed = () if keep_absent else sources.closed
    before = corpus.inputs()
    absent = absent_inputs(before, sources.inputs, corpus.taken_down_keys(), closed)
    if line := absent_line(absent, before.num_rows, keep=keep_absent):
        print(line, file=sys.stderr, flush=True)
    inputs = with_absent(sources.inputs, absent) if keep_absent else sources.inputs
    notes = list(sources.notes[:NOTES])
    return inputs, {"absent": absent_remark(absent, keep=keep_absent), "notes": notes}


def _say_left_out(ignored: Sequence[str], notes: Sequence[str]) -> None:
    """Names the first of what discovery left out or remarked."""
    if ignored:
        named = ", ".join(ignored[:3]) + (", …" if len(ignored) > 3 else "")
        print(f"{len(ignored)} files without a media extension left out: {named}", file=sys.stderr)
    for note in notes[:NOTES]:
        print(note, file=sys.stderr)
    if len(notes) > NOTES:
        print(f"… and {len(notes) - NOTES} more notes on the sources", file=sys.stderr)
