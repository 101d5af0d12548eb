"""Evaluation: facts are read back alike from generated and from true videos; texts are embedded once."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from captioner.filmstrip import Filmstrip
from captioner.names import Caption
from pipeline.config import AnalyzeConfig
from pipeline.engine.stage import Failure
from pipeline.errors import ModelError
from pipeline.media.strips import strip_frames, strip_picture
from pipeline.toyworld.facts import parse_facts, score_all
from training.rng import keyed_normal
from training.run.evaluate import draw_sheet, evaluate, filmstrip, read_facts
from training.text import CachedTextEncoder, load_text_encoder

PROMPT = "A large red circle moves to the left. The background is plain blue. The camera is still."


class Parrot:
    """Says the prompt of the first strip and fails on the others."""

    name = dir_name = weights_sha256 = "parrot"

    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        failure = Failure(reason="unreadable")
        return [Caption(short="", detailed=PROMPT), *[failure] * (len(strips) - 1)]


def test_a_perfect_reader_finds_everything_and_a_failed_strip_counts_as_nothing_found() -> None:
    wanted = parse_facts(PROMPT)
    assert len(wanted) >= 4
    video = np.zeros((17, 64, 96, 3), np.uint8)
    assert score_all(read_facts(Parrot(), [video], 8.0, [wanted])).recall == 1
    assert score_all(read_facts(Parrot(), [video, video], 8.0, [wanted, wanted])).recall == 0.5


def test_a_filmstrip_runs_from_the_first_frame_to_the_last() -> None:
    strip = filmstrip(np.zeros((17, 64, 96, 3), np.uint8), 8.0)
    assert (strip.kind, len(strip.frames), strip.times_s[0], strip.times_s[-1]) == ("video", 8, 0.0, 2.0)
    still = filmstrip(np.zeros((1, 64, 96, 3), np.uint8), 8.0)
    assert (still.kind, len(still.frames), still.times_s) == ("image", 1, (0.0,))


def test_a_filmstrip_is_made_as_the_analysis_makes_it() -> None:
    frames = np.random.default_rng(1).integers(0, 255, (2, 300, 400, 3), np.uint8)
    config = AnalyzeConfig()
    pictures = [strip_picture(frame, config.strip_long_px) for frame in frames]
    wanted = strip_frames(pictures, (0, 0, 400, 300), (400, 300), config.strip_quality)
    assert list(filmstrip(frames, 8.0).frames) == wanted
    assert Image.open(io.BytesIO(wanted[0])).size == (256, 192)


def test_the_sheet_shows_each_sample_above_its_truth(tmp_path: Path) -> None:
    made, truth = (np.full((2, 17, 8, 12, 3), level, np.uint8) for level in (200, 50))
    draw_sheet(list(made), list(truth), str(tmp_path / "sheet.png"))
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))  # a row of 8, one of 8 and a gap of 4, twice
    assert sheet.shape[0] == 2 * (8 + 8 + 4)
    assert [int(sheet[y, 0, 0]) for y in (0, 8, 16, 20, 28)] == [200, 50, 0, 200, 50]


@pytest.mark.slow
def test_the_bundled_model_shows_what_its_prompts_say() -> None:
    figures = evaluate("builtin:", prompts=32)
    assert figures["fact_fidelity"] > 0.5  # 0.63 on 128 prompts; 0.38 before place and motion were learnt
    assert figures["by_kind"]["object"]["fidelity"] > 0.3


def test_texts_are_embedded_once_and_forgotten_beyond_the_bound() -> None:
    asked: list[str] = []

    def embed(texts: list[str]) -> list[Tensor]:
        asked.extend(texts)
        return [keyed_normal((3, 4), text) for text in texts]

    encoder = CachedTextEncoder("test:", 4, "sha", embed)
    first = encoder.encode(["a", "b", "a"])
    assert asked == ["a", "b"]
    assert first[0].equal(first[2])
    assert first[0].equal(encoder.encode(["a"])[0])
    assert asked == ["a", "b"]
    asked.clear()
    forgetful = CachedTextEncoder("test:", 4, "sha", embed, cache_bytes=0)
    assert first[1].equal(forgetful.encode(["b"])[0])
    assert first[1].equal(forgetful.encode(["b"])[0])
    assert asked == ["b", "b"]


def test_features_do_not_depend_on_what_a_cache_holds() -> None:
    """A resumed run begins with an empty cache, so its texts meet others."""
    texts = [
        "A red circle.",
        "A large blue square moves to the right on a dark background, slowly.",
        "A ring.",
    ]
    together = load_text_encoder("builtin:").encode(texts)
    alone = [load_text_encoder("builtin:").encode([text])[0] for text in texts]
    assert all(one.equal(other) for one, other in zip(together, alone, strict=True))


def test_an_unknown_text_encoder_is_an_error_that_names_the_known_one() -> None:
    with pytest.raises(ModelError, match="builtin:"):
        load_text_encoder("t5:xxl")
