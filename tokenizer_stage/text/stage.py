"""The text stage: captions in, features of them out, in shards of their own.

In: a caption set of a corpus, a text encoder. Out, below text/<captions>.<encoder>/: a tar a task, of
`<key>.<kind>.npy` (float16 [L, D], key as in the shards of latents), rows of the table TEXTS, null.npy (the
features of the empty text) and text.toml. A tar never changes: new or changed captions make new tars, and no
latent is touched. Never: a pixel.
"""

import io
import tarfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.caption import folder_name
from pipeline.config import Config, TextConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.manifest import tables_of
from pipeline.corpus.shards import add_member, npy_bytes, sample_key
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.runner import Executor, RunSummary, granted
from pipeline.engine.stage import KILLED, Failure, Output, Resources, Task, TaskResult, guard
from pipeline.engine.task_list import TaskList
from pipeline.engine.tasks import part_key
from pipeline.errors import UsageError
from pipeline.operation.reasons import failures_of
from pipeline.progress import Progress, silent
from pipeline.settings import fingerprint
from pipeline.storage import sha256_hex
from tokenizer_stage.text.encoder import TextDescription, TextEncoder, TextFeatures
from tokenizer_stage.text.names import describe_text_encoder, load_text_encoder
from tokenizer_stage.text.text_set import KINDS, NULL_NAME, TextInfo, info_to_toml, set_name

STAGE_VERSION = 1
USUAL_TOKENS = 160  # of a text, to size shards by
Load = Callable[[str, TextConfig], TextEncoder]


class TextStage:
    """Encodes the texts of a task, which are rows of (clip_id, kind, text), with one encoder."""

    name = "text"
    version = STAGE_VERSION

    def __init__(
        self,
        folder: str,
        config: TextConfig,
        identity: str,
        resources: Resources,
        load: Load = load_text_encoder,
    ) -> None:
        self.resources = resources
        self._folder, self._config, self._identity, self._load = folder, config, identity, load
        self._encoder: TextEncoder | None = None

    def setup(self) -> None:
        self._encoder = self._load(self._config.encoder, self._config)
        if self._encoder.description.identity != self._identity:
            raise UsageError(
                f"the text encoder {self._config.encoder} here is another one than was planned for",
                fix="give every worker the same weights and tokenizer",
            )

    def process(self, task: Task) -> TaskResult:
        encoder = self._encoder
        assert encoder is not None, "setup first"
        killers, texts = task.killers("clip_id"), task.inputs.to_pylist()
        sound = [row for row in texts if row["clip_id"] not in killers]
        answers = _answers(encoder, [row["text"] for row in sound])
        of_text = {(row["clip_id"], row["kind"]): one for row, one in zip(sound, answers, strict=True)}
        shard, sink = f"{task.key}.tar", io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            rows = [
                _row(tar, shard, row, of_text.get((row["clip_id"], row["kind"]), KILLED)) for row in texts
            ]
        failed = [row["reason"] for row in rows if row["status"] == "failed"]
        part = tables.to_parquet(tables.from_rows(rows, tables.TEXTS))
        (null,) = encoder.encode([""])
        return TaskResult(
            outputs=(
                Output(path=f"{self._folder}/{NULL_NAME}", data=npy_bytes(null.tokens)),
                Output(path=f"{self._folder}/{shard}", data=sink.getvalue()),
                Output(path=f"{self._folder}/{task.key}.parquet", data=part),
            ),
            counts={"ok": len(rows) - len(failed), "failed": len(failed)},
            amounts={"tokens": sum(row["tokens"] for row in rows if row["status"] == "ok")},
            failures=failures_of(failed),
        )


def _answers(encoder: TextEncoder, texts: Sequence[str]) -> list[TextFeatures | Failure]:
    """Features of all texts; where one of them fails, each is asked for alone."""
    together = guard(lambda: encoder.encode(texts))
    if not isinstance(together, Failure):
        return list(together)
    alone = [guard(partial(encoder.encode, [text])) for text in texts]
    return [one if isinstance(one, Failure) else one[0] for one in alone]


def _row(
    tar: tarfile.TarFile, shard: str, row: dict[str, Any], answer: TextFeatures | Failure
) -> dict[str, Any]:
    if isinstance(answer, Failure):
        return row | {"status": "failed", "reason": answer.reason}
    data = npy_bytes(answer.tokens)
    return row | {
        "shard": shard,
        "offset": add_member(tar, f"{sample_key(row['clip_id'])}.{row['kind']}.npy", data),
        "nbytes": len(data),
        "tokens": len(answer.tokens),
        "cut_tokens": answer.cut_tokens,
        "sha256": sha256_hex(data),
        "status": "ok",
        "reason": "",
    }


def encode_texts(
    corpus: Corpus,
    config: Config,
    executor: Executor,
    progress: Progress = silent,
    *,
    retry_failed: bool = False,
    load: Load = load_text_encoder,
) -> RunSummary:
    """Brings the features of a caption set up to date: only texts that are new or were changed are encoded.

    Raises:
        UsageError: there is no such caption set.
    """
    captions = _caption_set(corpus, config)
    encoder = describe_text_encoder(config.text.encoder, config.text)
    place = f"text/{set_name(captions, folder_name(*config.text.encoder.split(':', 1)))}"
    key = fingerprint(encoder.identity, STAGE_VERSION)
    wanted = texts_of(corpus, captions)

    def forget() -> None:
        if retry_failed:
            forget_failed(corpus, place)
        corpus.edit(place, stale_clips(_stored(corpus, place), wanted))

    def stage(tasks: Sequence[Task]) -> TextStage:
        settings = config.resources.text
        resources = granted(encoder.resources, executor, "text", settings) if tasks else encoder.resources
        return TextStage(place, config.text, encoder.identity, resources, load)

    summary = bring_up_to_date(
        corpus,
        config,
        place,
        key,
        plan=lambda: text_tasks(wanted, _stored(corpus, place), key, _clips_per_task(config.text, encoder)),
        stage=stage,
        executor=executor,
        progress=progress,
        forget=forget,
    )
    info = TextInfo(
        encoder=encoder.name,
        family=encoder.family,
        identity=encoder.identity,
        width=encoder.width,
        limit=encoder.limit,
        template=encoder.template,
        compute_dtype=config.text.dtype,
        captions=captions,
    )
    corpus.storage.write_bytes(f"{place}/text.toml", info_to_toml(info))
    return summary


def _caption_set(corpus: Corpus, config: Config) -> str:
    """The caption set that is named, or that the config's captioner makes."""
    name = config.text.captions or folder_name(*config.caption.captioner.split(":", 1))
    if name not in (known := corpus.sets("captions")):
        raise UsageError(
            f"{corpus.root} has no caption set {name}",
            expected=f"one of {', '.join(known)}" if known else "captions: framemill caption",
            fix="--captions NAME",
        )
    return name


def _clips_per_task(config: TextConfig, encoder: TextDescription) -> int:
    tokens = min(USUAL_TOKENS, encoder.limit)
    return max(1, config.shard_mb * 2**20 // (len(KINDS) * tokens * encoder.width * 2))


def texts_of(corpus: Corpus, captions: str) -> pa.Table:
    """clip_id, kind and text of everything that a caption set says, sorted by clip and kind."""
    rows = corpus.captions(captions, ["clip_id", "status", *KINDS])
    rows = rows.filter(pc.equal(rows["status"], "ok"))
    of_kind = [
        pa.table([rows["clip_id"], pa.repeat(pa.scalar(kind), rows.num_rows), rows[kind]], TEXT_COLUMNS)
        for kind in KINDS
    ]
    texts = pa.concat_tables(of_kind)
    said = pc.greater(pc.utf8_length(pc.fill_null(texts["text"], "")), 0)
    return texts.filter(said).sort_by([("clip_id", "ascending"), ("kind", "ascending")])


TEXT_COLUMNS = ["clip_id", "kind", "text"]


def _stored(corpus: Corpus, place: str) -> pa.Table:
    """clip_id, kind and text of the texts that have features, or failed."""
    (table,) = tables_of(place)
    return corpus.rows(table, place, TEXT_COLUMNS)


def stale_clips(stored: pa.Table, wanted: pa.Table) -> pa.Array:
    """Clips of which a stored text is no more what is said: all their rows are made anew."""
    return _unlike(stored, wanted)


def text_tasks(wanted: pa.Table, stored: pa.Table, stage_fingerprint: str, clips_per_task: int) -> TaskList:
    """Tasks for the clips of which a text has no features, all their texts together."""
    todo = wanted.filter(pc.is_in(wanted["clip_id"], value_set=_unlike(wanted, stored))).combine_chunks()
    of_clip = pc.run_end_encode(todo["clip_id"].combine_chunks())
    ids, ends = of_clip.values.to_pylist(), of_clip.run_ends.to_numpy()
    borders = [*range(0, len(ids), clips_per_task), len(ids)]
    rows = [0 if border == 0 else int(ends[border - 1]) for border in borders]
    keys = [
        part_key(stage_fingerprint, (row["clip_id"] + row["kind"] + row["text"] for row in chunk.to_pylist()))
        for chunk in (todo.slice(a, b - a) for a, b in pairwise(rows))
    ]
    return TaskList(keys, lambda number: todo.slice(rows[number], rows[number + 1] - rows[number]))


def _unlike(ones: pa.Table, others: pa.Table) -> pa.Array:
    """Sorted ids of the clips of `ones` with a text that `others` does not have of the same clip and kind."""
    unlike = []
    for kind in KINDS:
        one = ones.filter(pc.equal(ones["kind"], kind))
        other = others.filter(pc.equal(others["kind"], kind))
        there = other["text"].take(pc.index_in(one["clip_id"], value_set=other["clip_id"]))
        same = pc.fill_null(pc.equal(one["text"], there), False)
        unlike += one["clip_id"].filter(pc.invert(same)).chunks
    ids = pc.unique(pa.chunked_array(unlike, pa.string()))
    return ids.take(pc.sort_indices(ids))
