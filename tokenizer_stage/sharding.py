"""Which clip goes into which shard: a function of the clips alone.

In: the kept clips, the shard size, the encode fingerprint. Out: one task a shard. A clip's shard is a
hash of its id modulo a power of two, so a few clips more or less rewrite only the shards they fall in
(all of them when the power of two changes). Captions are carried along but are no part of a shard's key:
new captions never re-encode. Provenance is part of it, but not of `latent_key`, which names a latent: a
shard whose samples only got another licence is written again around its stored latents. Opens no file.
"""

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.tables import CAPTIONS, CLIPS, PROVENANCE, SOURCES
from pipeline.engine.stage import Task
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
    number = int.from_bytes(hashlib.sha256(clip_id.encode()).digest()[:8], "big") % shards
    return f"shard-{number:06d}.tar"


def plan_shards(rows: list[dict[str, Any]], samples_per_shard: int, encode_fingerprint: str) -> list[Task]:
    """A task for every shard that is not empty, in shard order; clips in clip id order inside.

    `rows` have the columns of PLAN but `shard` and `latent_key`.
    """
    shards = shard_count(len(rows), samples_per_shard)
    by_shard: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: r["clip_id"]):
        name = shard_name(row["clip_id"], shards)
        latent_key = fingerprint(encode_fingerprint, {name: row[name] for name in LATENT_COLUMNS})
        by_shard.setdefault(name, []).append(row | {"shard": name, "latent_key": latent_key})
    return [
        Task(
            key=part_key(encode_fingerprint, [name, *(_row_hash(row) for row in members)]),
            inputs=pa.Table.from_pylist(members, schema=PLAN),
        )
        for name, members in sorted(by_shard.items())
    ]


def _row_hash(row: dict[str, Any]) -> str:
    """Everything of a clip that its sample depends on; not where its file lies, nor its new captions."""
    known = {name: row[name] for name in PROVENANCE_COLUMNS if row.get(name) is not None}
    return fingerprint({name: row[name] for name in CLIP_COLUMNS} | known)


def kept_clips(corpus: Corpus, captioner: str) -> list[dict[str, Any]]:
    """A plan row for every kept clip, with captions where there are any."""
    clips = corpus.clips()
    clips = clips.filter(pc.is_in(clips["clip_id"], value_set=corpus.kept()["clip_id"].combine_chunks()))
    sources = corpus.provenance("clock_jumps")
    captions = {row["clip_id"]: row for row in _captions(corpus, captioner)}
    none = dict.fromkeys(CAPTION_COLUMNS)
    return [
        row
        | {name: captions.get(row["clip_id"], none)[name] for name in CAPTION_COLUMNS}
        | sources[row["source_id"]]
        for row in clips.select(CLIP_COLUMNS).to_pylist()
    ]


def _captions(corpus: Corpus, captioner: str) -> list[dict[str, Any]]:
    """The captions that are baked into the samples: the configured captioner's, when it has run."""
    rows = [row for name in corpus.sets("captions") for row in corpus.captions(name).to_pylist()]
    return [row for row in rows if row["status"] == "ok" and row["captioner"] == captioner]
