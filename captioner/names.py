"""Captioners by name.

    builtin:                    the one in this repository; builtin:DIR one of your own training
    truth:FILE                  an oracle for toy worlds: what truth.jsonl says of the shot
    coca:MODEL/TAG              an open_clip CoCa, frame by frame           (captioner.pretrained)
    hf:REPO                     a transformers image-text-to-text model     (captioner.pretrained)
    openai:URL#MODEL            any server with an OpenAI-like chat API     (captioner.served)

In: filmstrips. Out: for each, a `Caption` or the `Failure` that says why there is none. A missing model
is a ModelError; nothing is downloaded unless its name was given.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from captioner.caption import BUILTIN_DIR, MADE_BY, MAX_TOKENS, Caption, Captioner, folder_name
from captioner.filmstrip import Filmstrip, strip_pixels
from pipeline.bundle import parse_name, read_description
from pipeline.engine.stage import Failure, Resources, guard
from pipeline.errors import MediaError, ModelError
from pipeline.toyworld.world import read_truth

FORMS = ("builtin:", "builtin:DIR", "truth:FILE", "coca:MODEL/TAG", "hf:REPO", "openai:URL#MODEL")


def load_captioner(name: str, max_tokens: int = MAX_TOKENS) -> Captioner:
    """The captioner of that name, with its weights loaded."""
    scheme, argument = parse_name(name, "captioner", FORMS)
    if scheme == "coca":
        from captioner.pretrained import CocaCaptioner

        return CocaCaptioner(argument, max_tokens)
    if scheme == "hf":
        from captioner.pretrained import HfCaptioner

        return HfCaptioner(argument, max_tokens)
    if scheme == "openai":
        from captioner.served import ServedCaptioner

        return ServedCaptioner(argument, max_tokens)
    if scheme == "truth":
        return TruthCaptioner(argument)
    return BuiltinCaptioner(argument, max_tokens)


class BuiltinCaptioner:
    """This repository's VideoCoCa. It knows the toy world only."""

    def __init__(self, folder: str = "", max_tokens: int = MAX_TOKENS) -> None:
        self._folder = Path(folder) if folder else BUILTIN_DIR
        self._max_tokens = max_tokens
        self.name = f"builtin:{folder}"
        self.dir_name = folder_name("builtin", folder)
        self.weights_sha256 = str(read_description(self._folder, MADE_BY)["weights_sha256"])
        self.resources = Resources(cpus=1, memory_gb=2)

    @cached_property
    def _model(self) -> Any:
        """Loaded for the first caption: a run with nothing to caption loads no weights."""
        from captioner.model import load_model

        return load_model(self._folder)

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        model = self._model  # here: what is wrong with it is no clip's fault
        return [guard(lambda strip=strip: self._caption_one(model, strip)) for strip in strips]  # type: ignore[misc]

    def _caption_one(self, model: Any, strip: Filmstrip) -> Caption:
        from captioner.generate import caption_video

        frames, times_s = strip_pixels(strip, model.config.image_px, model.config.max_frames)
        answer = caption_video(model, frames, times_s, self._max_tokens)
        return Caption(
            short=answer.short.text,
            detailed=answer.detailed.text,
            confidence=answer.detailed.log_probability,
            alignment=answer.alignment,
        )


class TruthCaptioner:
    """Answers from truth.jsonl: the captions of the shot that a clip overlaps most."""

    def __init__(self, path: str) -> None:
        truth = Path(path)
        if truth.name != "truth.jsonl":
            raise ModelError(f"truth:{path}", expected="the truth.jsonl of a toy world")
        self._shots: dict[str, list[dict[str, Any]]] = {}
        for row in read_truth(truth.parent):
            self._shots.setdefault(row["source_id"], []).extend(row["shots"])
        self.name = f"truth:{path}"
        self.dir_name = "truth"
        self.weights_sha256 = hashlib.sha256(truth.read_bytes()).hexdigest()
        self.resources = Resources(cpus=1, memory_gb=1)

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        return [guard(lambda strip=strip: self._look_up(strip)) for strip in strips]  # type: ignore[misc]

    def _look_up(self, strip: Filmstrip) -> Caption:
        shots = self._shots.get(strip.source_id, [])
        if strip.kind == "image" and shots:
            return Caption(short=shots[0]["short"], detailed=shots[0]["detailed"])

        def overlap_s(shot: dict[str, Any]) -> float:
            return float(min(shot["end_s"], strip.end_s) - max(shot["start_s"], strip.start_s))

        best = max(shots, key=overlap_s, default=None)
        if best is None or overlap_s(best) < 0.5 * (strip.end_s - strip.start_s):
            raise MediaError(f"no shot of the truth covers half of clip {strip.clip_id}")
        return Caption(short=best["short"], detailed=best["detailed"])
