"""Who must not be on both sides of a split: sources, their copies, and what a manifest joins."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from tokenizer_stage.split_groups import DUPLICATES_PATH, connected, groups_of
from training.rng import SHARES, hashed_share

PRINT = "0123456789abcdef"


@pytest.mark.parametrize("seed", range(20))
def test_connected_finds_the_components_of_a_random_graph(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randrange(1, 60)
    pairs = [(draw.randrange(count), draw.randrange(count)) for _ in range(draw.randrange(0, 50))]
    head = list(range(count))  # by plain relabelling, a pair after another
    for a, b in pairs:
        low, high = sorted((head[a], head[b]))
        head = [low if one == high else one for one in head]
    one, other = (np.array([pair[n] for pair in pairs], np.int64) for n in (0, 1))
    assert connected(count, one, other).tolist() == head


def test_a_long_chain_is_one_group() -> None:
    order = np.random.default_rng(0).permutation(3000)
    assert not connected(3000, order[:-1], order[1:]).any()


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Eight sources; 0 and 1 have clips in one group of copies, 1 and 2 too; 4 to 6 say one video_id."""
    corpus = Corpus(str(tmp_path))
    corpus.record(Config(), "analyze", PRINT)
    ids = [f"{n:016x}" for n in range(8)]
    films = {4: "a", 5: "a", 6: "a", 7: "b"}
    inputs = [
        {
            "source_key": i,
            "uri": f"/v/{i}.mp4",
            "attributes": json.dumps({"video_id": films[n]}) if n in films else None,
        }
        for n, i in enumerate(ids)
    ]
    sources = [{"source_key": i, "source_id": i, "uri": f"/v/{i}.mp4", "status": "ok"} for i in ids]
    copies = [("g", 0), ("g", 1), ("h", 1), ("h", 2)]
    first = {"g": ids[0], "h": ids[1]}
    duplicates = [{"group_id": f"{first[g]}-0-1", "clip_id": f"{ids[n]}-{g == 'h'}-1"} for g, n in copies]
    for path, rows, schema in (
        (INPUTS_PATH, inputs, tables.INPUTS),
        (f"sources/{PRINT[:8]}-0.parquet", sources, tables.SOURCES),
        (DUPLICATES_PATH, duplicates, tables.DUPLICATES),
    ):
        corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))
    return corpus


def test_copies_and_a_column_of_the_manifest_join_sources(corpus: Corpus) -> None:
    ids = pa.chunked_array([[f"{n:016x}" for n in (7, 0, 3, 1, 2, 4, 5, 6, 0)]])
    plain, joined = (groups_of(corpus, ids, column).to_pylist() for column in ("", "video_id"))
    b, zero, three, one, two, four, five, six, again = plain
    assert zero == one == two == again
    assert len({b, zero, three, four, five, six}) == 6
    assert joined[:5] == plain[:5]
    assert set(joined[5:8]) == {four}


def test_a_source_that_is_joined_with_none_is_split_by_its_own_hash(corpus: Corpus) -> None:
    """As it always was: sets of older versions and new ones hold out the same clips."""
    ids = [f"{n:016x}" for n in (3, 7)]
    groups = groups_of(corpus, pa.chunked_array([ids]), "").to_pylist()
    assert [group / SHARES for group in groups] == [hashed_share(i) for i in ids]
