"""The caption stage: filmstrips in, a part of the captions table out.

In: clip ids of a corpus. Out: captions/<captioner>/<key>.parquet, a row a clip, `ok` or `failed` with the
reason; every kept clip has one. Reads only filmstrips: captioning anew never decodes video and never encodes
latents again. Never changes an earlier caption set of another captioner.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.caption import Caption, Captioner
from captioner.filmstrip import SPAN_COLUMNS, Filmstrip, read_strips
from captioner.names import load_captioner
from captioner.quality import caption_flags
from pipeline.config import CaptionConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.ids import sources_of
from pipeline.engine.runner import Executor, RunSummary, run
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult
from pipeline.engine.tasks import plan_tasks
from pipeline.progress import Progress, silent
from pipeline.settings import fingerprint

STAGE_VERSION = 1


class RecaptionStage:
    """Captions the clips of a task with one captioner."""

    name = "caption"
    version = STAGE_VERSION
    resources = Resources(cpus=1, memory_gb=2)

    def __init__(self, root: str, config: CaptionConfig) -> None:
        self._root, self._config = root, config
        self._captioner: Captioner | None = None

    def setup(self) -> None:
        self._captioner = load_captioner(self._config.captioner, self._config.max_tokens)

    def process(self, task: Task) -> TaskResult:
        assert self._captioner is not None, "setup first"
        strips, killers = read_strips(Corpus(self._root), task.inputs), task.killers("clip_id")
        strips = {clip_id: strip for clip_id, strip in strips.items() if clip_id not in killers}
        rows = caption_rows(self._captioner, task.inputs["clip_id"].to_pylist(), strips, killers)
        originals = dict(
            zip(task.inputs["source_id"].to_pylist(), task.inputs["original"].to_pylist(), strict=True)
        )
        table = _with_originals(tables.from_rows(rows, tables.CAPTIONS), originals)
        failed = sum(row["status"] == "failed" for row in rows)
        return TaskResult(
            outputs=(
                Output(
                    path=f"captions/{self._captioner.dir_name}/{task.key}.parquet",
                    data=tables.to_parquet(table),
                ),
            ),
            counts={"ok": len(rows) - failed, "failed": failed},
        )


def caption_rows(
    captioner: Captioner,
    clip_ids: Sequence[str],
    strips: dict[str, Filmstrip],
    killers: Set[str] = frozenset(),
) -> list[dict[str, Any]]:
    """A row of the captions table for each clip id, in order; `killers` killed their worker."""
    answers = dict(zip(strips, captioner.caption(list(strips.values())), strict=True))
    answers |= dict.fromkeys(killers, KILLED)
    missing = Failure(reason="the corpus holds no filmstrip of this clip; run framemill analyze again")
    return [_row(captioner, clip_id, answers.get(clip_id, missing)) for clip_id in clip_ids]


def _row(captioner: Captioner, clip_id: str, answer: Caption | Failure) -> dict[str, Any]:
    row: dict[str, Any] = {
        "clip_id": clip_id,
        "captioner": captioner.name,
        "captioner_sha256": captioner.weights_sha256,
        "flags": [],
    }
    if isinstance(answer, Failure):
        return row | {"status": "failed", "reason": answer.reason}
    return row | {
        "short": answer.short,
        "detailed": answer.detailed,
        "confidence": _rounded(answer.confidence),
        "alignment": _rounded(answer.alignment),
        "flags": caption_flags(answer.short, answer.detailed),
        "status": "ok",
    }


def _rounded(value: float | None) -> float | None:
    """Four decimals: a batch of other company moves the ones after by rounding errors."""
    return None if value is None else round(value, 4)


def recaption_corpus(
    corpus: Corpus,
    config: Config,
    executor: Executor,
    progress: Progress = silent,
    *,
    retry_failed: bool = False,
) -> RunSummary:
    """Captions every kept clip that this captioner, at these settings, has not captioned yet; those that
    failed again when asked to."""
    captioner = load_captioner(config.caption.captioner, config.caption.max_tokens)
    name = captioner.dir_name
    settings = (config.caption.captioner, config.caption.max_tokens, STAGE_VERSION, captioner.weights_sha256)
    stage_fingerprint = fingerprint(*settings, corpus.fingerprints().get("analyze"))  # whose filmstrips
    corpus.record(config, f"captions/{name}", stage_fingerprint)
    if retry_failed:
        forget_failed(corpus, f"captions/{name}", f"captions/{name}", tables.CAPTIONS)
    tasks = caption_tasks(corpus, name, stage_fingerprint, config.caption.clips_per_task)
    summary = run(RecaptionStage(corpus.root, config.caption), tasks, executor, corpus.root, progress)
    refresh_originals(corpus, name)
    return summary


def refresh_originals(corpus: Corpus, name: str) -> None:
    """Brings the `original` column of the current parts up to what the manifests say now."""
    originals = _originals(corpus)
    for key in corpus.part_keys(f"captions/{name}", f"captions/{name}"):
        path = f"captions/{name}/{key}.parquet"
        rows = tables.from_parquet(corpus.storage.read_bytes(path), tables.CAPTIONS)
        fresh = _with_originals(rows, originals)
        if not fresh.equals(rows):
            corpus.storage.write_bytes(path, tables.to_parquet(fresh))


def _originals(corpus: Corpus) -> dict[str, str | None]:
    """source_id → its own caption."""
    return {source_id: facts["original"] for source_id, facts in corpus.provenance().items()}


def _with_originals(rows: pa.Table, originals: Mapping[str, str | None]) -> pa.Table:
    sources = sources_of(rows["clip_id"]).to_pylist()
    column = pa.array([originals.get(source_id) for source_id in sources], pa.string())
    return rows.set_column(rows.schema.get_field_index("original"), "original", column)


def caption_tasks(corpus: Corpus, name: str, stage_fingerprint: str, clips_per_task: int) -> list[Task]:
    """Tasks for the kept clips that lack a caption by `name`; each within one analyze part, so that it
    reads the filmstrips of that part only."""
    kept = corpus.kept()["clip_id"]
    done = set(corpus.captions(name)["clip_id"].to_pylist())
    originals = _originals(corpus)
    tasks: list[Task] = []
    for part, clips in corpus.clips_by_part():
        chosen = clips.filter(pc.is_in(clips["clip_id"], value_set=kept)).select(SPAN_COLUMNS)
        chosen = chosen.append_column("part", pa.array([part] * chosen.num_rows, pa.string()))
        own = [originals.get(source_id) for source_id in chosen["source_id"].to_pylist()]
        chosen = chosen.append_column("original", pa.array(own, pa.string()))
        tasks += plan_tasks(chosen, "clip_id", done, stage_fingerprint, clips_per_task)
    return tasks
