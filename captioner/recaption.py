"""The caption stage: filmstrips in, a part of the captions table out.

In: clip ids of a corpus. Out: captions/<captioner>/<key>.parquet, a row a clip, `ok` or `failed` with the
reason; every kept clip has one. Reads only filmstrips: captioning anew never decodes video and never encodes
latents again. Never changes an earlier caption set of another captioner.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
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
from pipeline.corpus.manifest import tables_of
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.beside import Beside
from pipeline.engine.runner import Executor, RunSummary, granted
from pipeline.engine.stage import Failure, Resources, Task, TaskResult
from pipeline.engine.task_list import TaskList
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
        originals = task.inputs.select(["source_id", "original"])
        path = f"captions/{captioner.dir_name}/{task.key}.parquet"
        return part_of(path, with_originals(rows, originals), task.inputs)


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
    """Four decimals: the ones after say nothing, and differ from machine to machine."""
    return None if value is None else round(value, 4)


def recaption_corpus(
    corpus: Corpus,
    config: Config,
    executor: Executor,
    progress: Progress = silent,
    *,
    retry_failed: bool = False,
    load: Load = load_captioner,
    beside: Beside = nullcontext,
) -> RunSummary:
    """Captions every kept clip that this captioner, at these settings, has not captioned yet; those that
    failed again when asked to. `beside` is entered while clips are captioned."""
    captioner = load(config.caption.captioner, config.caption.max_tokens)
    name = captioner.dir_name
    stage_fingerprint = captions_fingerprint(corpus, config, captioner)
    place = f"captions/{name}"

    def stage(tasks: Sequence[Task]) -> RecaptionStage:
        given = captioner.resources
        resources = granted(given, executor, "caption", config.resources.caption) if tasks else given
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
        forget=partial(forget_failed, corpus, place) if retry_failed else None,
        beside=beside,
    )
    refresh_originals(corpus, name)
    return summary


def captions_fingerprint(corpus: Corpus, config: Config, captioner: Captioner) -> str:
    """That of the caption stage with this captioner."""
    settings = (config.caption.captioner, config.caption.max_tokens, STAGE_VERSION, captioner.weights_sha256)
    return fingerprint(*settings, corpus.fingerprints().get("analyze"))  # whose filmstrips


def refresh_originals(corpus: Corpus, name: str) -> None:
    """Brings the `original` column of the current captions up to what the manifests say now."""
    place, originals = f"captions/{name}", _originals(corpus)
    rows = corpus.rows(tables_of(place)[0], place, ["original"])
    fresh = _original_of(rows["clip_id"], originals)
    stale = _differ(fresh, rows["original"])
    corpus.edit(
        place, rows["clip_id"].filter(stale).combine_chunks(), lambda rows: with_originals(rows, originals)
    )


def _differ(one: pa.ChunkedArray, other: pa.ChunkedArray) -> pa.ChunkedArray:
    """bool [N]: where one of them says what the other does not."""
    unequal = pc.fill_null(pc.not_equal(one, other), False)
    return pc.or_(unequal, pc.not_equal(pc.is_null(one), pc.is_null(other)))


def _originals(corpus: Corpus) -> pa.Table:
    """source_id and original: the own caption of each content."""
    return corpus.contents(["original"])


def with_originals(rows: pa.Table, originals: pa.Table) -> pa.Table:
    """The rows with the own caption of each one's source (columns source_id and original)."""
    return rows.set_column(
        rows.schema.get_field_index("original"), "original", _original_of(rows["clip_id"], originals)
    )


def _original_of(clip_ids: pa.ChunkedArray, originals: pa.Table) -> pa.ChunkedArray:
    """string [N]: what manifests say of each clip's source, null for nothing."""
    at = pc.index_in(sources_of(clip_ids), value_set=originals["source_id"])
    return originals["original"].take(at)


def caption_tasks(corpus: Corpus, name: str, stage_fingerprint: str, clips_per_task: int) -> TaskList:
    """Tasks for the kept clips that lack a caption by `name`."""
    clips = corpus.clips(SPAN_COLUMNS)
    kept = clips.filter(pc.is_in(clips["clip_id"], value_set=corpus.kept()["clip_id"]))
    kept = kept.append_column("original", _original_of(kept["clip_id"], _originals(corpus)))
    done = corpus.captions(name, ["clip_id"])["clip_id"]
    return strip_tasks(corpus, kept, done, stage_fingerprint, clips_per_task)
