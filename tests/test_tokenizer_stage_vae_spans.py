"""A long span is read and encoded in pieces, in bounded memory, to the same frames and latents."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.config import AnalyzeConfig, EncodeConfig
from pipeline.sandbox.sandbox import Sandbox
from pipeline.toyworld.world import ToyWorldConfig, render_corpus
from tokenizer_stage.vae.description import builtin_shape
from tokenizer_stage.vae.spans import read_frames, read_pieces, span_of

ROOT = Path(__file__).resolve().parents[1]
PEAK_OF = """
import resource, sys, torch
from tokenizer_stage.vae.builtin import BuiltinSpec, BuiltinVAE
frames, height, width = map(int, sys.argv[1:])
spec = BuiltinSpec(width=16, encoder_depth=1, decoder_depth=1, fine_width=8)
vae = BuiltinVAE(spec).eval().requires_grad_(False)
picture = torch.rand(1, 3, 8, height, width)
pieces = [8] * (frames // 8) + [frames % 8]
steps = sum(part.shape[2] for part in vae.encode_pieces(picture[:, :, :n] for n in pieces))
print(steps, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_mb(frames: int, height: int, width: int) -> float:
    """The memory of a process that encodes so many frames with a small VAE, piece by piece."""
    command = [sys.executable, "-c", PEAK_OF, str(frames), str(height), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    steps, peak = done.stdout.split()
    assert int(steps) == 1 + (frames - 1) // 4
    return float(peak)


def test_a_video_ten_times_as_long_takes_no_more_memory() -> None:
    assert peak_mb(641, 128, 192) < peak_mb(65, 128, 192) + 15


@pytest.mark.slow
@pytest.mark.endurance
def test_a_longer_span_at_720p_takes_no_more_memory() -> None:
    """4,801 frames, ten minutes at 8 a second, take 1 % more than 81: too long to run each time."""
    assert peak_mb(161, 720, 1280) < 1.05 * peak_mb(41, 720, 1280)


@pytest.mark.parametrize("at_once", [1, 7, 64, 1000])
def test_pieces_of_a_span_are_its_frames(tmp_path: Path, at_once: int) -> None:
    render_corpus(tmp_path, ToyWorldConfig(videos=1, images=0, seed=2, area_px=96 * 64))
    path = str(next(tmp_path.rglob("*.mp4")))
    config = EncodeConfig(fps=0.0, max_frames=97)
    with Sandbox() as box:
        clips = box.analyze(path, AnalyzeConfig()).clips
        late = max(clips, key=lambda clip: clip["start_s"])
        for clip in (clips[0], late):
            row = clip | {"clock_jumps": False}
            span = span_of(row, config, builtin_shape(16))
            whole = read_frames(box, path, row, span)
            pieces = list(read_pieces(box, path, row, span, at_once))
            assert max(map(len, pieces)) <= at_once
            assert np.array_equal(np.concatenate(pieces), whole)
        assert late["start_s"] > 4  # where a span is sought
