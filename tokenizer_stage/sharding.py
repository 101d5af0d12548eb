"""Which clips are still to be encoded, in which pieces; and which pieces make which tar.

In: the kept clips, what the set holds already, the encode fingerprint. Out: one task a piece. A clip's latent
is named by a key, a hash of the encode settings and of all of the clip that decides its bytes; what the set
holds under a key that is wanted stays where it is. What is open is cut into pieces in the order of clip ids,
small enough to be lost, and whole pieces make the tars, sized by bytes. Everything is a function of the
clips and of the set, and nothing is a Python value for each clip but its hash. Opens no file.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.config import EncodeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import shard_name
from pipeline.corpus.shards import ChannelSums
from pipeline.corpus.tables import CLIPS, SOURCES
from pipeline.engine.task_list import TaskList
from pipeline.engine.tasks import part_key

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
CLIP_COLUMNS = (*LATENT_COLUMNS, "signals")  # and what its record says besides
SOURCE_COLUMNS = ("source_id", "uri", "clock_jumps")
HASHED_AT_ONCE = 50_000  # clips whose text lies in memory at a time
PIECE_BYTES = 64_000_000  # at most of one piece: it lies in a worker's memory
MB = 1_000_000
PLAN = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("latent_key", pa.string()),
        SOURCES.field("clock_jumps"),
        *(CLIPS.field(name) for name in CLIP_COLUMNS),
    ]
)


class KeptClips:
    """The kept clips of a corpus in the order of their ids: what decides their latents. Rows with all that a
    task needs are joined for the few that are asked for."""

    def __init__(self, clips: pa.Table, sources: pa.Table) -> None:
        """`clips` (sorted by clip_id) hold CLIP_COLUMNS, `sources` SOURCE_COLUMNS. Of two sources of equal
        content the first counts."""
        self.clips, self.sources = clips.combine_chunks(), sources.combine_chunks()
        self._source_of = pc.index_in(self.clips["source_id"], value_set=self.sources["source_id"])

    @classmethod
    def of(cls, corpus: Corpus) -> "KeptClips":
        """Those of a corpus."""
        clips = corpus.clips(CLIP_COLUMNS)
        clips = clips.filter(pc.is_in(clips["clip_id"], value_set=corpus.kept()["clip_id"]))
        return cls(clips, corpus.contents(SOURCE_COLUMNS))

    def __len__(self) -> int:
        return int(self.clips.num_rows)

    def keys(self, encode_fingerprint: str) -> pa.Array:
        """string [N]: the latent_key of each clip, 16 hex."""
        columns = self.clips.select(LATENT_COLUMNS)
        digests: list[str] = []
        for start in range(0, len(self), HASHED_AT_ONCE):
            texts = _texts(columns.slice(start, HASHED_AT_ONCE)).to_pylist()
            digests += [
                hashlib.sha256(f"{encode_fingerprint}\n{text}".encode()).hexdigest()[:16] for text in texts
            ]
        return pa.array(digests, pa.string())

    def rows(self, at: pa.Array | None = None) -> pa.Table:
        """The columns of PLAN but `latent_key` of the clips at these places, of all when None."""
        at = pa.array(np.arange(len(self))) if at is None else at
        clips, sources = self.clips.take(at), self.sources.take(self._source_of.take(at))
        own = {name: clips[name] for name in CLIP_COLUMNS}
        return pa.table(own | {name: sources[name] for name in SOURCE_COLUMNS if name not in own})


def _texts(rows: pa.Table) -> pa.Array:
    """string [N]: a line of each row, equal for equal rows alone: floats by their bits, null as no number."""
    columns = [_text(rows[name].combine_chunks()) for name in rows.column_names]
    return pc.binary_join_element_wise(*columns, "|", null_handling="replace", null_replacement="-")


def _text(column: pa.Array) -> pa.Array:
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if pa.types.is_list(column.type):
        items = pa.ListArray.from_arrays(column.offsets, _text(column.values), mask=column.is_null())
        return pc.binary_join(items, ",")
    if pa.types.is_floating(column.type):
        column = column.cast(pa.float64()).view(pa.int64())
    return column.cast(pa.string())


def plan_pieces(
    clips: KeptClips, keys: pa.Array, at: np.ndarray, *, per_task: int, latent_bytes: int
) -> TaskList:
    """A task a piece of the clips at these places (rising), in order: at most `per_task`; PIECE_BYTES where
    a latent has `latent_bytes`. `keys` are of all clips."""
    size = max(1, min(per_task, PIECE_BYTES // max(1, latent_bytes)))
    chunks = [at[start : start + size] for start in range(0, len(at), size)]
    names = [part_key("piece", keys.take(pa.array(chunk)).to_pylist()) for chunk in chunks]

    def inputs(task: int) -> pa.Table:
        chosen = pa.array(chunks[task])
        rows = clips.rows(chosen).append_column("latent_key", keys.take(chosen))
        return rows.select(PLAN.names).cast(PLAN)

    return TaskList(names, inputs)


def largest_latent_bytes(config: EncodeConfig, channels: int, stride_t: int, stride_s: int) -> int:
    """About what the latent of the longest clip takes, in float16."""
    steps = 1 + (config.max_frames - 1) // stride_t
    return 2 * channels * steps * max(1, config.area_px // stride_s**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What a task has encoded: its rows (schema INDEX) and the bytes of its samples in its tar."""

    key: str
    rows: pa.Table
    nbytes: int
    sums: ChannelSums | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewShard:
    """A tar that whole pieces make."""

    name: str
    pieces: tuple[Piece, ...]

    @property
    def key(self) -> str:
        return part_key("shard", [self.name, *(piece.key for piece in self.pieces)])

    def rows(self) -> pa.Table:
        """Schema INDEX: its samples, at their places in it."""
        tables, base = [], 0
        for piece in self.pieces:
            samples = piece.rows.filter(pc.equal(piece.rows["status"], "ok"))
            tables.append(moved(samples, self.name, base))
            base += piece.nbytes
        return pa.concat_tables(tables)


def moved(samples: pa.Table, shard: str, by: int) -> pa.Table:
    """Index rows of samples that lie so many bytes further on in a tar of this name."""
    for name in ("offset", "json_offset"):
        at = samples.schema.get_field_index(name)
        samples = samples.set_column(at, samples.schema.field(name), pc.add(samples[name], by))
    at = samples.schema.get_field_index("shard")
    return samples.set_column(
        at, samples.schema.field("shard"), pa.array([shard] * len(samples), pa.string())
    )


def new_shards(pieces: Sequence[Piece], shard_mb: float, first: int) -> Iterator[NewShard]:
    """The tars of these pieces, in order, numbered from `first`; a tar ends before it would grow beyond
    `shard_mb`, and holds one piece at least."""
    held: list[Piece] = []
    held_bytes, number = 0, first
    for piece in pieces:
        if not piece.nbytes:
            continue
        if held and held_bytes + piece.nbytes > shard_mb * MB:
            yield NewShard(name=shard_name(number), pieces=tuple(held))
            held, held_bytes, number = [], 0, number + 1
        held.append(piece)
        held_bytes += piece.nbytes
    if held:
        yield NewShard(name=shard_name(number), pieces=tuple(held))


def joining_tasks(shards: Sequence[NewShard]) -> TaskList:
    """A task a tar: the pieces that it is made of."""

    def inputs(number: int) -> pa.Table:
        pieces = shards[number].pieces
        return pa.table(
            {
                "shard": pa.array([shards[number].name] * len(pieces), pa.string()),
                "piece": pa.array([piece.key for piece in pieces], pa.string()),
                "nbytes": pa.array([piece.nbytes for piece in pieces], pa.int64()),
            }
        )

    return TaskList([shard.key for shard in shards], inputs)
