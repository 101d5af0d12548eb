"""Filmstrips: letterboxing keeps aspect, toy examples are reproducible, files and grammar agree."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from captioner.filmstrip import PAD_GREY, Filmstrip, letterbox, strip_pixels
from captioner.training.examples import folder_examples, toy_example
from pipeline.config import Config
from pipeline.corpus.corpus import Corpus
from pipeline.engine.runner import LocalExecutor
from pipeline.errors import FormatError, MediaError
from pipeline.sandbox.sandbox import Sandbox
from pipeline.sources.discover import discover
from pipeline.stages.analyze import analyze_corpus
from pipeline.toyworld.facts import parse_facts
from pipeline.toyworld.world import ToyWorldConfig, render_corpus


@pytest.mark.parametrize(("width", "height"), [(210, 90), (90, 210), (64, 64), (500, 3)])
def test_letterbox_keeps_the_aspect_and_centres(width: int, height: int) -> None:
    boxed = letterbox(Image.new("RGB", (width, height), (255, 0, 0)), 64)
    picture = (boxed[..., 0] > 200) & (boxed[..., 1] < 50)
    rows, columns = np.nonzero(picture.any(1))[0], np.nonzero(picture.any(0))[0]
    assert max(len(rows), len(columns)) == 64
    assert len(columns) / len(rows) == pytest.approx(
        width / height, rel=0.1, abs=1.0 * width / height / len(rows)
    )
    assert abs(rows[0] - (63 - rows[-1])) <= 1
    assert (boxed[~picture] == PAD_GREY).all()


def test_strips_are_thinned_evenly_with_both_ends() -> None:
    strip = toy_example(1, 0).strip
    frames, times = strip_pixels(strip, 32, 4)
    assert frames.shape == (4, 3, 32, 32)
    assert (times[0], times[-1]) == (pytest.approx(strip.times_s[0]), pytest.approx(strip.times_s[-1]))


def test_an_empty_strip_is_a_media_error() -> None:
    empty = Filmstrip(clip_id="c", source_id="s", kind="video", start_s=0, end_s=1, times_s=(), frames=())
    with pytest.raises(MediaError, match="no filmstrip"):
        strip_pixels(empty, 32, 8)


def test_toy_examples_depend_on_seed_index_and_count_only() -> None:
    assert toy_example(1, 7) == toy_example(1, 7)
    assert toy_example(1, 7).strip.frames != toy_example(2, 7).strip.frames
    assert toy_example(1, 7).strip.frames != toy_example(1, 8).strip.frames
    assert len(toy_example(1, 7, 3).strip.frames) == 3
    assert toy_example(1, 7, 1).strip.kind == "image"


def test_an_examples_detailed_caption_states_its_facts() -> None:
    for index in range(20):
        example = toy_example(3, index, 1 if index % 4 == 0 else 8)
        assert parse_facts(example.caption.detailed) == example.facts


def test_a_rendered_world_gives_a_strip_for_every_shot(tmp_path: Path) -> None:
    summary = render_corpus(tmp_path, ToyWorldConfig(videos=2, images=1, seed=4, letterbox_share=1.0))
    examples = list(folder_examples(tmp_path))
    assert len(examples) == summary.shots
    assert {len(e.strip.frames) for e in examples} == {1, 8}
    assert len({e.strip.clip_id for e in examples}) == len(examples)
    for example in examples:
        frames, _ = strip_pixels(example.strip, 64, 8)
        assert frames.float().std() > 5
        assert len(list(folder_examples(tmp_path, limit=1))) == 1


def test_a_folder_without_truth_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="framemill toyworld"):
        list(folder_examples(tmp_path))


def test_strips_to_train_on_are_those_of_the_analysis(tmp_path: Path) -> None:
    """Of a toy world's videos (letterboxed) and images, and of the endless grammar: the same bytes for the
    same frames, and colour at full size."""
    media, config = tmp_path / "media", Config()
    render_corpus(media, ToyWorldConfig(videos=2, images=2, seed=4, letterbox_share=1.0, area_px=320 * 180))
    corpus = Corpus(str(tmp_path / "corpus"))
    analyze_corpus(corpus, discover([str(media)]).inputs, config, LocalExecutor(), lambda *_: None)
    uris = {row["source_id"]: row["uri"] for row in corpus.sources().to_pylist()}
    strips = {row["clip_id"]: row for row in corpus.strips().to_pylist()}
    examples = {example.strip.clip_id: example.strip for example in folder_examples(media)}
    kinds = set()
    with Sandbox() as box:
        for clip in corpus.clips().to_pylist():
            strip = strips[clip["clip_id"]]
            assert strip["frames"] == box.read_strip(
                uris[clip["source_id"]],
                kind=clip["kind"],
                times_s=strip["times_s"],
                crop=clip["crop"],
                config=config.analyze,
            )
            kinds.add(clip["kind"])
            if clip["kind"] == "image":
                assert tuple(strip["frames"]) == examples[clip["clip_id"]].frames
    assert kinds == {"image", "video"}
    for strip in (*examples.values(), toy_example(1, 0).strip):
        assert {JpegImagePlugin.get_sampling(Image.open(io.BytesIO(f))) for f in strip.frames} == {0}
