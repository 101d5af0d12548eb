"""How good a trained model is: its held-out loss, and how many of the prompted facts its videos show.

In: `builtin:` or a run folder. Out: a dict for --json. Facts are read back from the frames by the built-in
captioner, an imperfect reader: `reader_recall` is what it finds in true videos of the same prompts that went
through the same VAE, the most that `fact_fidelity` could show. Knows the toy world only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from captioner.caption import Captioner
from captioner.filmstrip import STRIP_FRAMES, Filmstrip
from captioner.names import load_captioner
from pipeline.bundle import read_description
from pipeline.config import AnalyzeConfig
from pipeline.corpus.corpus import Corpus
from pipeline.engine.stage import Failure
from pipeline.media.strips import strip_frames, strip_picture
from pipeline.progress import Progress, silent
from pipeline.settings import build
from pipeline.storage import commit_bytes
from pipeline.toyworld.facts import FactScore, parse_facts, score_all, score_by_kind
from pipeline.toyworld.render import render_frames
from pipeline.toyworld.scene import Fact, Shot, sample_shot
from pipeline.toyworld.wording import caption_shot
from tokenizer_stage.vae.builtin import VideoVAE
from tokenizer_stage.vae.pixels import to_frames, to_video
from training.config import TrainConfig
from training.loader import open_dataset
from training.run.sample import SampleConfig, VideoGenerator, contact_sheet, load_generator, png_bytes
from training.run.trained import MADE_BY
from training.run.validate import held_out_batches, validate

READER = "builtin:"
PROMPTS_PER_PACK = 8
SHEET_PROMPTS = 8
Pairs = list[tuple[frozenset[Fact], frozenset[Fact]]]


def evaluate(
    run: str,
    *,
    prompts: int = 16,
    steps: int = 20,
    cfg: float = 4.0,
    seed: int = 0,
    sheet: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Figures of one model on `prompts` fresh toy-world prompts; `sheet`: where to draw the first of them."""
    generator = load_generator(run)
    rng = np.random.default_rng([seed, 0xE7A1])
    shots = [sample_shot(rng) for _ in range(prompts)]
    texts = [caption_shot(shot, rng).detailed for shot in shots]
    config = SampleConfig(prompt="", steps=steps, cfg=cfg, seed=seed)
    samples: list[np.ndarray] = []
    for start in range(0, prompts, PROMPTS_PER_PACK):
        samples += generator.frames(texts[start : start + PROMPTS_PER_PACK], config)
        progress(len(samples), prompts, {})
    truth = [render(shot, config) for shot in shots]
    if sheet:
        draw_sheet(samples[:SHEET_PROMPTS], truth, sheet)
    true = [through_vae(generator.vae, frames) for frames in truth]
    wanted = [parse_facts(text) for text in texts]
    reader = load_captioner(READER)
    fidelity = read_facts(reader, samples, config.fps, wanted)
    ceiling = read_facts(reader, true, config.fps, wanted)
    return {
        "run": run,
        "step": generator.trained.step,
        "val_loss": held_out_loss(run, generator),
        "fact_fidelity": round(score_all(fidelity).recall, 4),
        "fact_precision": round(score_all(fidelity).precision, 4),
        "reader_recall": round(score_all(ceiling).recall, 4),
        "by_kind": {
            kind: {
                "fidelity": round(score.recall, 4),
                "reader_recall": _recall(ceiling, kind),
                "n": score.actual,
            }
            for kind, score in sorted(score_by_kind(fidelity).items())
            if score.actual
        },
        "prompts": prompts,
        "note": "recall of prompted facts, read back by the built-in captioner, which errs itself",
    }


def draw_sheet(samples: Sequence[np.ndarray], truth: Sequence[np.ndarray], path: str) -> None:
    """A picture for people: each video's frames, and below them those of the truth of its prompt."""
    rows = [
        np.asarray(contact_sheet(frames)) for pair in zip(samples, truth, strict=False) for frames in pair
    ]
    gaps = np.array([0, 4] * len(samples))
    spaced = [np.pad(row, ((0, gap), (0, 0), (0, 0))) for row, gap in zip(rows, gaps, strict=True)]
    commit_bytes(Path(path), png_bytes(Image.fromarray(np.concatenate(spaced))))


def held_out_loss(run: str, generator: VideoGenerator) -> float | None:
    """The validation loss of a run on the corpus it was trained on; of a bundle, the one on record."""
    if run.startswith("builtin:"):
        description = read_description(Path(generator.trained.where), MADE_BY)
        measured = [p["val_loss"] for p in description["training"].get("curve", []) if "val_loss" in p]
        return measured[-1] if measured else None
    saved = Path(run) / "config.json"
    if not saved.exists():
        return None
    resolved = json.loads(saved.read_text())
    config, data = build(TrainConfig, resolved["train"]), resolved["data"]
    dataset = open_dataset(Corpus(data["corpus"]), data["latents"], data["captions"], config)
    batches = held_out_batches(dataset, generator.text, config)
    trained = generator.trained
    return validate(trained.model, batches, trained.flow, torch.float32).loss if batches else None


def render(shot: Shot, config: SampleConfig) -> np.ndarray:
    """The true video of a prompt: uint8 [T, H, W, 3], from the first clean frame to the last."""
    return render_frames(shot, config.width_px, config.height_px, np.linspace(0, 1, config.frames))


def through_vae(vae: VideoVAE, frames: np.ndarray) -> np.ndarray:
    """Encodes and decodes, so that a true video bears the same blur as a generated one."""
    return to_frames(vae.decode(vae.encode(to_video(frames)[None]))[0])


def read_facts(
    reader: Captioner, videos: Sequence[np.ndarray], fps: float, wanted: Sequence[frozenset[Fact]]
) -> Pairs:
    """(facts that the reader states, facts that were prompted) of each video."""
    captions = reader.caption([filmstrip(frames, fps) for frames in videos])
    read = [frozenset() if isinstance(one, Failure) else parse_facts(one.detailed) for one in captions]
    return list(zip(read, wanted, strict=True))


def filmstrip(frames: np.ndarray, fps: float) -> Filmstrip:
    """Generated frames, uint8 [T, H, W, 3], as the analysis would show a captioner their clip."""
    config = AnalyzeConfig()
    _, high, wide, _ = frames.shape
    at = np.linspace(0, len(frames) - 1, min(STRIP_FRAMES, len(frames))).round().astype(int)
    pictures = [strip_picture(frames[i], config.strip_long_px) for i in at]
    jpegs = strip_frames(pictures, (0, 0, wide, high), (wide, high), config.strip_quality)
    return Filmstrip(
        clip_id="generated",
        source_id="generated",
        kind="video" if len(frames) > 1 else "image",
        start_s=0.0,
        end_s=len(frames) / fps,
        times_s=tuple(float(i) / fps for i in at),
        frames=tuple(map(bytes, jpegs)),
    )


def _recall(pairs: Pairs, kind: str) -> float:
    none = FactScore(correct=0, predicted=0, actual=0)
    return round(score_by_kind(pairs).get(kind, none).recall, 4)
