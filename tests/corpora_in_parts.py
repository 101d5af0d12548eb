"""Small corpora in parts, written row by row, and all that readers show of one."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from pipeline.config import Config
from pipeline.corpus import tables
from pipeline.corpus.compaction import unique_sorted
from pipeline.corpus.corpus import INPUTS_PATH, Corpus
from pipeline.storage import sha256_hex

OLD, NEW, CAPTIONED = "a" * 16, "b" * 16, "c" * 16


def content(number: int) -> str:
    return sha256_hex(str(number).encode())[:16]


def build(root: Path, sources: Iterable[int], *, per_part: int = 2, stage: str = NEW) -> Corpus:
    """A corpus in parts, as an older version left it. Every fifth source failed; 1 and 2 have one content."""
    corpus, numbers = Corpus(str(root)), list(sources)
    keys = [{"source_key": content(1000 + n), "uri": f"/{n:03}.mp4"} for n in numbers]
    write(corpus, INPUTS_PATH, keys, tables.INPUTS)
    for start in range(0, len(numbers), per_part):
        add_part(corpus, numbers[start : start + per_part], stage)
    corpus.record(Config(), "captions/x", CAPTIONED)
    corpus.record(Config(), "analyze", stage)
    text = corpus.storage.read_bytes("corpus.toml")
    corpus.storage.write_bytes("corpus.toml", text.replace(b"format_version = 2", b"format_version = 1"))
    return corpus


def add_part(corpus: Corpus, numbers: list[int], stage: str = NEW, *, marked: bool = True) -> str:
    key = f"{stage[:8]}-{sha256_hex(repr(numbers).encode())[:16]}"
    sources, clips, strips, captions = [], [], [], []
    for n in numbers:
        source_id = content(2 if n == 1 else n)
        row = {
            "source_key": content(1000 + n),
            "source_id": source_id,
            "uri": f"/{n:03}.mp4",
            "kind": "video",
        }
        if n % 5 == 0:
            sources.append(row | {"status": "failed", "reason": "broken"})
            continue
        sources.append(row | {"status": "ok"})
        for clip_id in (f"{source_id}-{at}-{at + 1}" for at in range(2)):
            clips.append({"clip_id": clip_id, "source_id": source_id, "status": "ok", "kind": "video"})
            film = {
                "frames": [b"jpeg of " + clip_id.encode()],
                "print": bytes(176) if clip_id[-1] == "1" else None,
            }
            strips.append({"clip_id": clip_id, "times_s": [0.0], **film})
            captions.append({"clip_id": clip_id, "short": f"of {clip_id}", "status": "ok"})
    write(corpus, f"strips/{key}.parquet", strips, tables.STRIPS)
    write(corpus, f"clips/{key}.parquet", clips, tables.CLIPS)
    if marked:
        write(corpus, f"captions/x/{CAPTIONED[:8]}-{key[9:]}.parquet", captions, tables.CAPTIONS)
        write(corpus, f"sources/{key}.parquet", sources, tables.SOURCES)
    return key


def write(corpus: Corpus, path: str, rows: list[dict[str, object]], schema: pa.Schema) -> None:
    corpus.storage.write_bytes(path, tables.to_parquet(tables.from_rows(rows, schema)))


def rows_of(corpus: Corpus) -> dict[str, pa.Table]:
    """What every reader shows."""
    ids = corpus.clips()["clip_id"]
    prints = unique_sorted(pa.concat_tables(corpus.prints()), ("clip_id",))
    return {
        "sources": corpus.sources(),
        "clips": corpus.clips(),
        "strips": corpus.strips(),
        "captions": corpus.captions("x"),
        "prints": prints,
        "parts": pa.table({"clip": ids, "part": corpus.strip_parts(ids)}),
        "fingerprint": pa.table({"is": [corpus.analyzed_fingerprint()]}),
    }


def same(a: Corpus, b: Corpus) -> bool:
    ours, theirs = rows_of(a), rows_of(b)
    return all(ours[name].equals(theirs[name]) for name in theirs)


def contents(corpus: Corpus) -> dict[str, bytes]:
    root = Path(corpus.root)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
