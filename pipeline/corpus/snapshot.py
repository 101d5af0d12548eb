"""Reading a row table: its compacted files, then the tail that no manifest names yet.

In: a table and its stage's fingerprint. Out: a snapshot (which files and parts hold now) and rows, sorted by
id, each id once, current inputs or not. Who reads while another command writes may find a file gone that it
was told of; then it looks again. Never writes.

The listing comes before the manifests: what leaves a listing is in a manifest that was committed before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.compaction import read_file, unique_sorted
from pipeline.corpus.manifest import PREFIX, PRINTS, STRIP_PARTS, Manifest, RowTable, read_manifest
from pipeline.errors import StorageError
from pipeline.storage import Storage


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What a table is at a moment: the manifest, and (key, bytes of its done-marker) of every part beyond
    it."""

    manifest: Manifest
    tail: tuple[tuple[str, int], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key, _ in self.tail)


def listed(storage: Storage, folder: str, fingerprint: str) -> dict[str, int]:
    """Key → bytes of every part in a folder that a fingerprint's stage made."""
    sizes = storage.sizes_bytes(folder, ".parquet")
    prefix = f"{fingerprint[:PREFIX]}-"
    return {n.removesuffix(".parquet"): size for n, size in sizes.items() if n.startswith(prefix)}


def look(storage: Storage, table: RowTable, fingerprint: str) -> Snapshot:
    """The table as it is now."""
    parts = listed(storage, table.marker_folder, fingerprint)
    manifest = read_manifest(storage, table, fingerprint)
    known = set(manifest.folded)
    return Snapshot(manifest=manifest, tail=tuple(sorted((k, n) for k, n in parts.items() if k not in known)))


def read(
    storage: Storage, table: RowTable, fingerprint: str, columns: Sequence[str] | None = None
) -> tuple[Snapshot, pa.Table]:
    """The rows, or these columns of them and the key's, and what they are a reading of."""
    names = [*dict.fromkeys([*table.key, *(table.schema.names if columns is None else columns)])]
    now = look(storage, table, fingerprint)
    while True:
        paths = [now.manifest.file_path(file) for file in now.manifest.files]
        try:
            files = list(storage.each(paths, lambda path: read_file(storage, table, path, names)))
            parts = list(parts_of(storage, table, now.keys, names))
        except StorageError:
            before, now = now, look(storage, table, fingerprint)
            if now == before:
                raise
            continue
        if any(part is None for part in parts):
            before, now = now, look(storage, table, fingerprint)
            if now != before:
                continue
        rows = pa.concat_tables(
            [table.schema.empty_table().select(names), *files, *(part for part in parts if part is not None)]
        )
        return now, unique_sorted(rows, table.key) if parts else rows


def tars_of_text(storage: Storage, table: RowTable, fingerprint: str) -> dict[str, pa.Array]:
    """Path of every tar of text features that a fingerprint's stage made → the ids of the clips whose rows
    name it, some perhaps again; none where a killed task left it, or all of its texts are no more said."""
    _, rows = read(storage, table, fingerprint, ["shard"])
    prefix = f"{fingerprint[:PREFIX]}-"
    names = [name for name in storage.list(table.folder, ".tar") if name.startswith(prefix)]
    return {
        f"{table.folder}/{name}": rows.filter(pc.equal(rows["shard"], name))["clip_id"].combine_chunks()
        for name in names
    }


def parts_of(
    storage: Storage, table: RowTable, keys: Sequence[str], columns: Sequence[str] | None = None
) -> Iterator[pa.Table | None]:
    """The rows that each part holds of a table, or some columns of them; None for one that is not there."""
    names = table.schema.names if columns is None else list(columns)
    return storage.each(keys, partial(_part, storage, table, names))


def _part(storage: Storage, table: RowTable, columns: Sequence[str], key: str) -> pa.Table | None:
    path = f"{table.parts_folder}/{key}.parquet"
    try:
        if table is PRINTS:
            rows = storage.read_columns(path, table.schema.names)  # not the pictures beside them
            return rows.filter(pc.is_valid(rows["print"])).select(columns)
        data = storage.read_bytes(path)
    except StorageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    if table is STRIP_PARTS:
        ids = tables.from_parquet(data, tables.CLIPS, ["source_id"])["source_id"].unique()
        part = pa.array([key] * len(ids), pa.string())
        return pa.table([ids, part], schema=tables.STRIP_PARTS).select(columns)
    return tables.from_parquet(data, table.schema, columns)
