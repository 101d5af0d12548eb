"""Garbage collection: what no reader shows goes, what one shows stays, and both are priced."""

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from corpora_in_parts import NEW, OLD, add_part, build, content, contents, rows_of, write

from framemill import main
from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import INPUTS_PATH, PIECES_FOLDER, Corpus
from pipeline.corpus.garbage import HISTORY, KILLED, LEFT, UNSEEN, collect
from pipeline.errors import UsageError
from pipeline.storage import Buffer, Storage


def littered(root: Path) -> Corpus:
    """A corpus of sources 0 to 5: with history, sources 6 to 9 that left, and what a killed task left."""
    corpus = build(root, range(10), stage=OLD)
    corpus.record(Config(), "captions/x", OLD)  # another captioner's settings, which captioned nothing yet
    for start in range(0, 10, 2):
        add_part(corpus, [start, start + 1])
    corpus.record(Config(), "captions/x", "c" * 16)
    corpus.record(Config(), "analyze", NEW)
    corpus.fold_all()
    write(corpus, INPUTS_PATH, corpus.inputs()[:6].to_pylist(), tables.INPUTS)
    add_part(corpus, [7, 11], marked=False)
    corpus.storage.write_bytes(f"{PIECES_FOLDER}/x.npz", b"a piece")
    return corpus


def shown(corpus: Corpus) -> dict[str, pa.Table]:
    """What readers show of current clips."""
    rows = rows_of(corpus)
    current = pc.is_in(rows["captions"]["clip_id"], value_set=rows["clips"]["clip_id"].combine_chunks())
    return rows | {"captions": rows["captions"].filter(current)}


def names(corpus: Corpus) -> set[str]:
    return {name for name in contents(corpus) if "lease" not in name}


def test_a_corpus_is_left_with_what_it_would_have_without_its_past(tmp_path: Path) -> None:
    corpus, young = littered(tmp_path / "old"), build(tmp_path / "young", range(6))
    before, size_bytes = shown(corpus), sum(map(len, contents(corpus).values()))
    priced = {row.what: row for row in collect(corpus, dry_run=True)}
    assert {row.what: row for row in collect(corpus)} == priced
    young.fold_all()
    collect(young)  # 1 and 2 have one content: one of their parts is of no use
    assert {n: d for n, d in contents(corpus).items() if n != "corpus.toml"} == {
        n: d for n, d in contents(young).items() if n != "corpus.toml"
    }
    assert all(table.equals(before[name]) for name, table in shown(corpus).items())
    assert priced[HISTORY].files == 5 + 5 + 5  # of sources, clips and strips
    assert priced[LEFT].rows == 4 + 8 + 4 + 8 + 5  # sources, clips, prints, captions, strip_parts
    assert (priced[UNSEEN].files, priced[KILLED].files) == (4, 2)
    freed_bytes = size_bytes - sum(map(len, contents(corpus).values()))
    of_files = sum(row.bytes for row in priced.values() if row.files)
    assert of_files < freed_bytes < of_files + priced[LEFT].bytes  # small files are mostly heads
    assert sum(row.files for row in priced.values()) > 20
    assert not any(row.files + row.rows for row in collect(corpus))


def test_a_dry_run_changes_nothing_and_the_verb_says_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = littered(tmp_path / "c")
    before = contents(corpus)
    assert main(["compact", corpus.root, "--dry-run", "--json"]) == 0
    priced = json.loads(capsys.readouterr().out)
    assert contents(corpus) == before
    assert main(["compact", corpus.root, "--json"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["garbage"] == priced["garbage"]
    assert done["files"] == [len(before), len(names(corpus))]
    assert main(["compact", corpus.root]) == 0
    assert "files: " in capsys.readouterr().out


def test_nothing_is_taken_for_garbage_while_sources_are_not_analyzed(tmp_path: Path) -> None:
    corpus = littered(tmp_path / "c")
    rows = [*corpus.inputs().to_pylist(), {"source_key": content(5000), "uri": "/new.mp4"}]
    write(corpus, INPUTS_PATH, rows, tables.INPUTS)
    before = names(corpus)
    with pytest.raises(UsageError, match=r"1 inputs of .* are not analyzed yet"):
        collect(corpus)
    assert names(corpus) == before


def test_killed_at_any_deletion_a_corpus_shows_what_it_did_and_history_is_whole_or_nothing(
    tmp_path: Path,
) -> None:
    class Dying(Storage):
        def __init__(self, root: str, changes: int) -> None:
            super().__init__(root)
            self.left = changes

        def write_bytes(self, rel: str, data: Buffer) -> None:
            self.delete_all([])
            super().write_bytes(rel, data)

        def delete_all(self, rels: Iterable[str]) -> None:
            for rel in [*rels]:
                self.left -= 1
                if self.left < 0:
                    raise KeyboardInterrupt
                super().delete_all([rel])

    wanted, changes = shown(littered(tmp_path / "undisturbed")), 0
    done = littered(tmp_path / "done")
    collect(done)
    while True:
        corpus = littered(tmp_path / str(changes))
        corpus.storage = Dying(corpus.root, changes)
        try:
            collect(corpus)
            break
        except KeyboardInterrupt:
            after = Corpus(corpus.root)
            assert all(table.equals(wanted[name]) for name, table in shown(after).items()), changes
            after.record(after.config(), "analyze", OLD)
            analyzed = after.sources().filter(after.sources()["status"].to_numpy(False) == "ok")
            assert set(analyzed["source_id"].to_pylist()) == set(after.clips()["source_id"].to_pylist()), (
                changes
            )
            after.record(after.config(), "analyze", NEW)
            collect(after)
            assert contents(after) == contents(done), changes
        changes += 9
    assert changes > 20
