"""What a montage does to a picture: camera moves, light, flashes, titles, passing objects; blends, wipes.

In: frames of a take, uint8 [H, W, 3] RGB. Out: frames of a montage's size. Never: a draw at render time; all
that is random stands in a `Look`.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

WIPES = ("left", "right", "up", "down", "diagonal", "iris_out", "iris_in", "clock")
FLASH_LEVEL = 250.0  # a flash leads to this, of 255
GLOW = (1.0, 0.65, 0.32)  # a flash that fades away


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a shot is filmed. Places and times are shares of the picture and of the clean frames."""

    box_start: tuple[float, float, float]  # centre x, centre y, scale of the crop at the first frame
    box_end: tuple[float, float, float]
    shake: float  # share of the picture
    shake_seed: int
    mirrored: bool
    bars: bool  # the whole picture between bars, not cropped to the frame
    gain: float
    lift: float  # levels of 255
    saturation: float
    hold: int = 1  # frames that each picture stays: 2 for doubled frames
    flash_at: float | None = None
    flash_frames: int = 0
    glows: bool = False
    exposure: tuple[float, float, float] | None = None  # start, end, gain at the end and after
    title: tuple[float, float, float, float] | None = None  # fades in from, until, out from, until
    title_seed: int = 0
    passing: tuple[float, float, float, float] | None = None  # start, end, width, level of an object

    def flashes(self, frames: int) -> list[tuple[int, int]]:
        """[first, end) of the flash of a shot of so many frames."""
        if self.flash_at is None:
            return []
        first = 3 + int(self.flash_at * max(1, frames - 9))
        return [(first, min(first + self.flash_frames, frames - 2))]


def draw_look(rng: np.random.Generator, fps: float, *, is_still: bool) -> Look:
    """A look at random; photographs move more often."""
    moves = rng.random() < (0.7 if is_still else 0.35)
    scale = float(rng.uniform(0.55, 1.0)) if moves or rng.random() < 0.3 else 1.0
    boxes = [(0.5, 0.5, scale)] * 2
    if moves:
        boxes = [
            (float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.45, 0.95)))
            for _ in range(2)
        ]
    event = rng.random()
    glows = bool(rng.random() < 0.4)
    start = float(rng.uniform(0.05, 0.5))
    end = start + float(rng.uniform(0.1, 0.45))
    title = start, start + 0.15, end + 0.1, end + 0.3
    passing = start, end, float(rng.uniform(0.1, 0.5)), float(rng.uniform(0, 255))
    return Look(
        box_start=boxes[0],
        box_end=boxes[1],
        shake=float(rng.uniform(0.004, 0.03)) if rng.random() < 0.2 else 0.0,
        shake_seed=int(rng.integers(1 << 31)),
        mirrored=bool(rng.random() < 0.5),
        bars=bool(rng.random() < 0.2) and not moves,
        gain=float(rng.uniform(0.75, 1.2)) if rng.random() < 0.5 else 1.0,
        lift=float(rng.uniform(-25, 25)) if rng.random() < 0.5 else 0.0,
        saturation=float(rng.choice([1.0, 1.0, 1.0, 0.0, 0.5, 1.4])),
        hold=2 if fps >= 29 and rng.random() < 0.1 else 1,
        flash_at=float(rng.random()) if event < 0.12 else None,
        flash_frames=len(GLOW) if glows else max(1, round(float(rng.uniform(0.02, 0.12)) * fps)),
        glows=glows,
        exposure=(start, end, float(rng.uniform(0.45, 1.7))) if 0.12 <= event < 0.24 else None,
        title=title if 0.24 <= event < 0.34 else None,
        title_seed=int(rng.integers(1 << 31)),
        passing=passing if 0.34 <= event < 0.44 else None,
    )


def draw(pixels: np.ndarray, look: Look, index: int, frames: int, size: tuple[int, int]) -> np.ndarray:
    """Frame `index` of a shot of `frames` clean ones: uint8 [height, width, 3] of `size` (width, height)."""
    index -= index % look.hold
    moment = index / max(frames - 1, 1)
    picture = _cropped(pixels, look, index, float(np.clip(moment, -0.2, 1.2)), size).astype(np.float32)
    if look.saturation != 1.0:
        grey = picture.mean(axis=2, keepdims=True)
        picture = grey + look.saturation * (picture - grey)
    gain = look.gain
    if look.exposure is not None:
        start, end, last = look.exposure
        gain *= 1 + (last - 1) * _ramp(moment, start, end)
    picture = picture * gain + look.lift
    if look.passing is not None:
        _pass(picture, look.passing, moment)
    if look.title is not None:
        _title(picture, look, moment)
    for first, end in look.flashes(frames):
        if first <= index < end:
            share = GLOW[index - first] if look.glows else 0.95
            picture += share * (FLASH_LEVEL - picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def _cropped(pixels: np.ndarray, look: Look, index: int, moment: float, size: tuple[int, int]) -> np.ndarray:
    """The part of the picture that the camera sees, in the frame: uint8 [H, W, 3]."""
    width_px, height_px = size
    high, wide = pixels.shape[:2]
    image = Image.fromarray(pixels[:, ::-1] if look.mirrored else pixels)
    if look.bars:
        scale = min(width_px / wide, height_px / high)
        fitted = max(2, round(wide * scale)), max(2, round(high * scale))
        canvas = np.zeros((height_px, width_px, 3), np.uint8)
        left, top = (width_px - fitted[0]) // 2, (height_px - fitted[1]) // 2
        canvas[top : top + fitted[1], left : left + fitted[0]] = np.asarray(
            image.resize(fitted, Image.Resampling.BILINEAR)
        )
        return canvas
    x, y, scale = (a + (b - a) * moment for a, b in zip(look.box_start, look.box_end, strict=True))
    scale = min(max(scale, 0.2), 1.0)
    if look.shake:
        off = np.random.default_rng([look.shake_seed, max(0, index + 1000)]).normal(0, look.shake, 2)
        x, y = x + float(off[0]), y + float(off[1])
    part = min(wide / width_px, high / height_px) * scale  # source pixels a pixel
    w, h = width_px * part, height_px * part
    left, top = np.clip(x * wide - w / 2, 0, wide - w), np.clip(y * high - h / 2, 0, high - h)
    box = float(left), float(top), float(min(left + w, wide)), float(min(top + h, high))
    return np.asarray(image.resize((width_px, height_px), Image.Resampling.BILINEAR, box=box))


def _pass(picture: np.ndarray, passing: tuple[float, float, float, float], moment: float) -> None:
    """An object half as high as the picture crosses it from left to right."""
    start, end, width, level = passing
    if not start <= moment <= end:
        return
    high, wide = picture.shape[:2]
    left = (moment - start) / (end - start) * (1 + width) - width
    picture[high // 2 :, max(0, round(left * wide)) : max(0, round((left + width) * wide))] = level


def _title(picture: np.ndarray, look: Look, moment: float) -> None:
    """Letters, small dark and bright blocks over the lower third, fade in and out."""
    assert look.title is not None
    begin, full, leave, gone = look.title
    opacity = _ramp(moment, begin, full) - _ramp(moment, leave, gone)
    if opacity <= 0:
        return
    high, wide = picture.shape[:2]
    rng = np.random.default_rng(look.title_seed)
    cells = rng.random((2, 24)) < 0.55
    letters = np.kron(cells, np.ones((max(2, high // 12), max(2, wide // 32)), bool))
    top, left = round(0.68 * high), (wide - letters.shape[1]) // 2
    area = picture[top : top + letters.shape[0], left : left + letters.shape[1]]
    mask = opacity * letters[: area.shape[0], : area.shape[1], None]
    area += mask * (245 - area)


def _ramp(moment: float, start: float, end: float) -> float:
    return float(np.clip((moment - start) / max(end - start, 1e-6), 0, 1))


def fade(pixels: np.ndarray, visible: float, level: int) -> np.ndarray:
    """The picture at `visible` (0 to 1) over a plain grey level."""
    return np.rint(pixels * visible + level * (1 - visible)).astype(np.uint8)


def blend(old: np.ndarray, new: np.ndarray, share: float, wipe: str, softness: float) -> np.ndarray:
    """A dissolve's frame, or a wipe's (`wipe` names its shape): `share` of the way is done."""
    mask = np.full((1, 1, 1), share, np.float32)
    if wipe:
        order = _order(wipe, old.shape[0], old.shape[1])  # [H, W], 0: switches first
        edge = share * (1 + softness) - softness
        mask = np.clip((edge + softness - order) / softness, 0, 1).astype(np.float32)[..., None]
    return np.rint(old + mask * (new.astype(np.float32) - old)).astype(np.uint8)


def _order(wipe: str, height_px: int, width_px: int) -> np.ndarray:
    """When each pixel switches, 0 to 1: [H, W]."""
    y, x = np.mgrid[0:height_px, 0:width_px]
    x, y = (x + 0.5) / width_px, (y + 0.5) / height_px
    radius = np.hypot(x - 0.5, y - 0.5) / np.hypot(0.5, 0.5)
    ways = {
        "left": 1 - x,
        "right": x,
        "up": 1 - y,
        "down": y,
        "diagonal": (x + y) / 2,
        "iris_out": radius,
        "iris_in": 1 - radius,
        "clock": (np.arctan2(y - 0.5, x - 0.5) / np.pi + 1) / 2,
    }
    return ways[wipe]
