"""Which clip goes into which shard: a function of the clips alone.

In: the kept clips, the shard size, the encode fingerprint. Out: one task a shard. A clip's shard is a
hash of its id modulo a power of two, so a few clips more or less rewrite only the shards they fall in
(all of them when the power of two changes). Captions are carried along but are no part of a shard's key:
new captions never re-encode. Provenance is part of it, but not of `latent_key`, which names a latent: a
shard whose samples only got another licence is written again around its stored latents. Opens no file.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.tables import CAPTIONS, CLIPS, PROVENANCE, SOURCES
from pipeline.engine.task_list import TaskList
from pipeline.engine.tasks import part_key
from pipeline.settings import fingerprint

CAPTION_COLUMNS = ("short", "detailed", "original", "captioner")
LATENT_COLUMNS = (  # what decides a latent's bytes, with the encode fingerprint
    "clip_id",
    "source_id",
    "kind",
    "start_s",
    "end_s",
    "fps",
    "width",
    "height",
    "crop",
    "phash",
)
CLIP_COLUMNS = (*LATENT_COLUMNS, "signals")  # what decides a sample's: its record holds the signals
PROVENANCE_COLUMNS = tuple(name for name, _ in PROVENANCE)
SOURCE_COLUMNS = ("source_id", "uri", "clock_jumps", *PROVENANCE_COLUMNS)
HASHED_AT_ONCE = 10_000  # clips whose rows are Python values at a time
PLAN = pa.schema(
    [
        pa.field("shard", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("latent_key", pa.string()),
        SOURCES.field("clock_jumps"),
        *(CLIPS.field(name) for name in CLIP_COLUMNS),
        *(CAPTIONS.field(name) for name in CAPTION_COLUMNS),
        *(pa.field(name, kind) for name, kind in PROVENANCE if name not in CAPTION_COLUMNS),
    ]
)


def shard_count(clips: int, samples_per_shard: int) -> int:
    """The smallest power of two that holds the clips at this many a shard, on average."""
    count = 1
    while count * samples_per_shard < clips:
        count *= 2
    return count


def shard_name(clip_id: str, shards: int) -> str:
    """The shard a clip falls in."""
    return _shard_name(_shard_number(clip_id, shards))


def _shard_number(clip_id: str, shards: int) -> int:
    return int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") % shards


def _shard_name(number: int) -> str:
    return f"shard-{number:06d}.tar"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardPlan:
    """A task a shard that is not empty, in shard order, and which shard a task's key makes."""

    tasks: TaskList
    shard_of: Mapping[str, str]


def planned_shards(corpus: Corpus, config: Config, encode_fingerprint: str) -> ShardPlan:
    """The shards of the corpus's kept clips, as the encode stage plans them."""
    clips = KeptClips.of(corpus, config.caption.captioner)
    return plan_shards(clips, config.encode.samples_per_shard, encode_fingerprint)


class KeptClips:
    """The kept clips of a corpus in the order of their ids: columns of CLIPS, and where in the tables of
    captions and sources the rest of a plan row stands. Rows are joined for the few that are asked for, so
    that the texts and uris of a million clips lie in memory once."""

    def __init__(self, clips: pa.Table, captions: pa.Table, sources: pa.Table) -> None:
        """`clips` (sorted by clip_id) hold CLIP_COLUMNS, `captions` clip_id and CAPTION_COLUMNS, `sources`
        SOURCE_COLUMNS, each of one chunk. Of two captions of a clip, or two sources of equal content, the
        first counts."""
        self._clips, self._captions, self._sources = clips, captions, sources
        self._caption_of = pc.index_in(self._clips["clip_id"], value_set=self._captions["clip_id"])
        self._source_of = pc.index_in(self._clips["source_id"], value_set=self._sources["source_id"])

    @classmethod
    def of(cls, corpus: Corpus, captioner: str) -> "KeptClips":
        """Those of a corpus, with the captions of this captioner where there are any."""
        clips = corpus.clips(CLIP_COLUMNS)
        clips = clips.filter(pc.is_in(clips["clip_id"], value_set=corpus.kept()["clip_id"]))
        clips = clips.combine_chunks()  # of each table one copy at a time lies in memory beside the others
        sources = corpus.contents(SOURCE_COLUMNS).combine_chunks()
        return cls(clips, _captions(corpus, captioner).combine_chunks(), sources)

    def __len__(self) -> int:
        return int(self._clips.num_rows)

    def decisive(self, at: pa.Array) -> pa.Table:
        """What decides the samples of the clips at these places: CLIP_COLUMNS and PROVENANCE_COLUMNS."""
        sources = self._sources.select(PROVENANCE_COLUMNS).take(self._source_of.take(at))
        return _beside(self._clips.take(at), sources)

    def rows(self, at: pa.Array | None = None) -> pa.Table:
        """The columns of PLAN but `shard` and `latent_key` of the clips at these places, of all when None."""
        at = pa.array(np.arange(len(self))) if at is None else at
        captions = self._captions.select([name for name in CAPTION_COLUMNS if name not in PROVENANCE_COLUMNS])
        sources = self._sources.drop_columns("source_id")
        return _beside(
            self._clips.take(at),
            captions.take(self._caption_of.take(at)),
            sources.take(self._source_of.take(at)),
        )


def _beside(*tables: pa.Table) -> pa.Table:
    """The columns of tables of as many rows, one table."""
    return pa.table({name: table[name] for table in tables for name in table.column_names})


def plan_shards(clips: KeptClips, samples_per_shard: int, encode_fingerprint: str) -> ShardPlan:
    """The shards of these clips; inside a shard they stand in the order of their ids."""
    count = len(clips)
    shards = shard_count(count, samples_per_shard)
    number, row_hash, latent_key = np.zeros(count, np.int64), np.empty(count, "S16"), np.empty(count, "S16")
    for start in range(0, count, HASHED_AT_ONCE):
        rows = clips.decisive(pa.array(range(start, min(start + HASHED_AT_ONCE, count)))).to_pylist()
        for i, row in enumerate(rows, start):
            number[i] = _shard_number(row["clip_id"], shards)
            row_hash[i] = _row_hash(row)
            latent_key[i] = fingerprint(encode_fingerprint, {name: row[name] for name in LATENT_COLUMNS})
    order = np.argsort(number, kind="stable")
    numbers, starts = np.unique(number[order], return_index=True)
    names = [_shard_name(n) for n in numbers.tolist()]
    members = np.split(order, starts[1:]) if count else []
    keys = [
        part_key(encode_fingerprint, [name, *row_hash[at].astype(str).tolist()])
        for name, at in zip(names, members, strict=True)
    ]

    def inputs(task: int) -> pa.Table:
        at = members[task]
        own = {
            "shard": pa.array([names[task]] * len(at), pa.string()),
            "latent_key": pa.array(latent_key[at].astype(str).tolist(), pa.string()),
        }
        return _beside(pa.table(own), clips.rows(pa.array(at))).select(PLAN.names).cast(PLAN)

    return ShardPlan(tasks=TaskList(keys, inputs), shard_of=dict(zip(keys, names, strict=True)))


def _row_hash(row: dict[str, Any]) -> str:
    """Everything of a clip that its sample depends on; not where its file lies, nor its new captions."""
    known = {name: row[name] for name in PROVENANCE_COLUMNS if row.get(name) is not None}
    return fingerprint({name: row[name] for name in CLIP_COLUMNS} | known)


def _captions(corpus: Corpus, captioner: str) -> pa.Table:
    """The captions that are baked into the samples: the configured captioner's, when it has run; of two sets
    of it those of the last by name."""
    columns = list(dict.fromkeys(["clip_id", *CAPTION_COLUMNS]))
    parts = [CAPTIONS.empty_table().select(columns)]
    for name in reversed(corpus.sets("captions")):
        rows = corpus.captions(name, [*columns, "status"])
        wanted = pc.and_(pc.equal(rows["status"], "ok"), pc.equal(rows["captioner"], captioner))
        parts.append(rows.filter(wanted).select(columns))
    return pa.concat_tables(parts)
