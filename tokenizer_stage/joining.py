"""Whole pieces into tars: copying, on the workers where there is much of it.

In: pieces, and which of them make which tar. Out: the tars, each with a part that says it is whole. A part
is only good until the index names the tar. Never decodes a latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow.compute as pc

from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.latent_set import OK, LatentSet
from pipeline.corpus.shards import Extent, joined, padded
from pipeline.engine.runner import Executor, LocalExecutor, Receipt
from pipeline.engine.stage import Output, Resources, Task, TaskResult
from pipeline.operation.receipts import run_recorded
from pipeline.progress import silent
from pipeline.storage import Storage
from tokenizer_stage.open_shards import done_parts
from tokenizer_stage.sharding import NewShard, Piece, joining_tasks

HERE = 4  # tars that are sooner copied than workers are started


@dataclass(slots=True, kw_only=True)
class JoinStage:
    """Copies the pieces of planned tars into them."""

    root: str
    latents: str
    name: str = "shards"
    version: int = 1
    resources: Resources = field(default_factory=lambda: Resources(cpus=1.0, memory_gb=1.0))

    def setup(self) -> None:
        """It needs nothing."""

    def process(self, task: Task) -> TaskResult:
        latents, rows = LatentSet(Storage(self.root), self.latents), task.inputs.to_pylist()
        extents = [
            Extent(path=latents.piece_path(r["piece"], ".tar"), start=0, nbytes=r["nbytes"]) for r in rows
        ]
        return TaskResult(
            outputs=(
                Output(path=latents.shard_path(rows[0]["shard"]), data=joined(latents.storage, extents)),
                Output(path=latents.part_path(task.key), data=tables.to_parquet(task.inputs)),
            )
        )


def read_piece(latents: LatentSet, key: str) -> Piece:
    """A piece that is whole."""
    rows, sums = latents.piece(key)
    ends = rows.filter(pc.equal(rows["status"], OK)).select(["json_offset", "json_nbytes"]).to_pylist()
    nbytes = max((row["json_offset"] + padded(row["json_nbytes"]) for row in ends), default=0)
    return Piece(key=key, rows=rows, nbytes=nbytes, sums=sums)


def join(
    corpus: Corpus, latents: LatentSet, shards: Sequence[NewShard], executor: Executor
) -> tuple[Receipt, ...]:
    """Makes the tars that are not whole yet; the tasks that were lost."""
    tasks = joining_tasks(shards)
    todo = tasks.without(done_parts(latents, list(tasks.keys())))
    if not todo:
        return ()
    stage = JoinStage(root=corpus.root, latents=latents.name)
    where = executor if len(todo) > HERE else LocalExecutor()
    return run_recorded(stage, todo, where, corpus.storage, corpus.run_id, silent).lost
