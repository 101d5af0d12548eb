"""Captions and provenance beside the latents: what the tables of a corpus say of each sample of a set.

In: a corpus, a latent set. Out: captions.parquet, with what the configured captioner says, and a file for
each other caption set. Latents never wait for captions and no tar holds one: a better captioner, or a
manifest with another licence, changes these files alone.
"""

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.corpus.corpus import Corpus
from pipeline.corpus.ids import sources_of
from pipeline.corpus.latent_set import OK, LatentSet
from pipeline.corpus.set_captions import file_name, write_captions
from pipeline.corpus.tables import CAPTIONS, PROVENANCE, SET_CAPTIONS

OF_CAPTIONS = ("short", "detailed", "captioner")
OF_SOURCES = tuple(name for name, _ in PROVENANCE)


def write_sidecars(corpus: Corpus, latents: LatentSet, rows: pa.Table, captioner: str) -> None:
    """Brings them up to date with the tables, for the live samples among these index rows."""
    live = rows.filter(pc.equal(rows["status"], OK)).select(["clip_id", "latent_key"]).sort_by("clip_id")
    ids = live["clip_id"].combine_chunks()
    sources = corpus.contents(OF_SOURCES)
    of_source = sources.take(pc.index_in(sources_of(ids), value_set=sources["source_id"].combine_chunks()))
    own, others = _caption_sets(corpus, captioner)
    files = {file_name(): own} | {file_name(name): captions for name, captions in others.items()}
    for name, captions in files.items():
        at = pc.index_in(ids, value_set=captions["clip_id"].combine_chunks())
        columns = {
            "clip_id": ids,
            "latent_key": live["latent_key"],
            **{n: captions[n].take(at) for n in OF_CAPTIONS},
        }
        table = pa.table(columns | {n: of_source[n] for n in OF_SOURCES})
        write_captions(
            latents.storage, f"{latents.folder}/{name}", table.select(SET_CAPTIONS.names).cast(SET_CAPTIONS)
        )
    old = set(latents.storage.list(latents.folder, ".parquet")) - files.keys()
    latents.storage.delete_all(f"{latents.folder}/{n}" for n in sorted(old) if n.startswith("captions-"))


def _caption_sets(corpus: Corpus, captioner: str) -> tuple[pa.Table, dict[str, pa.Table]]:
    """The captions of the configured captioner, when it has run (of two sets of it those of the last by
    name), and by name the sets of others."""
    columns = ["clip_id", *OF_CAPTIONS]
    own, others = [CAPTIONS.empty_table().select(columns)], {}
    for name in reversed(corpus.sets("captions")):
        rows = corpus.captions(name, [*columns, "status"])
        rows = rows.filter(pc.equal(rows["status"], OK))
        wanted = pc.equal(rows["captioner"], captioner)
        own.append(rows.filter(wanted).select(columns))
        if pc.any(pc.invert(wanted)).as_py():
            others[name] = rows.select(columns)
    return pa.concat_tables(own), others
