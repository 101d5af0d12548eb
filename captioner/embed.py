"""The embed stage: filmstrips in, one vector a clip out, and an aesthetic score where a head is named.

In: clip ids of a corpus. Out: embeddings/<embedder>/<key>.parquet (schema EMBEDDINGS). Embedders by name:

    builtin:           the image side of this repository's captioner; it knows the toy world only
    clip:MODEL/TAG     an open_clip model, frame by frame, the frames' vectors averaged

An aesthetic head is a safetensors file with `weight` [1, D] and `bias` [1] over such a model's vectors
(LAION's linear head is one for clip:ViT-L-14/openai); its score is usually 1 to 10. Never: video, a verdict.
"""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.caption import BUILTIN_DIR, MADE_BY, folder_name
from captioner.filmstrip import (
    SPAN_COLUMNS,
    Filmstrip,
    answers_of,
    decode_jpeg,
    part_of,
    strip_pixels,
    strip_tasks,
)
from pipeline.bundle import parse_name, read_description
from pipeline.config import Config, JudgeConfig
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.corpus.failures import forget_failed
from pipeline.corpus.update import bring_up_to_date
from pipeline.engine.runner import Executor, RunSummary
from pipeline.engine.stage import Failure, Resources, Task, TaskResult, guard
from pipeline.engine.task_list import TaskList
from pipeline.errors import ModelError
from pipeline.progress import Progress
from pipeline.settings import fingerprint

VERSION = 1
CLIPS_PER_TASK = 64


class Embedder(Protocol):
    """A named model: filmstrip → unit vector float32 [D]."""

    dir_name: str
    weights_sha256: str
    resources: Resources  # of a worker with it

    def embed(self, strip: Filmstrip) -> np.ndarray: ...


def load_embedder(name: str) -> Embedder:
    """The embedder of that name; weights are loaded for the first clip."""
    kind, argument = parse_name(name, "embedder", ("builtin:", "builtin:DIR", "clip:MODEL/TAG"))
    if kind == "builtin":
        return BuiltinEmbedder(argument)
    if "/" not in argument:
        raise ModelError(f"no embedder is called {name!r}", expected="a tag, as in clip:ViT-L-14/openai")
    return ClipEmbedder(argument)


class BuiltinEmbedder:
    """The contrastive video vector of the built-in captioner, or of one of your own training."""

    def __init__(self, folder: str = "") -> None:
        self._folder = Path(folder) if folder else BUILTIN_DIR
        self._model: Any = None
        self.dir_name = folder_name("builtin", folder)
        self.weights_sha256 = str(read_description(self._folder, MADE_BY)["weights_sha256"])
        self.resources = Resources(cpus=1, memory_gb=3)

    def embed(self, strip: Filmstrip) -> np.ndarray:
        import torch

        if self._model is None:
            from captioner.model import load_model

            self._model = load_model(self._folder)
        sizes = self._model.config
        frames, times_s = strip_pixels(strip, sizes.image_px, sizes.max_frames)
        with torch.inference_mode():
            vector, _ = self._model.encode_video(frames[None], times_s[None])  # [1, D]
        return _unit(vector[0].float().numpy())


class ClipEmbedder:
    """An open_clip model; naming it may download its weights."""

    def __init__(self, argument: str) -> None:
        self._model_name, _, self._tag = argument.partition("/")
        self._model: Any = None
        self._preprocess: Any = None
        self.dir_name = folder_name("clip", argument)
        self.weights_sha256 = hashlib.sha256(argument.encode()).hexdigest()  # a tag names its weights
        self.resources = Resources(cpus=1, memory_gb=12)  # of the largest ones; sizes are known when loaded

    def embed(self, strip: Filmstrip) -> np.ndarray:
        import torch

        if self._model is None:
            import open_clip

            model, _, preprocess = open_clip.create_model_and_transforms(
                self._model_name, pretrained=self._tag
            )
            self._model, self._preprocess = model.eval(), preprocess
        frames = [self._preprocess(decode_jpeg(data, strip.clip_id)) for data in strip.frames]
        with torch.inference_mode():
            vectors = self._model.encode_image(torch.stack(frames), normalize=True)  # [T, D]
        return _unit(vectors.mean(dim=0).float().numpy())


class EmbedStage:
    """Embeds the clips of a task."""

    name = "embed"
    version = VERSION

    def __init__(self, root: str, config: JudgeConfig, resources: Resources) -> None:
        self.resources = resources
        self._root, self._config = root, config
        self._embedder: Embedder | None = None
        self._head: tuple[np.ndarray, float] | None = None

    def setup(self) -> None:
        self._embedder = load_embedder(self._config.embedder)
        self._head = read_head(self._config.aesthetic_head) if self._config.aesthetic_head else None

    def process(self, task: Task) -> TaskResult:
        assert self._embedder is not None, "setup first"
        embed = self._embedder.embed
        answers = answers_of(
            Corpus(self._root), task, lambda strips: [guard(partial(embed, strip)) for strip in strips]
        )
        rows = tables.from_rows([self._row(*answer) for answer in answers], tables.EMBEDDINGS)
        return part_of(f"embeddings/{self._embedder.dir_name}/{task.key}.parquet", rows, task.inputs)

    def _row(self, clip_id: str, vector: np.ndarray | Failure) -> dict[str, Any]:
        if isinstance(vector, Failure):
            return {"clip_id": clip_id, "status": "failed", "reason": vector.reason}
        score = None if self._head is None else float(self._head[0] @ vector + self._head[1])
        return {"clip_id": clip_id, "vector": vector.tolist(), "aesthetic": score, "status": "ok"}


def embed_corpus(
    corpus: Corpus, config: Config, executor: Executor, progress: Progress, *, retry_failed: bool = False
) -> tuple[RunSummary, pa.Table]:
    """Embeds every clip that has no vector yet, those that failed again when asked to; what was done, and the
    vectors of all current clips."""
    embedder = load_embedder(config.judge.embedder)
    place = f"embeddings/{embedder.dir_name}"
    head = config.judge.aesthetic_head and _sha256(config.judge.aesthetic_head)
    current = fingerprint(VERSION, embedder.weights_sha256, head, corpus.fingerprints().get("analyze"))

    def plan() -> TaskList:
        done = corpus.embeddings(embedder.dir_name, ["clip_id"])["clip_id"]
        clips = _measured(corpus.clips([*SPAN_COLUMNS, "status"]))
        return strip_tasks(corpus, clips, done, current, CLIPS_PER_TASK)

    summary = bring_up_to_date(
        corpus,
        config,
        place,
        current,
        plan=plan,
        stage=lambda tasks: EmbedStage(
            corpus.root, config.judge, embedder.resources.set_to("embed", config.resources.embed)
        ),
        executor=executor,
        progress=progress,
        forget=partial(forget_failed, corpus, place) if retry_failed else None,
    )
    return summary, corpus.embeddings(embedder.dir_name)


def _measured(clips: pa.Table) -> pa.Table:
    """SPAN_COLUMNS of the clips that did not fail."""
    return clips.filter(pc.equal(clips["status"], "ok")).select(SPAN_COLUMNS)


def read_head(path: str) -> tuple[np.ndarray, float]:
    """(weight float32 [D], bias) of a linear aesthetic head."""
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        return tensors["weight"].reshape(-1).astype(np.float32), float(tensors["bias"].reshape(-1)[0])
    except (OSError, KeyError) as error:
        raise ModelError(
            f"cannot read the aesthetic head {path}: {error}",
            expected="safetensors with weight [1, D], bias [1]",
        ) from error


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)


def _sha256(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"cannot read the aesthetic head {path}: {error}") from error
