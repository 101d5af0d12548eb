"""The samples of a latent set as a trainer holds them: numbers in arrays, read from the index alone.

In: the folder of a set, local or s3://. Out: where each sample lies, what it costs, in which group it is, its
latent. About eighty bytes a sample, most of them its id; of the index only the columns named here are read,
and of the tars nothing before a latent is asked for. Sets of older versions lack some of these columns: what
they stand for is made of others. Never: a dict for each sample.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.corpus.ids import sources_of
from pipeline.corpus.latent_set import INDEX_NAME, OK, about_of
from pipeline.corpus.set_captions import KINDS
from pipeline.corpus.shards import LatentsInfo, check_of, parse_latent, read_info
from pipeline.corpus.tables import SET_CAPTIONS
from pipeline.errors import FormatError
from pipeline.storage import Storage
from training.layout import Shape, tokens_of

HOT = ("clip_id", "shard", "offset", "nbytes", "shape", "fps", "check", "group", "status")


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What many samples share: the latent's shape [C, T, H, W] and the rate of the encoded frames."""

    shape: Shape
    fps: float


class Samples:
    """The live samples of a set, N of them, sorted by clip id; a sample is named by its number."""

    def __init__(self, root: str) -> None:
        self.storage = Storage(root)
        if not self.storage.exists(INDEX_NAME):
            raise FormatError(f"no latent set at {root}", expected=INDEX_NAME, fix="run framemill encode")
        rows, info = self.storage.read_with(INDEX_NAME, _hot_columns)
        self.info: LatentsInfo = read_info(self.storage, info)
        self.ids: pa.Array = _one_chunk(rows["clip_id"])
        names = rows["shard"].combine_chunks()
        names = names.combine_chunks() if isinstance(names, pa.ChunkedArray) else names
        self._shards: list[str] = names.dictionary.to_pylist()
        self._shard = names.indices.to_numpy().astype(np.int32)
        self._offset = rows["offset"].to_numpy()
        self._nbytes = rows["nbytes"].to_numpy().astype(np.int32)
        self.forms, self._form = _forms(rows)
        self.check: np.ndarray = _checks(self.storage, rows)  # uint64 [N]: of each latent's bytes
        self.group: np.ndarray = _groups(rows, self.ids)  # uint64 [N]
        of_form = np.array([tokens_of(form.shape) for form in self.forms] or [0], np.int32)
        self.tokens: np.ndarray = of_form[self._form]  # int32 [N]: of the model, as layout.py counts them

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        """What all of it takes in memory."""
        arrays = (self._shard, self._offset, self._nbytes, self._form, self.check, self.group, self.tokens)
        return int(self.ids.nbytes + sum(array.nbytes for array in arrays))

    def clip_id(self, sample: int) -> str:
        return str(self.ids[int(sample)].as_py())

    def form(self, sample: int) -> Form:
        return self.forms[self._form[sample]]

    def read_latent(self, sample: int) -> np.ndarray:
        """float16 `[C, T, H, W]`, checked."""
        shard, shape = self._shards[self._shard[sample]], self.form(sample).shape
        data = self.storage.read_bytes(
            shard, offset=int(self._offset[sample]), nbytes=int(self._nbytes[sample])
        )
        return parse_latent(data, self.clip_id(sample), shard, int(self.check[sample]), shape)

    def read_latents(self, samples: Iterable[int]) -> Iterator[np.ndarray]:
        """Those of several samples, in order; from a store many at once."""
        return self.storage.each(samples, self.read_latent)

    def digest(self, samples: np.ndarray) -> str:
        """A hash of these samples (rising numbers): of ids, latents and groups, not of where they lie."""
        made = hashlib.sha256()
        for start in range(0, len(samples), 100_000):
            some = samples[start : start + 100_000]
            ids = self.ids.take(pa.array(some))
            joined = pc.binary_join(pa.ListArray.from_arrays([0, len(ids)], ids), "\n")[0]
            made.update(joined.as_buffer())
            made.update(self.check[some].astype("<u8").tobytes() + self.group[some].astype("<u8").tobytes())
        return made.hexdigest()


def texts_of_records(storage: Storage) -> pa.Table:
    """clip_id and captions out of every sample's record: where a set of an older version has them."""
    index = storage.read_columns(INDEX_NAME, ["clip_id", "shard", "json_offset", "json_nbytes", "status"])
    rows = index.filter(pc.equal(index["status"], OK)).to_pylist()

    def record(row: dict[str, Any]) -> dict[str, Any]:
        data = storage.read_bytes(row["shard"], offset=row["json_offset"], nbytes=row["json_nbytes"])
        return {"clip_id": row["clip_id"]} | (json.loads(data).get("captions") or {})

    schema = pa.schema([SET_CAPTIONS.field(name) for name in ("clip_id", *KINDS)])
    return pa.Table.from_pylist(list(storage.each(rows, record)), schema)


def _hot_columns(file: pa.NativeFile) -> tuple[pa.Table, str]:
    """The rows of live samples, and latents.toml where the index holds it."""
    index = pq.ParquetFile(file, read_dictionary=["shard", "status"])
    there = [name for name in HOT if name in index.schema_arrow.names]
    rows = index.read(there, use_threads=False)
    live = pc.equal(rows["status"], OK)
    rows = rows if pc.all(live).as_py() else rows.filter(live)
    return rows.drop_columns(["status"]), about_of(index.metadata).get("info", "")


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    joined = column.combine_chunks()
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def _forms(rows: pa.Table) -> tuple[list[Form], np.ndarray]:
    """The forms that there are, and which is each sample's: int16 or int32 [N]."""
    if not rows.num_rows:
        return [], np.zeros(0, np.int16)
    sides = _one_chunk(rows["shape"]).flatten().to_numpy().reshape(-1, 4).astype(np.int64)
    fps = rows["fps"].to_numpy()
    shapes, rates = pc.dictionary_encode(pa.array(_packed(sides))), pc.dictionary_encode(pa.array(fps))
    both = shapes.indices.to_numpy().astype(np.int64) * len(rates.dictionary) + rates.indices.to_numpy()
    _, first, which = np.unique(both, return_index=True, return_inverse=True)
    forms = [
        Form(shape=(int(c), int(t), int(h), int(w)), fps=float(rate))
        for (c, t, h, w), rate in zip(sides[first], fps[first], strict=True)
    ]
    return forms, which.astype(np.int16 if len(forms) < 2**15 else np.int32)


def _packed(sides: np.ndarray) -> np.ndarray:
    """int64 [N] of int64 [N, 4]: a number for each shape whose sides are below 2^15."""
    channels, steps, high, wide = sides.T
    return ((channels << 15 | steps) << 15 | high) << 15 | wide


def _checks(storage: Storage, rows: pa.Table) -> np.ndarray:
    if "check" in rows.column_names and not rows["check"].null_count:
        return rows["check"].to_numpy()
    cold = storage.read_columns(INDEX_NAME, ["status", "sha256"])
    cold = cold.filter(pc.equal(cold["status"], OK))
    return np.array([check_of(sha256) for sha256 in cold["sha256"].to_pylist()], np.uint64)


def _groups(rows: pa.Table, ids: pa.Array) -> np.ndarray:
    """A sample of a set without groups is in that of its source."""
    if "group" in rows.column_names and not rows["group"].null_count:
        return rows["group"].to_numpy()
    sources = pc.dictionary_encode(sources_of(ids))
    hashes = [
        int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
        for text in sources.dictionary.to_pylist()
    ]
    return np.array(hashes, np.uint64)[sources.indices.to_numpy()]
