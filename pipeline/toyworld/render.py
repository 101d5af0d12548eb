"""Renders toy-world shots with numpy.

In: a `Shot`, a frame size and the moments to render (0 = first clean frame, 1 = last one; slightly
outside during transitions). Out: uint8 frames [T, H, W, 3] RGB. Never reads or writes a file, and draws
nothing at random: the same arguments give the same pixels.

Backgrounds are a tone index [T, H, W] looked up in a 256-entry palette; objects are anti-aliased signed
distance fields evaluated only in a square around each object. A blurred shot is rendered with soft edges
instead of being filtered.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.toyworld.scene import BACKGROUND_RGB, DARK_TONE, OBJECT_RGB, Shot, ToyObject

CROSSING = 0.48  # of the frame's side that a moving object crosses over the clean frames
PANNING = 0.48  # of the frame's side that the camera crosses
ZOOM = 1.8  # end scale over start scale
GROWTH = 2.6  # end radius over start radius of a growing object
SPIN_RAD = float(np.deg2rad(160))  # no symmetry of a square, star or triangle at 3 or more even samples
BLUR_SOFTNESS = 0.16  # width of an edge in a blurred shot, share of the short side
MARGIN = 0.25  # motion stops this far outside the clean frames
_CHUNK_PIXELS = 2_000_000

Frames = NDArray[np.uint8]
Floats = NDArray[np.float32]


def render_frames(shot: Shot, width_px: int, height_px: int, moments: NDArray[np.float64]) -> Frames:
    """Renders the shot at each moment. Returns uint8 [T, H, W, 3]."""
    if shot.static or len(moments) == 0:
        still = _render_chunk(shot, width_px, height_px, np.zeros(1, np.float32))
        return np.repeat(still, len(moments), axis=0)
    chunk = max(1, _CHUNK_PIXELS // (width_px * height_px))
    clipped = np.clip(moments, -MARGIN, 1 + MARGIN).astype(np.float32) - np.float32(0.5)
    parts = [
        _render_chunk(shot, width_px, height_px, clipped[start : start + chunk])
        for start in range(0, len(clipped), chunk)
    ]
    return np.concatenate(parts)


def _render_chunk(shot: Shot, width_px: int, height_px: int, time: Floats) -> Frames:
    """`time` [T] counts from mid-shot: -0.5 first clean frame, 0.5 last."""
    short_px = min(width_px, height_px)
    softness_px = BLUR_SOFTNESS * short_px if shot.blurred else 1.2
    camera_x, camera_y, scale = _camera_path(shot.camera, time)
    tones = _background_tones(shot, width_px, height_px, camera_x, camera_y, scale, softness_px)
    frames = _palette(shot.background)[tones]  # [T or 1, H, W, 3]
    if len(frames) != len(time):
        frames = np.repeat(frames, len(time), axis=0)  # [T, H, W, 3]
    for thing in shot.objects:
        x, y, radius, angle = _object_path(thing, time)
        x_px = ((x - camera_x - 0.5) * scale + 0.5) * width_px
        y_px = ((y - camera_y - 0.5) * scale + 0.5) * height_px
        _draw_object(frames, thing, x_px, y_px, radius * scale * short_px, angle, softness_px)
    if shot.text is not None:
        _draw_text(frames, shot.text, shot.text_at_top)
    return frames


def _camera_path(camera: str, time: Floats) -> tuple[Floats, Floats, Floats]:
    """Offset of the view (shares of the frame's sides) and its scale at each moment, each [T]."""
    zero, one = np.zeros_like(time), np.ones_like(time)
    travel = PANNING * time
    paths = {
        "still": (zero, zero, one),
        "pan left": (-travel, zero, one),
        "pan right": (travel, zero, one),
        "tilt up": (zero, -travel, one),
        "tilt down": (zero, travel, one),
        "zoom in": (zero, zero, np.float32(ZOOM) ** time),
        "zoom out": (zero, zero, np.float32(ZOOM) ** -time),
    }
    return paths[camera]


def _object_path(thing: ToyObject, time: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre (shares of the sides), radius (share of the short side) and angle at each moment, each [T]."""
    travel = CROSSING * time
    x, y = np.full_like(time, thing.x), np.full_like(time, thing.y)
    radius, angle = np.full_like(time, thing.radius), np.zeros_like(time)
    match thing.motion:
        case "moving left":
            x = x - travel
        case "moving right":
            x = x + travel
        case "moving up":
            y = y - travel
        case "moving down":
            y = y + travel
        case "growing":
            radius = radius * np.float32(GROWTH) ** time
        case "shrinking":
            radius = radius * np.float32(GROWTH) ** -time
        case "spinning":
            angle = SPIN_RAD * (time + np.float32(0.5))
    return x, y, radius, angle


def _background_tones(
    shot: Shot,
    width_px: int,
    height_px: int,
    camera_x: Floats,
    camera_y: Floats,
    scale: Floats,
    softness_px: float,
) -> NDArray[np.uint8]:
    """Tone index (0 dark .. 255 light) of each background pixel: uint8 [T or 1, H, W]."""
    if shot.camera == "still":
        camera_x, camera_y, scale = camera_x[:1], camera_y[:1], scale[:1]
    if shot.texture == "plain":
        return np.full((1, height_px, width_px), 255, np.uint8)
    if shot.texture == "gradient":
        ramp = np.linspace(255, 0, height_px) if shot.slope > 0 else np.linspace(0, 255, height_px)
        return np.broadcast_to(ramp.astype(np.uint8)[None, :, None], (1, height_px, width_px)).copy()
    period_px = np.float32(shot.period * min(width_px, height_px))
    world_x = _world_axis(width_px, camera_x, scale) / period_px  # [T, W], in periods
    world_y = _world_axis(height_px, camera_y, scale) / period_px  # [T, H]
    sharpness = (period_px * scale / softness_px)[:, None]  # [T, 1]
    if shot.texture == "checkered":
        wave_x = _square_wave(world_x / np.float32(2) + np.float32(shot.phase), sharpness * 2)  # [T, W]
        wave_y = _square_wave(world_y / np.float32(2) + np.float32(shot.phase), sharpness * 2)  # [T, H]
        wave = wave_y[:, :, None] * wave_x[:, None, :]  # [T, H, W]
    else:
        diagonal = (
            world_y[:, :, None] * shot.slope + world_x[:, None, :] + np.float32(shot.phase)
        )  # [T, H, W]
        wave = _square_wave(diagonal / np.float32(np.sqrt(2)), sharpness[:, :, None])
    return (wave * 127.5 + 127.5).astype(np.uint8)


def _world_axis(side_px: int, camera: Floats, scale: Floats) -> Floats:
    """World coordinate in pixels of each pixel centre along one side: [T, side]."""
    centred = np.arange(side_px, dtype=np.float32) + 0.5 - side_px / 2
    return (centred[None, :] / scale[:, None] + camera[:, None] * side_px).astype(np.float32)


def _square_wave(periods: Floats, sharpness: Floats) -> Floats:
    """-1..1 square wave of period 1 whose edges are 1/sharpness periods wide."""
    triangle = np.abs((periods - np.floor(periods)) * 4 - 2) - 1  # -1..1, slope 4 a period
    return np.clip(triangle * (sharpness * np.float32(0.5)), -1, 1).astype(np.float32)


@lru_cache(maxsize=len(BACKGROUND_RGB))
def _palette(background: str) -> Frames:
    """uint8 [256, 3]: dark tone to light tone."""
    light = np.array(BACKGROUND_RGB[background], float)
    share = np.linspace(DARK_TONE, 1, 256)[:, None]
    return np.round(light * share).astype(np.uint8)


def _draw_object(
    frames: Frames,
    thing: ToyObject,
    x_px: Floats,
    y_px: Floats,
    radius_px: Floats,
    angle: Floats,
    softness_px: float,
) -> None:
    """Blends one object into uint8 frames [T, H, W, 3], in place."""
    height_px, width_px = frames.shape[1:3]
    reach_px = int(np.ceil(radius_px.max() * 1.3 + softness_px)) + 1
    left = np.floor(x_px).astype(int) - reach_px  # [T]
    top = np.floor(y_px).astype(int) - reach_px  # [T]
    grid = np.arange(2 * reach_px + 1, dtype=np.float32) + 0.5
    dx = (grid[None, :] + (left - x_px)[:, None]).astype(np.float32)[:, None, :]  # [T, 1, S]
    dy = (grid[None, :] + (top - y_px)[:, None]).astype(np.float32)[:, :, None]  # [T, S, 1]
    distance = _signed_distance(thing.shape, dx, dy, radius_px[:, None, None], angle)  # [T, S, S]
    cover = np.clip(0.5 - distance / np.float32(softness_px), 0, 1)[..., None]  # [T, S, S, 1]
    colour = np.array(OBJECT_RGB[thing.colour], np.float32)
    for index, (x0, y0) in enumerate(zip(left, top, strict=True)):
        x1, y1 = min(x0 + len(grid), width_px), min(y0 + len(grid), height_px)
        if x1 <= max(x0, 0) or y1 <= max(y0, 0):
            continue
        patch = frames[index, max(y0, 0) : y1, max(x0, 0) : x1]  # [h, w, 3]
        share = cover[index, max(-y0, 0) : y1 - y0, max(-x0, 0) : x1 - x0]  # [h, w, 1]
        patch[...] = (patch + share * (colour - patch) + np.float32(0.5)).astype(np.uint8)


def _signed_distance(shape: str, dx: Floats, dy: Floats, radius: Floats, angle: Floats) -> Floats:
    """Distance in pixels to the outline, negative inside: [T, S, S]. Shapes fill alike at one radius."""
    if shape == "circle":
        return np.sqrt(dx * dx + dy * dy) - radius
    if shape == "ring":
        return np.abs(np.sqrt(dx * dx + dy * dy) - radius * np.float32(0.75)) - radius * np.float32(0.26)
    if angle.any():
        cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - radius * np.float32(0.9)
    if shape == "triangle":
        slanted = np.abs(dx) * np.float32(np.sqrt(0.75)) - dy * np.float32(0.5)
        return np.maximum(slanted, dy) - radius * np.float32(0.62)
    # Star: fold the plane into one of ten sectors, then the distance to the line from tip to notch.
    tip, notch = radius * np.float32(1.2), radius * np.float32(0.52)
    sector = np.float32(np.pi / 5)
    rho = np.sqrt(dx * dx + dy * dy)
    theta = np.arctan2(dx, -dy)  # 0 at the upward tip
    folded = np.abs(np.mod(theta + sector, 2 * sector) - sector)
    notch_x, notch_y = notch * np.cos(sector), notch * np.sin(sector)
    normal_x, normal_y = notch_y, tip - notch_x
    length = np.sqrt(normal_x**2 + normal_y**2)
    return ((rho * np.cos(folded) - tip) * normal_x + rho * np.sin(folded) * normal_y) / length


def _draw_text(frames: Frames, word: str, at_top: bool) -> None:
    """Writes the word, white on a dark strip, into uint8 frames [T, H, W, 3], in place."""
    label = _label(word, frames.shape[2], frames.shape[1])  # [h, w]
    height_px, width_px = label.shape
    top = (
        round(frames.shape[1] * 0.02)
        if at_top
        else frames.shape[1] - height_px - round(frames.shape[1] * 0.02)
    )
    left = (frames.shape[2] - width_px) // 2
    frames[:, top : top + height_px, left : left + width_px] = label[None, :, :, None]


@lru_cache(maxsize=64)
def _label(word: str, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Grey-scale uint8 [h, w] of the word, at most 70 % of the frame's width and 17 % of its height."""
    size_px = max(7.0, height_px * 0.15)
    while True:
        font = ImageFont.load_default(size_px)
        left, top, right, bottom = (round(side) for side in font.getbbox(word))
        if right - left <= 0.7 * width_px or size_px <= 7:
            break
        size_px -= 1
    canvas = Image.new("L", (min(right - left + 4, width_px), min(bottom - top + 4, height_px)), 15)
    ImageDraw.Draw(canvas).text((2 - left, 2 - top), word, fill=255, font=font)
    return np.asarray(canvas, np.uint8)
