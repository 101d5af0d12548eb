"""The caption stage: filmstrips in, a part of the captions table out.

In: clip ids of a corpus. Out: captions/<captioner>/<key>.parquet, a row a clip, `ok` or `failed` with the
reason; every kept clip has one. Reads only filmstrips: captioning anew never decodes video and never encodes
latents again. Never changes an earlier caption set of another captioner.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.caption import Caption, Captioner
from captioner.filmstrip import SPAN_COLUMNS, answers_of, part_of, strip_tasks
from captioner.names import load_captioner
from captioner.quality import caption_flags
from pipeline.config import CaptionConfig, Config
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.ids import sources_of
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.runner import Executor, RunSummary, granted
from pipeline.engine.stage import Failure, Resources, Task, TaskResult
from pipeline.progress import Progress, silent
from pipeline.settings import fingerprint

STAGE_VERSION = 1
DEFAULT_RESOURCES = Resources()
Load = Callable[[str, int], Captioner]  # (name, max_tokens) → the captioner


class RecaptionStage:
    """Captions the clips of a task with one captioner, which `load` gives by its name."""

    name = "caption"
    version = STAGE_VERSION

    def __init__(
        self,
        root: str,
        config: CaptionConfig,
        load: Load = load_captioner,
        resources: Resources = DEFAULT_RESOURCES,
    ) -> None:
        self.resources = resources
        self._root, self._config, self._load = root, config, load
        self._captioner: Captioner | None = None

    def setup(self) -> None:
        self._captioner = self._load(self._config.captioner, self._config.max_tokens)

    def process(self, task: Task) -> TaskResult:
        captioner = self._captioner
        assert captioner is not None, "setup first"
        answers = answers_of(Corpus(self._root), task, captioner.caption)
        rows = tables.from_rows([_row(captioner, *answer) for answer in answers], tables.CAPTIONS)
        originals = dict(
            zip(task.inputs["source_id"].to_pylist(), task.inputs["original"].to_pylist(), strict=True)
        )
        path = f"captions/{captioner.dir_name}/{task.key}.parquet"
        return part_of(path, _with_originals(rows, originals), task.inputs)


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
    load: Load = load_captioner,
) -> RunSummary:
    """Captions every kept clip that this captioner, at these settings, has not captioned yet; those that
    failed again when asked to."""
    captioner = load(config.caption.captioner, config.caption.max_tokens)
    name = captioner.dir_name
    settings = (config.caption.captioner, config.caption.max_tokens, STAGE_VERSION, captioner.weights_sha256)
    stage_fingerprint = fingerprint(*settings, corpus.fingerprints().get("analyze"))  # whose filmstrips
    place = f"captions/{name}"

    def stage(tasks: list[Task]) -> RecaptionStage:
        resources = granted(captioner.resources, executor) if tasks else captioner.resources
        return RecaptionStage(corpus.root, config.caption, load, resources)

    summary = bring_up_to_date(
        corpus,
        config,
        place,
        stage_fingerprint,
        plan=lambda: caption_tasks(corpus, name, stage_fingerprint, config.caption.clips_per_task),
        stage=stage,
        executor=executor,
        progress=progress,
        forget=partial(forget_failed, corpus, place, place, tables.CAPTIONS) if retry_failed else None,
    )
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
    """Tasks for the kept clips that lack a caption by `name`."""
    kept = corpus.kept()["clip_id"]
    done = set(corpus.captions(name)["clip_id"].to_pylist())
    originals = _originals(corpus)

    def chosen(clips: pa.Table) -> pa.Table:
        rows = clips.filter(pc.is_in(clips["clip_id"], value_set=kept)).select(SPAN_COLUMNS)
        own = [originals.get(source_id) for source_id in rows["source_id"].to_pylist()]
        return rows.append_column("original", pa.array(own, pa.string()))

    return strip_tasks(corpus, chosen, done, stage_fingerprint, clips_per_task)
