"""The data card counts what the tables say, says unknown where they do not, and adds up."""

from dataclasses import replace
from pathlib import Path

import pytest
from test_captioner_audit import PRINT, build_corpus, cells

import pipeline
from captioner.audit.report import render_report
from pipeline.corpus import tables
from pipeline.corpus.corpus import TAKEDOWNS_PATH
from pipeline.corpus.shards import LatentsInfo, info_to_toml

INFO = LatentsInfo(
    vae="builtin",
    vae_sha256="cd" * 32,
    channels=1,
    stride_t=4,
    stride_s=8,
    mean=(0.0,),
    std=(1.0,),
    fps=8.0,
    max_frames=17,
    area_px=6144,
)


def test_the_data_card_counts_every_file_and_clip_by_licence(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path, sources=6, clips_each=4)
    html = render_report(corpus, None)
    assert cells(html, "CC BY 4.0") == ["2", "16.0 s", "6", "12.0 s"]  # without the failed file
    assert cells(html, "unknown") == ["3", "24.0 s", "8", "16.0 s"]
    assert cells(html, "video") == ["5", "40.0 s", "14", "28.0 s"]
    assert cells(html, "Files that could not be decoded") == ["1 × no video stream", "1"]
    assert cells(html, "Clips that failed")[1] == "1"
    assert "The licence of 3 of 6 files is unknown" in html
    assert f"framemill {pipeline.__version__}" in html
    assert "builtin:, weights " + "ab" * 32 in html


def test_the_data_card_counts_what_was_taken_down(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path)
    gone = [{"source_id": f"{256:016x}", "uris": ["/media/v0.mp4"], "reason": "asked to"}]
    corpus.storage.write_bytes(TAKEDOWNS_PATH, tables.to_parquet(tables.from_rows(gone, tables.TAKEDOWNS)))
    html = render_report(corpus, None)
    assert cells(html, "Files taken down for good") == ["1 × asked to", "1"]
    assert cells(html, "unknown") == ["2", "16.0 s", "6", "12.0 s"]  # it and its clips are gone


@pytest.mark.parametrize(
    ("version", "said"),
    [(1, f"builtin, weights {'cd' * 32}; up to 17 frames at 8 fps, about 6,144 pixels"), (99, "unknown")],
)
def test_the_data_card_says_what_made_the_latents(tmp_path: Path, version: int, said: str) -> None:
    corpus = build_corpus(tmp_path)
    corpus.record(corpus.config(), "latents/default", PRINT)
    text = info_to_toml(replace(INFO, format_version=version))
    corpus.storage.write_bytes("latents/default/latents.toml", text)
    assert cells(render_report(corpus, None), "Latents · default") == [said]


def test_a_corpus_without_captions_or_takedowns_has_a_card_too(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path)
    for name in corpus.storage.list("captions/builtin"):
        corpus.storage.delete(f"captions/builtin/{name}")
    html = render_report(corpus, None)
    assert cells(html, "Files taken down for good") == ["", "0"]
    assert "What the captions are" in html
