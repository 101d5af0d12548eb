"""Clip ids: what a source and a span make, the readers take apart again."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corpus.ids import clip_id, source_of, sources_of

SOURCE = st.text("0123456789abcdef", min_size=16, max_size=16)
TIMES = st.floats(0, 1e6)


@settings(deadline=None)
@given(SOURCE, TIMES, TIMES)
def test_an_id_begins_with_its_source(source_id: str, start_s: float, end_s: float) -> None:
    made = clip_id(source_id, start_s, end_s)
    assert source_of(made) == source_id
    assert sources_of(pa.array([made, None])).to_pylist() == [source_id, None]


def test_times_are_whole_milliseconds() -> None:
    assert clip_id("0" * 16, 1 / 3, 2.0) == f"{'0' * 16}-333-2000"
