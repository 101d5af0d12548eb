"""A latent shows the pictures of its clip also where the clock of the source jumps."""

from pathlib import Path

import av
import numpy as np

from framemill import main
from pipeline.corpus import tables
from pipeline.corpus.corpus import Corpus
from pipeline.sandbox.sandbox import Sandbox
from tokenizer_stage.sharding import KeptClips
from tokenizer_stage.vae.spans import Span, read_frames

WIDTH, HEIGHT, FPS, SCENE_S = 96, 64, 25, 6
BACK_MS = 5000
QUIET = ["--workers", "1", "--json"]


def write_flv(path: Path) -> None:
    """Three scenes that look nearly alike; a strip at the top tells the number of the picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = FPS, 0
        for index in range(3 * SCENE_S * FPS):
            pixels = np.full((HEIGHT, WIDTH, 3), 60 + 60 * (index // (SCENE_S * FPS)), np.uint8)
            for bit in range(9):
                pixels[:8, 8 * bit : 8 * bit + 8] = 255 * (index >> bit & 1)
            pixels[32:, ::32] = 20
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.pict_type = index, int(index % (SCENE_S * FPS) == 0)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def set_back(path: Path) -> None:
    """As when a recorder connects anew: from the second scene on every tag is BACK_MS earlier."""
    data = bytearray(path.read_bytes())
    at = 13
    while at < len(data):
        size, time_ms = (
            int.from_bytes(data[at + 1 : at + 4], "big"),
            int.from_bytes(data[at + 4 : at + 7], "big"),
        )
        if time_ms >= 1000 * SCENE_S:
            data[at + 4 : at + 7] = (time_ms - BACK_MS).to_bytes(3, "big")
        at += 11 + size + 4
    path.write_bytes(data)


def number(pixels: np.ndarray) -> int:
    return sum(int(pixels[4, 8 * bit + 4].mean() > 127) << bit for bit in range(9))


def test_after_a_jump_back_a_latent_is_of_its_own_pictures(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    source, root = tmp_path / "raw" / "v.flv", tmp_path / "corpus"
    write_flv(source)
    set_back(source)
    assert main(["analyze", str(source.parent), "--out", str(root), *QUIET]) == 0
    assert main(["judge", str(root), "--set", "judge.preset=keep-all", *QUIET]) == 0
    corpus = Corpus(str(root))
    assert corpus.sources()["clock_jumps"].to_pylist() == [1]
    clips = sorted(KeptClips.of(corpus).rows().to_pylist(), key=lambda clip: clip["start_s"])
    assert len(clips) == 3
    with Sandbox() as box:
        for clip in clips:
            times_s = tuple(clip["start_s"] + s for s in (0.0, 2.0, 4.0))
            span = Span(
                times_s=times_s, fps=0.5, crop=(0, 0, WIDTH, HEIGHT), width_px=WIDTH, height_px=HEIGHT
            )
            frames = read_frames(box, str(source), clip, span)
            assert [number(frame) for frame in frames] == [int(s * FPS + 1e-6) for s in times_s]


def test_a_corpus_of_before_can_be_read() -> None:
    of_before = tables.SOURCES.remove(tables.SOURCES.get_field_index("clock_jumps"))
    data = tables.to_parquet(tables.from_rows([{"uri": "/raw/v.mp4", "status": "ok"}], of_before))
    (row,) = tables.from_parquet(data, tables.SOURCES).to_pylist()
    assert row["clock_jumps"] is None
