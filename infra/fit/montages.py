"""Montages of real footage with exact truth: `python -m infra.fit.montages OUT --part fit`.

In: the takes of one part of files.toml and a seed. Out: OUT/m000.mp4 … and OUT/cuts.json, the format that
`framemill bench shots --truth` reads: file → fps, frames, width, height, hard_cuts, gradual ([first, last]
frame touched), gradual_kinds, jump_cuts, optional_cuts, flashes, fade_in, fade_out, shots. Never: a take of
the other part; a draw that depends on another montage (each has its own generator: seed, part, index).

A montage holds what tells detectors apart: hard cuts, dissolves, wipes (line, iris, clock; hard and soft),
fades through black and white; and what is none of these: flashes, jump cuts, camera moves and shake,
exposure ramps, titles that fade in, passing objects, other speeds, doubled frames, bars, coding noise.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from infra.fit.footage import Take, read_takes
from infra.fit.pictures import WIPES, Look, blend, draw, draw_look, fade
from pipeline.media.encode import write_video

SEED = 7001
COUNTS = {"fit": 110, "held-out": 60}  # as many as the first fit had
SIZES_PX = ((320, 180), (256, 192), (240, 240), (180, 320), (336, 144))
RATES = tuple(Fraction(*r) for r in ((15, 1), (20, 1), (24, 1), (25, 1), (30000, 1001), (30, 1), (60, 1)))
CRF = (16, 32)  # x264's, a draw for each montage
SHOTS = (4, 10)  # least and most shots; one montage in ONE_SHOT_SHARE has a single long one
ONE_SHOT_SHARE = 0.08
SHOT_S = (0.5, 4.0)  # clean part of a shot
KINDS = {"cut": 0.52, "dissolve": 0.2, "wipe": 0.14, "black": 0.08, "white": 0.06}
TRANSITION_S = {"dissolve": (0.16, 1.6), "wipe": (0.16, 1.3), "black": (0.3, 1.6), "white": (0.3, 1.2)}
LEAST_TOUCHED = 4  # frames of a gradual transition
JUMP_SHARE, SAME_FILE_SHARE = 0.06, 0.1  # of cuts: within the take; to another take of the file
END_FADE_SHARE = 0.12


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShot:
    """`frames` clean frames of a take from its frame `start` on, `rate` source frames a frame."""

    take: Take
    start: int
    rate: float
    frames: int
    look: Look

    def source_frame(self, index: int) -> int:
        """Of frame `index`, which lies outside 0 to `frames` - 1 inside transitions."""
        return int(np.clip(self.start + int(np.floor(index * self.rate)), self.take.first, self.take.end - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """What lies between two shots: `frames` touched ones (none for a cut)."""

    kind: str  # cut | jump | dissolve | wipe | black | white
    frames: int = 0
    wipe: str = ""
    softness: float = 0.0  # of a wipe's edge, share of its way


@dataclass(frozen=True, slots=True, kw_only=True)
class Montage:
    """Everything that decides a montage's bytes."""

    name: str
    size_px: tuple[int, int]  # width, height
    fps: Fraction
    crf: int
    shots: tuple[PlannedShot, ...]
    joins: tuple[Join, ...]
    fade_in: int  # frames, part of the first shot's clean ones
    fade_out: int


def plan(takes: Sequence[Take], part: str, index: int, seed: int = SEED) -> Montage:
    """Draws one montage."""
    rng = np.random.default_rng([seed, sorted(COUNTS).index(part), index])
    fps = RATES[int(rng.integers(len(RATES)))]
    single = rng.random() < ONE_SHOT_SHARE
    count = 1 if single else int(rng.integers(SHOTS[0], SHOTS[1] + 1))
    joins = tuple(_draw_join(rng, fps) for _ in range(count - 1))
    shots: list[PlannedShot] = []
    for k in range(count):
        touched = (joins[k - 1].frames if k else 0) + (joins[k].frames if k < count - 1 else 0)
        jumped = shots[-1] if k and joins[k - 1].kind == "jump" else None
        shots.append(_draw_shot(rng, takes, shots, jumped, float(fps), touched, long=single))
    ends = [
        round(0.6 * float(fps)) if rng.random() < END_FADE_SHARE and shots[k].frames > fps else 0
        for k in (0, -1)
    ]
    return Montage(
        name=f"m{index:03d}.mp4",
        size_px=SIZES_PX[int(rng.integers(len(SIZES_PX)))],
        fps=fps,
        crf=int(rng.integers(CRF[0], CRF[1] + 1)),
        shots=tuple(shots),
        joins=joins,
        fade_in=ends[0],
        fade_out=ends[1] if count > 1 else 0,
    )


def _draw_join(rng: np.random.Generator, fps: Fraction) -> Join:
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    if kind == "cut":
        return Join(kind="jump" if rng.random() < JUMP_SHARE else "cut")
    shortest_s, longest_s = TRANSITION_S[kind]
    length_s = float(np.exp(rng.uniform(np.log(shortest_s), np.log(longest_s))))
    soft = float(rng.choice([0.02, 0.1, 0.25]))
    return Join(
        kind=kind,
        frames=max(LEAST_TOUCHED, round(length_s * float(fps))),
        wipe=str(rng.choice(WIPES)) if kind == "wipe" else "",
        softness=soft if kind == "wipe" else 0.0,
    )


def _draw_shot(
    rng: np.random.Generator,
    takes: Sequence[Take],
    before: Sequence[PlannedShot],
    jumped: PlannedShot | None,
    fps: float,
    touched: int,
    *,
    long: bool,
) -> PlannedShot:
    """A shot of a take that is not the one before, with `touched` frames to spare; after a jump cut the same
    take and look, some frames further on."""
    last = before[-1].take if before else None
    same_file = rng.random() < SAME_FILE_SHARE
    others = [t for t in takes if last is None or t.file != last.file]
    if same_file and last is not None:
        others = [t for t in takes if t.file == last.file and t.first != last.first] or others
    take = others[int(rng.integers(len(others)))]
    speed = 1.0 if rng.random() < 0.6 else float(np.exp(rng.uniform(np.log(0.5), np.log(2.0))))
    look = draw_look(rng, fps, is_still=take.is_still)
    if jumped is not None:
        take, look = jumped.take, jumped.look
    rate = take.fps / fps * speed
    wanted = round(float(rng.uniform(*SHOT_S)) * (2.5 if long else 1.0) * fps)
    least = round(SHOT_S[0] * fps)
    if take.is_still:
        return PlannedShot(take=take, start=take.first, rate=rate, frames=max(least, wanted), look=look)
    rate = min(rate, take.frames / (least + touched + 1))  # a short take is slowed down
    available = int(take.frames / rate) - touched
    frames = max(least, min(wanted, available))
    room = max(0, take.frames - int(np.ceil((frames + touched) * rate)))
    lead = int(np.ceil(touched * rate / 2))
    start = take.first + lead + int(rng.integers(room + 1))
    if jumped is not None:
        end = jumped.source_frame(jumped.frames)
        start = min(end + round(float(rng.uniform(0.4, 1.5)) * take.fps), take.end - 1 - int(frames * rate))
        start = max(start, take.first)
    return PlannedShot(take=take, start=start, rate=rate, frames=frames, look=look)


def render(montage: Montage) -> Iterator[np.ndarray]:
    """Every frame, uint8 [H, W, 3] RGB."""
    size = montage.size_px
    last = len(montage.shots) - 1
    for k, shot in enumerate(montage.shots):
        for i in range(shot.frames):
            pixels = _frame(shot, i, size)
            if k == 0 and i < montage.fade_in:
                pixels = fade(pixels, i / montage.fade_in, 0)
            if k == last and i >= shot.frames - montage.fade_out:
                pixels = fade(pixels, (shot.frames - 1 - i) / montage.fade_out, 0)
            yield pixels
        if k < last:
            yield from _join(shot, montage.shots[k + 1], montage.joins[k], size)


def _frame(shot: PlannedShot, index: int, size: tuple[int, int]) -> np.ndarray:
    return draw(shot.take.pixels[shot.source_frame(index)], shot.look, index, shot.frames, size)


def _join(old: PlannedShot, new: PlannedShot, join: Join, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The touched frames; both shots play on."""
    for i in range(join.frames):
        leaving, coming = old.frames + i, i - join.frames
        share = (i + 1) / (join.frames + 1)
        if join.kind in ("black", "white"):
            shot, index = (old, leaving) if share < 0.5 else (new, coming)
            visible = max(0.0, abs(2 * share - 1) * 1.15 - 0.15)  # some frames of the plain colour
            yield fade(_frame(shot, index, size), visible, 255 if join.kind == "white" else 0)
        else:
            pictures = _frame(old, leaving, size), _frame(new, coming, size)
            yield blend(*pictures, share, join.wipe, join.softness)


def truth(montage: Montage) -> dict[str, Any]:
    """The row of cuts.json."""
    row: dict[str, Any] = {"hard_cuts": [], "jump_cuts": [], "optional_cuts": [], "gradual": []}
    row |= {"gradual_kinds": [], "flashes": [], "shots": []}
    at = 0
    for shot, join in zip(montage.shots, (*montage.joins, None), strict=True):
        span = [shot.source_frame(0), shot.source_frame(shot.frames - 1)]
        row["shots"].append(
            {"start": at, "end": at + shot.frames - 1, "source": shot.take.file, "source_frames": span}
        )
        row["flashes"] += [[at + a, at + b - 1] for a, b in shot.look.flashes(shot.frames)]
        at += shot.frames
        if join is None:
            break
        if join.frames:
            kind = f"fade_through_{join.kind}" if join.kind in ("black", "white") else join.kind
            row["gradual"].append([at, at + join.frames - 1])
            row["gradual_kinds"].append(kind)
            at += join.frames
        else:
            row["jump_cuts" if join.kind == "jump" else "hard_cuts"].append(at)
    if montage.fade_in:
        row["fade_in"] = [0, montage.fade_in - 1]
    if montage.fade_out:
        row["fade_out"] = [at - montage.fade_out, at - 1]
    width_px, height_px = montage.size_px
    whole = {"fps": float(montage.fps), "frames": at, "width": width_px, "height": height_px, "codec": "h264"}
    return whole | row


def write(part: str, out: Path, media: Path, cache: Path, *, seed: int = SEED, workers: int = 1) -> None:
    """All montages of a part, and their truth last. What is there already is not made again."""
    out.mkdir(parents=True, exist_ok=True)
    takes = read_takes(part, media, cache)
    indices = range(COUNTS[part])
    rows = {m.name: truth(m) for m in (plan(takes, part, index, seed) for index in indices)}
    one = partial(_write_one, part, out, media, cache, seed)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        list(pool.map(one, indices, chunksize=4))
    (out / "cuts.json").write_text(json.dumps(rows, indent=1))


def _write_one(part: str, out: Path, media: Path, cache: Path, seed: int, index: int) -> None:
    montage = plan(read_takes(part, media, cache), part, index, seed)
    if not (out / montage.name).exists():
        write_video(out / montage.name, render(montage), montage.fps, crf=montage.crf)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=sorted(COUNTS), required=True)
    parser.add_argument("--media", type=Path, default=Path(os.environ.get("FRAMEMILL_MEDIA", "media")))
    parser.add_argument("--cache", type=Path, help="small frames of the sources (default: OUT/../footage)")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args()
    cache = args.cache or args.out.parent / "footage"
    write(args.part, args.out, args.media, cache, seed=args.seed, workers=args.workers)


if __name__ == "__main__":
    main()
