"""Garbage collection: what of a corpus no reader can show any more goes.

In: a corpus whose inputs are all analyzed. Out: how many files, rows and bytes are of no use, and, unless
only that was asked for, a corpus without them: parts and files of other settings than corpus.toml's
(switching back to them is making them again), rows of sources that are no inputs any more, filmstrips of
which no clip is current, what killed tasks left, receipts of runs long ago, dead latents (a tar of which a
quarter is dead is copied without it, small tars into one). Never: a live latent, a row of a current clip.

History goes in an order in which a corpus that is killed half way has less history and no half one: its
sources first, without which nothing of it counts, then its manifests, then the rest.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.command import Args, show
from pipeline.corpus.compaction import Edit
from pipeline.corpus.corpus import AHEAD_FOLDER, PIECES_FOLDER, Corpus
from pipeline.corpus.ids import sources_of
from pipeline.corpus.latent_set import LatentSet, repacked, wasteful
from pipeline.corpus.manifest import (
    CLIPS,
    PREFIX,
    SOURCES,
    STRIP_PARTS,
    place_of,
    tables_of,
)
from pipeline.corpus.snapshot import tars_of_text
from pipeline.errors import UsageError
from pipeline.operation.receipts import old_receipts

FILE = re.compile(  # a manifest, a part or a compacted file, of rows or of filmstrips
    r"(?P<folder>sources|clips|prints|strip_parts|strips|(?:captions|embeddings|text)/[^/]+)/"
    r"_?(?P<fingerprint>[^/._-]+)(?P<kind>[.-])(?P<rest>(?:[^/]*\.)?(?:parquet|json|tar))"
)
HISTORY, LEFT, UNSEEN, KILLED, PAST, WASTE = (
    "files made with other settings",
    "rows of sources that are no inputs any more",
    "filmstrips of no current clip",
    "what killed commands left",
    "receipts of runs before the newest 1,000",
    "tars of latents that fewer or smaller ones replace",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage:
    """One kind of what is of no use. The bytes of rows are their share of their files."""

    what: str
    files: int = 0
    rows: int = 0
    bytes: int = 0


def compact(args: Args) -> int:
    """Fold the tables of a corpus and delete what its settings and inputs do not refer to any more."""
    corpus = Corpus(args.corpus).require()
    if args.dry_run:
        found, counts = collect(corpus, dry_run=True), {}
    else:
        before = _sizes_bytes(corpus)
        with corpus.writing("compact"):  # which folds
            found = collect(corpus)
        after = _sizes_bytes(corpus)
        counts = {
            "files": [len(before), len(after)],
            "bytes": [sum(before.values()), sum(after.values())],
        }
    lines = [
        f"{row.what}: " + ", ".join(f"{n} {unit}" for unit, n in list(asdict(row).items())[1:] if n)
        for row in found
        if row.files or row.rows
    ]
    lines += [f"{name}: {was} before, {now} now" for name, (was, now) in counts.items()]
    lines += ["nothing was changed"] if args.dry_run else []
    show(args, {"dry_run": args.dry_run, "garbage": [asdict(row) for row in found], **counts}, lines)
    return 0


def collect(corpus: Corpus, *, dry_run: bool = False) -> list[Garbage]:
    """Deletes what is of no use, or only says what is, by kind.

    Raises:
        UsageError: inputs are not analyzed yet: what they need may look like garbage.
    """
    open_inputs = corpus.inputs().num_rows - corpus.sources(["source_key"]).num_rows
    if open_inputs:
        raise UsageError(
            f"{open_inputs} inputs of {corpus.root} are not analyzed yet",
            expected="a corpus that is up to date",
            fix="framemill run or analyze with the same sources, then this again",
        )
    sizes, places = _sizes_bytes(corpus), corpus.fingerprints()
    files = [file for file in map(FILE.fullmatch, sizes) if file]
    history = [f[0] for f in files if f["fingerprint"] != places.get(place_of(f["folder"]), "")[:PREFIX]]
    current = [file for file in files if file[0] not in set(history)]
    keys = {file[0]: f"{file['fingerprint']}-{file['rest']}".removesuffix(".parquet") for file in current}
    strips = {keys[file[0]]: file[0] for file in current if file["folder"] == "strips"}
    needed = corpus.strip_parts(corpus.clips(["clip_id"])["clip_id"]).unique().drop_null().to_pylist()
    unseen = {key: strips[key] for key in strips.keys() - set(needed)}
    marked = {keys[file[0]] for file in current if file["folder"] == SOURCES.folder}
    left = [path for path in sizes if path.startswith((f"{PIECES_FOLDER}/", f"{AHEAD_FOLDER}/"))]
    left += [
        f[0] for f in current if f["folder"] == CLIPS.folder and f["kind"] == "-" and keys[f[0]] not in marked
    ]
    for name in corpus.sets("text"):
        (table,) = tables_of(place := f"text/{name}")
        tars = tars_of_text(corpus.storage, table, places[place])
        left += [path for path, clip_ids in tars.items() if not len(clip_ids)]
    past = old_receipts(corpus.storage)
    erasures = {place: list(_erasures(corpus, place, sorted(unseen), sizes)) for place in places}
    if not dry_run:
        for place, of_place in erasures.items():
            corpus.fold(place, {erasure.folder: erasure.edit for erasure in of_place})
        marks = [path for path in history if path.startswith(f"{SOURCES.folder}/")]
        manifests = [path for path in history if path.endswith(".json")]
        for paths in (marks, manifests, history, unseen.values(), left):
            corpus.storage.delete_all(paths)
        corpus.storage.delete_all(past)
    rows = [erasure for of_place in erasures.values() for erasure in of_place]
    waste = [path for name in corpus.sets("latents") for path in _repack(corpus, name, dry_run=dry_run)]
    return [
        _files(HISTORY, history, sizes),
        Garbage(what=LEFT, rows=sum(e.rows for e in rows), bytes=sum(e.bytes for e in rows)),
        _files(UNSEEN, unseen.values(), sizes),
        _files(KILLED, left, sizes),
        _files(PAST, past, sizes),
        _files(WASTE, waste, sizes),
    ]


def _repack(corpus: Corpus, name: str, *, dry_run: bool) -> list[str]:
    """Copies what is live of wasteful tars into new ones, whose index is current before the old ones go;
    paths of the old ones."""
    latents = LatentSet(corpus.storage, name)
    state, sizes = latents.state(), corpus.storage.sizes_bytes(latents.folder, ".tar")
    groups = wasteful(state, sizes, corpus.config().encode.shard_mb * 1e6)
    paths = [latents.shard_path(shard) for group in groups for shard in group]
    if groups and not dry_run:
        every = pa.chunked_array([pa.array([True] * len(state.rows), pa.bool_())])
        latents.commit(*repacked(latents, state, groups, every))
        corpus.storage.delete_all(paths)
    return paths


def _sizes_bytes(corpus: Corpus) -> dict[str, int]:
    """Path → size of every file below the root."""
    return {corpus.storage.relative(file): file.size_bytes for file in corpus.storage.walk()}


def _files(what: str, paths: Collection[str], sizes: dict[str, int]) -> Garbage:
    return Garbage(what=what, files=len(paths), bytes=sum(map(sizes.__getitem__, paths)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Erasure:
    """An edit that erases a table's rows of no use: how many, and their share of its files' bytes."""

    folder: str
    edit: Edit
    rows: int
    bytes: int


def _erasures(
    corpus: Corpus, place: str, unseen: Sequence[str], sizes: Mapping[str, int]
) -> Iterator[_Erasure]:
    """Those of the tables of a stage."""
    keys = corpus.inputs()["source_key"].combine_chunks()
    contents = corpus.sources(["source_id"])["source_id"].combine_chunks()
    for table in tables_of(place):
        rows = corpus.rows(table, place)  # of the key alone
        edit = Edit(ids=pa.array(unseen, pa.string()), column="part")
        if table is not STRIP_PARTS:
            of_use = (
                pc.is_in(rows[table.id], value_set=keys)
                if table is SOURCES
                else pc.is_in(sources_of(rows[table.id]), value_set=contents)
            )
            edit = Edit(ids=rows[table.id].filter(pc.invert(of_use)).combine_chunks())
        useless = pc.sum(edit.hits(rows, table)).as_py() or 0
        size_bytes = sum(n for path, n in sizes.items() if path.startswith(f"{table.folder}/"))
        if useless:
            share_bytes = size_bytes * useless // rows.num_rows
            yield _Erasure(folder=table.folder, edit=edit, rows=useless, bytes=share_bytes)
