"""What is said of the clips of a latent set, in a file beside it: captions and provenance, a row a sample.

In: rows of the schema SET_CAPTIONS, in the order of clip ids. Out: a Parquet file that any reader joins by
clip_id, and the texts of one sample at a time: a trainer holds no caption in memory but those of a few row
groups. The file says of which samples it is and which of them have a caption, so that opening it reads its
last bytes alone.
"""

import base64
import hashlib
import io
import zlib
from collections import OrderedDict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus import tables
from pipeline.corpus.latent_set import about_of, with_about
from pipeline.storage import Storage, storage_errors, tried_again

KINDS = ("detailed", "short", "original")  # of texts
ROWS = 128  # a row group: what is read for one text
HASHED_AT_ONCE = 50_000  # rows whose text lies in memory at a time
HELD_BYTES = 64 << 20  # of texts, by a reader


def file_name(captions: str = "") -> str:
    """Of the captions of the configured captioner, or of another caption set."""
    return f"captions-{captions}.parquet" if captions else "captions.parquet"


def write_captions(storage: Storage, path: str, rows: pa.Table) -> None:
    """Makes this what is said of the samples, where it is not."""
    digest = _digest(rows)
    if storage.exists(path) and _about(storage, path).get("content") == digest:
        return
    captioned = base64.b64encode(zlib.compress(np.packbits(_captioned(rows)).tobytes())).decode()
    about = {"ids": ids_digest(rows["clip_id"]), "content": digest, "captioned": captioned}
    whole, sink = with_about(rows.combine_chunks(), about), io.BytesIO()
    with pq.ParquetWriter(sink, whole.schema, compression="zstd", write_statistics=False) as writer:
        writer.write_table(whole, row_group_size=ROWS)
    storage.write_bytes(path, sink.getbuffer())


def _about(storage: Storage, path: str) -> dict[str, Any]:
    return storage.read_with(path, lambda file: about_of(pq.read_metadata(file)))


def erase_captions(storage: Storage, path: str, keep: pa.Array) -> None:
    """Leaves the rows of these clips alone."""
    rows = tables.from_parquet(storage.read_bytes(path), tables.SET_CAPTIONS)
    write_captions(storage, path, rows.filter(pc.is_in(rows["clip_id"], value_set=keep)))


def ids_digest(ids: pa.Array | pa.ChunkedArray) -> str:
    """A hash of these ids in this order."""
    return _hashed(pa.table({"clip_id": ids}))


def _digest(rows: pa.Table) -> str:
    """A hash of all that the rows say."""
    return _hashed(rows)


def _hashed(rows: pa.Table) -> str:
    digest = hashlib.sha256(",".join(rows.column_names).encode())
    for start in range(0, rows.num_rows, HASHED_AT_ONCE):
        some = rows.slice(start, HASHED_AT_ONCE)
        lines = pc.binary_join_element_wise(
            *(_line(column) for column in some.columns),
            "\x1f",
            null_handling="replace",
            null_replacement="\0",
        )
        lines = lines.combine_chunks() if isinstance(lines, pa.ChunkedArray) else lines
        digest.update(pc.binary_join(pa.ListArray.from_arrays([0, len(lines)], lines), "\n")[0].as_buffer())
    return digest.hexdigest()


def _line(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.binary_join(column, "\x1e") if pa.types.is_list(column.type) else column


def _captioned(rows: pa.Table) -> np.ndarray:
    """bool [N]: which rows have a text of any kind."""
    lengths = [pc.fill_null(pc.binary_length(rows[kind]), 0).to_numpy() for kind in KINDS]
    return np.asarray(np.maximum.reduce(lengths) > 0) if len(rows) else np.zeros(0, bool)


class TableTexts:
    """The texts of samples out of a table with clip_id and KINDS; `captioned` bool [N] says who has one."""

    def __init__(self, ids: pa.Array, rows: pa.Table) -> None:
        """`ids` are those of the samples; a sample without a row has no text."""
        at = pc.index_in(ids, value_set=rows["clip_id"].combine_chunks())
        self._rows = rows.select(KINDS).take(at)
        self.captioned = _captioned(self._rows)

    def texts(self, sample: int) -> dict[str, str]:
        """Kind → text of one sample."""
        return _said(self._rows.slice(sample, 1))


class FileTexts:
    """The texts of samples out of a file that `write_captions` wrote, a row group at a time; `captioned`
    bool [N] says who has one."""

    def __init__(self, storage: Storage, path: str, ids: pa.Array) -> None:
        """`ids`, sorted, are those of the samples."""
        self._where = f"{storage.root}/{path}"
        self._file = pq.ParquetFile(storage.open_file(path))
        self._held: OrderedDict[int, pa.Table] = OrderedDict()
        about = about_of(self._file.metadata)
        if about.get("ids") == ids_digest(ids):
            bits = np.frombuffer(zlib.decompress(base64.b64decode(about["captioned"])), np.uint8)
            self._row_of: np.ndarray | None = None  # those of the samples, in their order
            self.captioned = np.unpackbits(bits, count=len(ids)).astype(bool)
        else:  # the set was changed since: what is said of each sample is looked up by its id
            rows = self._file.read(["clip_id", *KINDS], use_threads=False)
            at = pc.index_in(ids, value_set=rows["clip_id"].combine_chunks())
            self._row_of = pc.fill_null(at, -1).to_numpy().astype(np.int32)
            self.captioned = (self._row_of >= 0) & np.append(_captioned(rows), False)[self._row_of]

    def texts(self, sample: int) -> dict[str, str]:
        """Kind → text of one sample."""
        row = sample if self._row_of is None else int(self._row_of[sample])
        return _said(self._group(row // ROWS).slice(row % ROWS, 1)) if row >= 0 else {}

    def _read_group(self, number: int) -> pa.Table:
        with storage_errors("read", self._where):
            return self._file.read_row_group(number, list(KINDS), use_threads=False)

    def _group(self, number: int) -> pa.Table:
        if number not in self._held:
            self._held[number] = tried_again(partial(self._read_group, number))
            while len(self._held) > 1 and sum(group.nbytes for group in self._held.values()) > HELD_BYTES:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]


def _said(row: pa.Table) -> dict[str, str]:
    values: dict[str, Any] = row.to_pylist()[0]
    return {kind: values[kind] for kind in KINDS if values[kind]}
