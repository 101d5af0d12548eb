"""Folding: the parts of a stage become compacted files, and go.

In: the tables of a stage and its fingerprint, perhaps an edit of rows. Out: the same rows, compacted; the
parts that held them are deleted, and so are files that no manifest names. The order of writes is in
pipeline/corpus/manifest.py: killed anywhere, the next fold goes on and ends with the same bytes. For one
writer. Never: filmstrips.
"""

import logging
from collections.abc import Mapping, Sequence

from pipeline.corpus.compaction import Edit, Runs, compacted
from pipeline.corpus.manifest import Manifest, RowTable, read_manifest, to_json
from pipeline.corpus.snapshot import listed, look, parts_of
from pipeline.storage import Storage

LOG = logging.getLogger(__name__)
NO_EDITS: Mapping[str, Edit] = {}


def fold(
    storage: Storage, tables: Sequence[RowTable], fingerprint: str, edits: Mapping[str, Edit] = NO_EDITS
) -> bool:
    """Compacts what is not compacted of a stage's tables, and edits rows by table; whether anything was
    open."""
    open_before = settle(storage, tables, fingerprint)
    folded = False
    for table in tables:
        now = look(storage, table, fingerprint)
        edit = edits.get(table.folder)
        if not now.tail and (edit is None or not len(edit.ids)):
            continue
        parts = (part for part in parts_of(storage, table, now.keys) if part is not None)
        with Runs(table, parts) as runs:
            manifest = compacted(storage, table, now.manifest, runs, edit)
        LOG.info("%s: %d parts folded, %d rows", table.folder, len(now.tail), manifest.rows)
        _commit(storage, manifest.without([*now.manifest.folded, *now.keys]), now.manifest)
        folded = True
    if folded:
        settle(storage, tables, fingerprint)
    for table in tables:  # always: nothing else tells that a command was killed just before
        _sweep(storage, read_manifest(storage, table, fingerprint))
    return folded or open_before


def settle(storage: Storage, tables: Sequence[RowTable], fingerprint: str) -> bool:
    """Deletes the parts whose rows are compacted, and then takes their keys out of the manifests; whether
    there were any. The table of done-markers comes first: a part without one counts for no table."""
    markers = tables[-1]
    manifests = {t.folder: read_manifest(storage, t, fingerprint) for t in tables}
    if not any(manifest.folded for manifest in manifests.values()):
        return False
    folded = manifests[markers.folder].folded
    storage.delete_all(f"{markers.parts_folder}/{key}.parquet" for key in folded)
    left = set(listed(storage, markers.folder, fingerprint)) - set(folded)
    for table in tables:
        manifest = manifests[table.folder]
        if table.owns_parts and table is not markers:
            done = (key for key in manifest.folded if key not in left)
            storage.delete_all(f"{table.parts_folder}/{key}.parquet" for key in done)
        _commit(storage, manifest.without([key for key in manifest.folded if key in left]), manifest)
    return True


def _commit(storage: Storage, manifest: Manifest, before: Manifest) -> None:
    if manifest != before:
        storage.write_bytes(manifest.path, to_json(manifest))


def _sweep(storage: Storage, manifest: Manifest) -> None:
    """Deletes the compacted files that the manifest does not name: it replaced them, or a fold was killed."""
    named = {file.name for file in manifest.files}
    there = storage.list(manifest.table, ".parquet")
    mine = (name for name in there if name.startswith(f"{manifest.fingerprint}."))
    storage.delete_all(f"{manifest.table}/{name}" for name in mine if name not in named)
