"""The Arrow schema of every table: the one place where a column is named.

In: Python rows. Out: Arrow tables and Parquet bytes, the same bytes for the same rows. Times are in
seconds of the source, spans are half open, pixels are display pixels (rotation and sample aspect
applied), `crop` is [x, y, width, height] of the active picture. docs/tables.md is made of the comments
here: a column without one means what its name means in the first table that says it.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import rule_grammar
from pipeline.errors import FormatError
from pipeline.storage import read_parquet

GROUP = 256  # rows of a row group, where a table is written from rows
S, F32, F64, I32, I64 = pa.string(), pa.float32(), pa.float64(), pa.int32(), pa.int64()
U64 = pa.uint64()

ADDED = frozenset(
    {"clock_jumps", "latent_key", "check", "group"}
)  # columns that older corpora lack: null there

PROVENANCE = [  # what a manifest or a tar says of a source (pipeline/sources/manifests.py); null = nothing
    ("original", S),  # its own caption
    ("licence", S),  # as the manifest words it
    ("tags", pa.list_(S)),  # as the manifest words them
    ("attributes", S),  # every other column, one JSON object
]

INPUTS = pa.schema(  # inputs.parquet: what a run was asked to take in: a row a source
    [
        ("source_key", S),  # hash of (uri, size, mtime); provenance is no part of it
        ("uri", S),  # path | s3://… | path.tar#member
        ("size_bytes", I64),  # 0 when there is no such file
        ("mtime_ns", I64),  # of the file, since 1970; of the tar, for a member
        *PROVENANCE,
    ]
)

TAKEDOWNS = pa.schema(  # takedowns.parquet: sources that must not come back; never shrinks
    [
        ("source_id", S),
        ("uris", pa.list_(S)),  # where it lay when it was taken down
        ("reason", S),  # as given with --reason
    ]
)

SOURCES = pa.schema(  # sources/: a row an input file, failures included
    [
        ("source_key", S),  # that of the inputs table
        ("source_id", S),  # first 16 hex of the content's sha256
        ("uri", S),
        ("kind", S),  # video | image
        ("status", S),  # ok | salvaged | failed | taken down
        ("reason", S),  # why it failed, or where it broke
        ("container", S),  # as the demuxer names it
        ("codec", S),  # as the decoder names it
        ("width", I32),  # pixels as displayed
        ("height", I32),  # pixels as displayed
        ("rotation", I32),  # degrees counter-clockwise, already applied to width and height
        ("fps", F64),  # mean frame rate; 0 for an image
        ("is_vfr", pa.bool_()),  # whether the time between frames varies
        ("frames", I32),  # decoded frames
        ("duration_s", F64),  # 0 for an image
        ("has_audio", pa.bool_()),  # sound is noticed and never read
        ("transfer", S),  # sdr | pq | hlg; high dynamic range is shown tone-mapped (media/tones.py)
        ("clock_jumps", I32),  # how often its clock jumped, which is no time on screen (media/clock.py)
        ("size_bytes", I64),
    ]
)

SIGNALS = pa.struct(  # units and ranges: pipeline/signals/measure.py; null = not measured
    [(name, F32) for name in rule_grammar.SIGNALS]
)

CLIPS = pa.schema(  # clips/: a row a shot, also one too short or too bad to keep
    [
        ("clip_id", S),  # <source_id>-<start_ms>-<end_ms>
        ("source_id", S),  # the file that it is a span of
        ("kind", S),
        ("start_s", F64),  # of its first frame
        ("end_s", F64),  # end of its last frame
        ("start_frame", I32),  # number in display order
        ("end_frame", I32),  # half open
        ("fps", F64),
        ("width", I32),
        ("height", I32),
        ("crop", pa.list_(I32)),  # [x, y, width, height] of the active picture, without bars
        ("boundary_in", S),  # cut | dissolve | fade | wipe | start | end | stride
        ("boundary_out", S),  # as boundary_in
        ("boundary_confidence", F32),  # 0 to 1, the lower of the two
        ("signals", SIGNALS),  # what was measured: the table below
        ("camera", S),  # static | shake | pan_left | pan_right | tilt_up | … : pipeline/signals/camera.py
        ("phash", pa.list_(pa.uint64())),  # a filmstrip frame each
        ("status", S),  # ok | failed
        ("reason", S),  # why it failed
    ]
)

STRIPS = pa.schema(  # strips/<key>.parquet: what is kept of a clip's pictures, a row a clip
    [
        ("clip_id", S),
        ("times_s", pa.list_(F32)),  # of each frame, seconds of the source
        ("frames", pa.list_(pa.binary())),  # JPEG
        ("print", pa.binary()),  # uint8 [S, 176], a tiny film for finding copies: pipeline/dedup/prints.py
    ]
)

JUDGED = pa.schema(  # judged.parquet: a row a clip
    [
        ("clip_id", S),
        ("source_id", S),
        ("kind", S),
        ("duration_s", F64),  # end_s - start_s
        ("status", S),  # kept | rejected | failed
        ("reasons", pa.list_(S)),  # every reason, not the first
        ("duplicate_of", S),  # clip_id of the copy that stays
    ]
)

DUPLICATES = pa.schema(  # duplicates.parquet: a row a clip that has copies; who is in no group is in no row
    [
        ("group_id", S),  # the clip_id of the first member
        ("clip_id", S),
        ("kind", S),  # exact | perceptual | semantic: the closest relation to another member
        ("mirrored", pa.bool_()),  # seen mirrored by that member
        ("distance", F32),  # to that member, 0 = the same pixels (dedup/groups.py; captioner/embed.py)
        ("kept", pa.bool_()),  # the member that stays
    ]
)

CONTAMINATED = pa.schema(  # contaminated.parquet: a row a clip and what it shows of an evaluation set
    [
        ("clip_id", S),
        ("evaluation_clip_id", S),  # of the evaluation set
        ("distance", F32),  # as in DUPLICATES
    ]
)

EMBEDDINGS = pa.schema(  # embeddings/<embedder>/: a row a clip (captioner/embed.py)
    [
        ("clip_id", S),
        ("vector", pa.list_(F32)),  # unit length
        ("aesthetic", F32),  # null where no head was named
        ("status", S),  # ok | failed
        ("reason", S),  # why it failed
    ]
)

PRINTS = pa.schema(  # prints/: a row a clip that has a print, copied out of strips/
    [STRIPS.field("clip_id"), STRIPS.field("print")]
)

STRIP_PARTS = pa.schema(  # strip_parts/: where a source's filmstrips lie: a row a source and a part
    [
        ("source_id", S),
        ("part", S),  # the key of a part of strips/
    ]
)

CAPTIONS = pa.schema(  # captions/<captioner>/: a row a clip
    [
        ("clip_id", S),
        ("short", S),  # one sentence
        ("detailed", S),  # several sentences
        ("original", S),  # what its manifest says of the source
        ("captioner", S),  # the name, such as builtin: or hf:REPO
        ("captioner_sha256", S),  # of its weights, or of what else decides its words
        ("confidence", F32),  # mean token log-probability
        ("alignment", F32),  # image–text cosine
        ("flags", pa.list_(S)),  # remarks of text checks: captioner/quality.py
        ("status", S),  # ok | failed
        ("reason", S),  # why it failed
    ]
)

TEXTS = pa.schema(  # text/<captions>.<encoder>/: a row a text whose features are stored
    [
        ("clip_id", S),
        ("kind", S),  # short | detailed | original
        ("text", S),  # of which the features are
        ("shard", S),  # file name of the tar
        ("offset", I64),  # of the .npy bytes inside the tar
        ("nbytes", I64),
        ("tokens", I32),  # rows of the features: as many as the text has, up to the encoder's limit
        ("cut_tokens", I32),  # of the text beyond the limit, in no features
        ("sha256", S),  # of the .npy
        ("status", S),  # ok | failed
        ("reason", S),
    ]
)

INDEX = pa.schema(  # latents/<name>/index.parquet: a row a sample, live or dead, and a row a failed clip
    [
        ("clip_id", S),
        ("source_id", S),
        ("kind", S),
        ("key", S),  # the sample's key in the tar
        ("shard", S),  # file name of the tar
        ("offset", I64),  # of the .latent.npy bytes inside the tar
        ("nbytes", I64),  # of the .latent.npy
        ("json_offset", I64),  # of the .json bytes inside the tar
        ("json_nbytes", I64),  # of the .json
        ("shape", pa.list_(I32)),  # [C, T, H, W] of the latent
        ("tokens", I32),  # T * H * W
        ("fps", F64),  # of the encoded frames
        ("frames", I32),  # encoded
        ("width_px", I32),  # of the encoded frames
        ("height_px", I32),  # of the encoded frames
        ("sha256", S),  # of the .latent.npy bytes
        ("status", S),  # ok | failed | dead: in the tar still, but of no clip that is kept (as it is now)
        ("reason", S),  # why it failed
        ("latent_key", S),  # names the latent: hash of the encode settings and of what of the clip decides it
        ("check", U64),  # the first 8 bytes of sha256
        ("group", U64),  # what must not be split: sources, their copies, those that encode.split_by joins
    ]
)

SET_CAPTIONS = pa.schema(  # latents/<name>/captions.parquet: a row a sample, what is said of its clip
    [
        ("clip_id", S),
        ("short", S),  # one sentence
        ("detailed", S),  # several sentences
        ("original", S),  # its own caption
        ("captioner", S),  # who wrote the first two
        ("latent_key", S),  # of its sample: a sample of a tar whose key is in no row here is dead
        *PROVENANCE[1:],
    ]
)


def from_rows(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """A table with exactly the schema's columns; a missing column is null, an unknown one an error."""
    rows = list(rows)
    known = set(schema.names)
    for row in rows:
        if unknown := set(row) - known:
            raise FormatError(
                f"unknown column {sorted(unknown)[0]!r}", expected=f"one of {', '.join(schema.names)}"
            )
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def to_parquet(table: pa.Table) -> memoryview:
    """Parquet bytes; the same table gives the same bytes with the same pyarrow."""
    return _written([table], table.schema)


def to_row_groups(table: pa.Table, rows: int) -> memoryview:
    """The same, this many rows to a row group, of which a reader may want few; the same bytes however the
    table lies in chunks."""
    whole = table.combine_chunks()
    starts = range(0, max(whole.num_rows, 1), rows)
    return _written((whole.slice(start, rows) for start in starts), whole.schema)


def rows_to_parquet(rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> memoryview:
    """The same from rows, of which few lie in a table at a time: hours of film leave hundreds of MB."""
    rows = list(rows)
    starts = range(0, max(len(rows), 1), GROUP)
    return _written((from_rows(rows[start : start + GROUP], schema) for start in starts), schema)


def _written(groups: Iterable[pa.Table], schema: pa.Schema) -> memoryview:
    sink = io.BytesIO()  # grows in place
    with pq.ParquetWriter(sink, schema, compression="zstd", write_statistics=True) as writer:
        for group in groups:
            writer.write_table(group)
    return sink.getbuffer()


def from_parquet(
    data: bytes | memoryview, schema: pa.Schema, columns: Sequence[str] | None = None
) -> pa.Table:
    """The table, or some of its columns, checked against its schema (column order and types); what ADDED
    names may be missing."""
    return fitted(read_parquet(pa.BufferReader(data), columns), schema, columns)


def fitted(table: pa.Table, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """A table that was read, as its schema has it."""
    wanted = schema if columns is None else pa.schema([schema.field(c) for c in columns])
    for name in ADDED.intersection(wanted.names).difference(table.column_names):
        table = table.append_column(name, pa.nulls(table.num_rows))
    try:
        return table.select(wanted.names).cast(wanted)
    except (KeyError, pa.ArrowInvalid) as error:
        raise FormatError(
            f"a table does not fit its schema: {error}",
            expected=f"columns {', '.join(wanted.names)}",
            fix="run the command again with an empty --out folder",
        ) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceAnalysis:
    """Rows of the sources, clips and strips tables for one file, without the columns that name the file."""

    source: dict[str, Any]
    clips: list[dict[str, Any]]
    strips: list[dict[str, Any]]
