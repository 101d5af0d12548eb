"""Decides what a toy world holds: files, sizes, frame rates, shots, boundaries and duplicates.

In: a `ToyWorldConfig`. Out: one `FilePlan` a file, from which pixels and truth both follow. Never renders
or writes: `toyworld` does.
"""

from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from pipeline.errors import ConfigError
from pipeline.toyworld.scene import Shot, sample_shot
from pipeline.toyworld.wording import ToyCaption, caption_shot

ASPECTS = ((9, 21), (9, 16), (3, 4), (1, 1), (4, 3), (16, 9), (21, 9))
FRAME_RATES = tuple(
    Fraction(*rate)
    for rate in ((12, 1), (15, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (60, 1))
)
CRF, DUPLICATE_CRF = 16, 26
_GRADUAL_S = (0.3, 0.6)  # shortest and longest dissolve or fade
_BAR_SHARE = (0.1, 0.18)  # of the side, for each of the two letterbox bars


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyWorldConfig:
    """What to render. Shares are probabilities: letterbox a file, the others a shot or a boundary."""

    videos: int = 12
    images: int = 4
    seed: int = 0
    min_shots: int = 2
    max_shots: int = 5
    min_shot_s: float = 1.2
    max_shot_s: float = 3.5
    area_px: int = 160 * 96
    letterbox_share: float = 0.1
    text_share: float = 0.08
    static_share: float = 0.06
    blurred_share: float = 0.06
    duplicate_share: float = 0.06
    gradual_share: float = 0.3

    def __post_init__(self) -> None:
        if not 1 <= self.min_shots <= self.max_shots:
            raise ConfigError(
                f"min_shots {self.min_shots}, max_shots {self.max_shots}", expected="1 <= min <= max"
            )
        if not 0.5 <= self.min_shot_s <= self.max_shot_s:
            raise ConfigError(
                f"min_shot_s {self.min_shot_s}, max_shot_s {self.max_shot_s}", expected="0.5 <= min <= max"
            )
        if self.area_px < 48 * 48:
            raise ConfigError(
                f"area_px {self.area_px}", expected=f"at least {48 * 48}, to keep small shapes visible"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShot:
    """A shot with its wording and length; `duplicate_of` is (file, shot index) of the original."""

    shot: Shot
    caption: ToyCaption
    frames: int  # clean ones
    duplicate_of: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """What joins two shots."""

    kind: str  # cut | dissolve | fade
    frames: int  # touched frames; 0 for a cut; even for a fade


@dataclass(frozen=True, slots=True, kw_only=True)
class FilePlan:
    """Everything that decides one file's bytes. `active` is the picture inside the bars: [x, y, w, h]."""

    name: str
    kind: str
    width_px: int
    height_px: int
    active: tuple[int, int, int, int]
    aspect: tuple[int, int]
    fps: Fraction
    crf: int
    shots: tuple[PlannedShot, ...]
    boundaries: tuple[Boundary, ...]


def plan_corpus(config: ToyWorldConfig) -> list[FilePlan]:
    """Draws every file. A file's draws depend on the seed, its index and, for duplicates, earlier plans."""
    plans: list[FilePlan] = []
    for index in range(config.videos):
        plans.append(_plan_video(config, index, plans))
    return plans + [_plan_image(config, index) for index in range(config.images)]


def _plan_video(config: ToyWorldConfig, index: int, earlier: list[FilePlan]) -> FilePlan:
    rng = np.random.default_rng([config.seed, 0, index])
    count = int(rng.integers(config.min_shots, config.max_shots + 1))
    wanted = [bool(rng.random() < config.duplicate_share) for _ in range(count)]
    original = earlier[int(rng.integers(len(earlier)))] if earlier and any(wanted) else None
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    fps = FRAME_RATES[int(rng.integers(len(FRAME_RATES)))]
    if original is not None:  # the same picture must fit the same frame at the same rate
        aspect, fps = original.aspect, original.fps
    width_px, height_px, active = _frame_size(config, aspect, rng)
    shots: list[PlannedShot] = []
    for duplicate in wanted:
        avoid = shots[-1].shot.background if shots else None
        copy = _copy_shot(original, shots, rng) if duplicate and original is not None else None
        shots.append(copy if copy is not None else _new_shot(config, fps, avoid, rng))
    return FilePlan(
        name=f"videos/v{index:06d}.mp4",
        kind="video",
        width_px=width_px,
        height_px=height_px,
        active=active,
        aspect=aspect,
        fps=fps,
        crf=DUPLICATE_CRF if any(shot.duplicate_of for shot in shots) else CRF,
        shots=tuple(shots),
        boundaries=tuple(_plan_boundary(config, fps, rng) for _ in range(count - 1)),
    )


def _new_shot(
    config: ToyWorldConfig, fps: Fraction, avoid: str | None, rng: np.random.Generator
) -> PlannedShot:
    shot = sample_shot(
        rng,
        avoid_background=avoid,
        static=bool(rng.random() < config.static_share),
        blurred=bool(rng.random() < config.blurred_share),
        with_text=bool(rng.random() < config.text_share),
    )
    length_s = float(rng.uniform(config.min_shot_s, config.max_shot_s))
    return PlannedShot(shot=shot, caption=caption_shot(shot, rng), frames=round(length_s * fps))


def _copy_shot(original: FilePlan, shots: list[PlannedShot], rng: np.random.Generator) -> PlannedShot | None:
    """A shot of `original` that is no copy itself, is not used here yet and still makes a visible cut."""
    used = {planned.duplicate_of for planned in shots}
    avoid = shots[-1].shot.background if shots else None
    free = [
        (index, planned)
        for index, planned in enumerate(original.shots)
        if planned.duplicate_of is None
        and (original.name, index) not in used
        and planned.shot.background != avoid
    ]
    if not free:
        return None
    index, planned = free[int(rng.integers(len(free)))]
    return replace(planned, duplicate_of=(original.name, index))


def _plan_boundary(config: ToyWorldConfig, fps: Fraction, rng: np.random.Generator) -> Boundary:
    gradual, fade = rng.random() < config.gradual_share, rng.random() < 0.5
    frames = max(4, round(float(rng.uniform(*_GRADUAL_S)) * fps))
    if not gradual:
        return Boundary(kind="cut", frames=0)
    return (
        Boundary(kind="fade", frames=frames + frames % 2)
        if fade
        else Boundary(kind="dissolve", frames=frames)
    )


def _plan_image(config: ToyWorldConfig, index: int) -> FilePlan:
    rng = np.random.default_rng([config.seed, 1, index])
    aspect = ASPECTS[int(rng.integers(len(ASPECTS)))]
    width_px, height_px = _even_size(config.area_px, aspect)
    shot = sample_shot(
        rng,
        is_image=True,
        blurred=bool(rng.random() < config.blurred_share),
        with_text=bool(rng.random() < config.text_share),
    )
    return FilePlan(
        name=f"images/i{index:06d}.png",
        kind="image",
        width_px=width_px,
        height_px=height_px,
        active=(0, 0, width_px, height_px),
        aspect=aspect,
        fps=Fraction(0),
        crf=0,
        shots=(PlannedShot(shot=shot, caption=caption_shot(shot, rng), frames=1),),
        boundaries=(),
    )


def _even_size(area_px: int, aspect: tuple[int, int]) -> tuple[int, int]:
    """Even sides close to the area and the aspect: (15360, (16, 9)) -> (166, 92)."""
    height = (area_px * aspect[1] / aspect[0]) ** 0.5
    return 2 * round(height * aspect[0] / aspect[1] / 2), 2 * round(height / 2)


def _frame_size(
    config: ToyWorldConfig, aspect: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int, tuple[int, int, int, int]]:
    """Frame size and the active picture [x, y, w, h]; bars are added around the picture, never over it."""
    width_px, height_px = _even_size(config.area_px, aspect)
    letterbox, bar = rng.random() < config.letterbox_share, float(rng.uniform(*_BAR_SHARE))
    if not letterbox:
        return width_px, height_px, (0, 0, width_px, height_px)
    if width_px >= height_px:
        bar_px = 2 * round(bar * height_px / 2)
        return width_px, height_px + 2 * bar_px, (0, bar_px, width_px, height_px)
    bar_px = 2 * round(bar * width_px / 2)
    return width_px + 2 * bar_px, height_px, (bar_px, 0, width_px, height_px)
