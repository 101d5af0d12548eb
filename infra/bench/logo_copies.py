"""Copies under large overlays, and their truth, for `framemill bench dedup`.

    python infra/bench/logo_copies.py --media VIDEOS --out SET --seed 1
    framemill bench dedup --media SET --truth SET/duplicates.json --json

In: a folder of videos of different footage. Out: of each up to two pieces of a few seconds, scaled to small
landscape, portrait or square pictures, and one copy of each piece for every share of the picture that an
overlay covers: a logo, a caption box, a band along an edge, or an inset with a film of its own; opaque or
not; re-encoded; often also of another size, rate or brightness, or cropped. Every overlay lies on the copies
of several pieces at the same place: they, and two pieces of one take, are the hard negatives, for pairs that
the truth does not name are wrong. Never: the same overlay design for two seeds.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pipeline.media.decode import decode, probe
from pipeline.media.encode import write_video
from pipeline.media.frames import Damage
from pipeline.media.stills import resize

SHARES = (0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.35)  # of the picture that an overlay covers
KINDS = ("logo", "box", "band", "inset")
SIZES = ((144, 256), (120, 214), (180, 320), (144, 144), (240, 136), (320, 180))  # width, height in pixels
DESIGNS = 4  # overlays for each share
SECONDS = (1.5, 4.0)  # of a piece, least and most
CUT = 0.13  # mean change of pixels (0 to 1) between frames that ends a piece
MAX_PIXELS = 1 << 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """What lies over a picture: drawn for one share, the same for every clip that bears it."""

    kind: str
    share: float
    right: bool
    bottom: bool
    aspect: float  # width over height, where the frame allows it
    margin: float  # of the shorter side
    opacity: float
    seed: int

    def box(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """Left, top, width, height in pixels."""
        if self.kind == "band":
            upright = self.aspect < 1
            wide, high = (self.share, 1.0) if upright else (1.0, self.share)
            size = round(wide * width_px), round(high * height_px)
            return (self.right * (width_px - size[0]), self.bottom * (height_px - size[1]), *size)
        gap = round(self.margin * min(width_px, height_px))
        area = self.share * width_px * height_px
        wide = min((area * self.aspect) ** 0.5, width_px - 2 * gap)
        high = min(area / wide, height_px - 2 * gap)
        wide = min(area / high, width_px - 2 * gap)
        size = round(wide), round(high)
        left = width_px - size[0] - gap if self.right else gap
        return left, height_px - size[1] - gap if self.bottom else gap, *size

    def draw(self, width_px: int, height_px: int) -> Image.Image:
        """RGBA of this size: a field of one colour with shapes or lines of another."""
        rng = np.random.default_rng(self.seed)
        ground, ink = (tuple(int(v) for v in rng.integers(0, 256, 3)) for _ in range(2))
        image = Image.new("RGBA", (width_px, height_px), (0, 0, 0, 0))
        pen = ImageDraw.Draw(image)
        solid = round(255 * self.opacity)
        if self.kind == "logo":
            pen.ellipse((0, 0, width_px - 1, height_px - 1), fill=(*ground, solid))
            for _ in range(3):
                x, y = rng.uniform(0.15, 0.6, 2) * (width_px, height_px)
                pen.rectangle((x, y, x + width_px / 4, y + height_px / 4), fill=(*ink, solid))
        else:
            pen.rectangle((0, 0, width_px - 1, height_px - 1), fill=(*ground, solid))
            lines = max(1, height_px // 14)
            for n in range(lines):
                y, end = (n + 0.3) * height_px / lines, rng.uniform(0.4, 0.95) * width_px
                pen.rectangle((0.05 * width_px, y, end, y + height_px / lines / 3), fill=(*ink, solid))
        return image


def overlays(seed: int) -> dict[tuple[float, int], Overlay]:
    """DESIGNS overlays for each share."""
    rng = np.random.default_rng([seed, 7])
    return {
        (share, n): Overlay(
            kind=KINDS[(n + k) % len(KINDS)],
            share=share,
            right=bool(rng.integers(2)),
            bottom=bool(rng.integers(2)),
            aspect=float(np.exp(rng.uniform(np.log(0.5), np.log(3)))),
            margin=float(rng.choice([0.0, 0.03, 0.06])),
            opacity=float(rng.choice([0.7, 0.85, 1.0, 1.0])),
            seed=int(rng.integers(1 << 31)),
        )
        for k, share in enumerate(SHARES)
        for n in range(DESIGNS)
    }


def covered(frames: np.ndarray, overlay: Overlay, inset: np.ndarray) -> np.ndarray:
    """Frames uint8 [T, H, W, 3] under the overlay; an inset shows the film `inset`, over and over."""
    height_px, width_px = frames.shape[1:3]
    left, top, wide, high = overlay.box(width_px, height_px)
    under = frames.astype(np.float32)
    part = under[:, top : top + high, left : left + wide]
    if overlay.kind == "inset":
        part[:] = np.stack([resize(inset[t % len(inset)], wide, high) for t in range(len(frames))])
    else:
        drawn = np.asarray(overlay.draw(wide, high)).astype(np.float32)
        alpha = drawn[..., 3:] / 255
        part[:] = part * (1 - alpha) + drawn[..., :3] * alpha
    return np.rint(under).astype(np.uint8)


def changed(
    frames: np.ndarray, fps: Fraction, rng: np.random.Generator
) -> tuple[np.ndarray, Fraction, int, str]:
    """A copy besides its overlay: (frames, rate, CRF, in words)."""
    height_px, width_px = frames.shape[1:3]
    crf = int(rng.choice([18, 26, 32]))
    change = str(rng.choice(["", "smaller", "brighter", "cropped", "half the rate", "trimmed"]))
    if change == "smaller":
        small = [even(0.7 * s) for s in (width_px, height_px)]
        frames = np.stack([resize(f, *small) for f in frames])
    elif change == "brighter":
        frames = np.clip(frames.astype(np.float32) * 1.1 + 14, 0, 255).astype(np.uint8)
    elif change == "cropped":
        y, x = round(0.03 * height_px), round(0.03 * width_px)
        frames = np.stack([resize(f[y:-y, x:-x], width_px, height_px) for f in frames])
    elif change == "half the rate":
        frames, fps = frames[::2], fps / 2
    elif change == "trimmed":
        frames = frames[round(0.4 * fps) :]
    return frames, fps, crf, f"CRF {crf}{', ' if change else ''}{change}"


def even(side: float) -> int:
    return max(2, 2 * round(side / 2))


def pieces(
    path: Path, size: tuple[int, int], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, Fraction]]:
    """Up to two pieces without a cut of a video, far apart: frames uint8 [T, H, W, 3] and their rate."""
    info, (width_px, height_px) = probe(path), size
    scale = max(width_px / info.width, height_px / info.height)
    full = max(width_px, round(info.width * scale)), max(height_px, round(info.height * scale))
    x, y = (full[0] - width_px) // 2, (full[1] - height_px) // 2
    step = max(1, round(info.fps / 15))
    fps = Fraction(info.fps).limit_denominator(1000) / step
    runs: list[list[np.ndarray]] = [[]]
    for frame in decode(path, Damage(), max_pixels=MAX_PIXELS):
        if frame.index % step:
            continue
        pixels = frame.rgb(*full)[y : y + height_px, x : x + width_px]
        if runs[-1] and np.abs(pixels.astype(np.float32) - runs[-1][-1]).mean() > CUT * 255:
            runs.append([])
        runs[-1].append(pixels)
        if frame.time_s > 25:
            break
    run = max(runs, key=len)
    length = min(round(rng.uniform(2.5, SECONDS[1]) * fps), len(run))
    if length < SECONDS[0] * fps:
        return
    yield np.stack(run[:length]), fps
    if len(run) >= 2.2 * length:
        yield np.stack(run[-length:]), fps


def make(media: list[Path], out: Path, seed: int) -> None:
    """Writes the videos and duplicates.json into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    designs, groups, inset = overlays(seed), [], np.zeros((1, 32, 32, 3), np.uint8)
    for n, path in enumerate(media):
        rng = np.random.default_rng([seed, n])
        size = SIZES[(n + seed) % len(SIZES)]
        for p, (frames, fps) in enumerate(pieces(path, size, rng)):
            base = f"{n:02d}_{path.stem}_{p}"
            write_video(out / f"{base}.mp4", frames, fps, crf=16)
            members = []
            for k, share in enumerate(SHARES):
                overlay = designs[share, (n + p + k) % DESIGNS]
                copy, copy_fps, crf, words = changed(frames, fps, rng)
                name = f"{base}_{round(100 * share):02d}.mp4"
                write_video(out / name, covered(copy, overlay, inset), copy_fps, crf=crf)
                words = f"{overlay.kind} over {share:.0%}, opacity {overlay.opacity}, {words}"
                members.append({"file": name, "transform": words, "expect": "duplicate", "share": share})
            groups.append({"id": base, "base": f"{base}.mp4", "members": members})
            inset = frames[: round(2 * fps)]
    truth = {"groups": groups, "hard_negatives": []}
    (out / "duplicates.json").write_text(json.dumps(truth, indent=1))


if __name__ == "__main__":
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--media", required=True, nargs="+", type=Path, help="videos, or folders of them")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    files = [f for m in args.media for f in (sorted(m.iterdir()) if m.is_dir() else [m])]
    make([f for f in files if f.suffix not in (".jsonl", ".json")], args.out, args.seed)
