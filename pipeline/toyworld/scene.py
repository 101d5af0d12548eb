"""The grammar of the toy world: what may be in a shot, and which facts are then true.

In: a random generator. Out: `Shot` values (a few shapes, a background, a camera) and, from each, the
exact set of `Fact`s that a viewer can check against the pixels. Never renders, writes or words anything.

Rules that keep every fact visible in the pixels:

- Two objects of one shot differ in colour and in shape, so "the red star" names exactly one of them;
  the subject of an object's facts is that name, never an index.
- When the camera moves, the background is striped or checkered and every object is fixed in the world
  (motion "still"), so objects and texture travel together. When the camera is still, an object may move.
- Motion is stated over the clean frames of the shot: a translation crosses 48 % of the frame's side.
- Place is where the object is at mid-shot. An object that crosses the frame (by itself or because the
  camera pans) has only its lane stated: "top" or "bottom" for a horizontal crossing, "left" or "right" for
  a vertical one, nothing for the middle lane.
- Size is not stated where it changes: growing, shrinking, zooming.
- An image states no motion and no camera.
"""

from dataclasses import dataclass

import numpy as np

OBJECT_RGB: dict[str, tuple[int, int, int]] = {
    "red": (220, 30, 30),
    "green": (30, 165, 55),
    "blue": (30, 70, 220),
    "yellow": (245, 220, 40),
    "orange": (245, 130, 20),
    "purple": (140, 40, 180),
    "white": (250, 250, 250),
    "black": (15, 15, 15),
}
BACKGROUND_RGB: dict[str, tuple[int, int, int]] = {
    "grey": (150, 150, 150),
    "blue": (60, 105, 205),
    "green": (70, 160, 90),
    "red": (190, 55, 55),
    "yellow": (225, 205, 85),
    "pink": (240, 140, 190),
}
DARK_TONE = 0.6  # second tone of a textured background, as a share of the first
MIN_CONTRAST = 95.0  # least RGB distance of an object from both tones of the background

SHAPES = ("circle", "square", "triangle", "star", "ring")
SPINNABLE = ("square", "triangle", "star")  # a spinning circle looks still
SIZE_RADIUS = {"small": 0.11, "large": 0.22}  # in shares of the frame's short side
CHANGING_RADIUS = 0.15  # mid-shot radius where no size is stated
PLACES = ("left", "right", "top", "bottom", "centre")
HORIZONTAL = ("moving left", "moving right")
VERTICAL = ("moving up", "moving down")
IN_PLACE = ("spinning", "growing", "shrinking")
MOTIONS = ("still", *HORIZONTAL, *VERTICAL, *IN_PLACE)
TEXTURES = ("plain", "striped", "checkered", "gradient")
CAMERAS = ("still", "pan left", "pan right", "tilt up", "tilt down", "zoom in", "zoom out")
TEXT_WORDS = ("HELLO", "NEWS", "SALE", "OPEN", "LIVE", "STOP", "MENU", "GAME", "MUSIC", "WINTER")

_ANCHOR = {
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "centre": (0.5, 0.5),
}
_MOVING_CAMERA_SHARE = 0.35
_TWO_OBJECTS_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Fact:
    """One checkable statement.

    kind        subject                          value
    object      the object's name, "red star"    the same name
    size        the object's name                small | large
    place       the object's name                one of PLACES
    motion      the object's name                one of MOTIONS
    background  "colour" | "texture"             one of BACKGROUND_RGB | one of TEXTURES
    camera      "camera"                         one of CAMERAS
    text        "overlay"                        one of TEXT_WORDS
    """

    kind: str
    subject: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyObject:
    """A shape at mid-shot. `size` and `place` are None where they must not be stated."""

    colour: str
    shape: str
    size: str | None
    place: str | None
    motion: str
    x: float  # centre at mid-shot, share of the frame's width
    y: float  # centre at mid-shot, share of the frame's height
    radius: float  # at mid-shot, share of the frame's short side

    @property
    def name(self) -> str:
        return f"{self.colour} {self.shape}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """Everything that decides the pixels of one shot, at any size and frame rate."""

    objects: tuple[ToyObject, ...]
    background: str
    texture: str
    camera: str
    text: str | None = None
    text_at_top: bool = False
    blurred: bool = False
    is_image: bool = False
    period: float = 0.35  # of the texture, share of the short side
    phase: float = 0.0  # of the texture, in periods
    slope: int = 1  # direction of the stripes: 1 or -1

    @property
    def static(self) -> bool:
        """True where all frames of the shot are equal."""
        return self.camera == "still" and all(thing.motion == "still" for thing in self.objects)

    @property
    def facts(self) -> frozenset[Fact]:
        """Every fact that is true of the shot and visible in it."""
        facts = [
            Fact(kind="background", subject="colour", value=self.background),
            Fact(kind="background", subject="texture", value=self.texture),
        ]
        for thing in self.objects:
            facts.append(Fact(kind="object", subject=thing.name, value=thing.name))
            if thing.size is not None:
                facts.append(Fact(kind="size", subject=thing.name, value=thing.size))
            if thing.place is not None:
                facts.append(Fact(kind="place", subject=thing.name, value=thing.place))
            if not self.is_image:
                facts.append(Fact(kind="motion", subject=thing.name, value=thing.motion))
        if not self.is_image:
            facts.append(Fact(kind="camera", subject="camera", value=self.camera))
        if self.text is not None:
            facts.append(Fact(kind="text", subject="overlay", value=self.text))
        return frozenset(facts)


def contrasting_colours(background: str) -> tuple[str, ...]:
    """Object colours that stand out from both tones of a background and do not share its name."""
    light = np.array(BACKGROUND_RGB[background], float)

    def distance(name: str) -> float:
        rgb = np.array(OBJECT_RGB[name], float)
        return float(min(np.linalg.norm(rgb - light), np.linalg.norm(rgb - light * DARK_TONE)))

    return tuple(name for name in OBJECT_RGB if name != background and distance(name) >= MIN_CONTRAST)


def sample_shot(
    rng: np.random.Generator,
    *,
    avoid_background: str | None = None,
    static: bool = False,
    blurred: bool = False,
    with_text: bool = False,
    is_image: bool = False,
) -> Shot:
    """Draws one shot. Something moves in it unless `static` or `is_image`; a blurred shot bears no text."""
    background = _pick(rng, [name for name in BACKGROUND_RGB if name != avoid_background])
    frozen = static or is_image
    moving_camera = not frozen and rng.random() < _MOVING_CAMERA_SHARE
    camera = _pick(rng, CAMERAS[1:]) if moving_camera else "still"
    texture = _pick(rng, ("striped", "checkered") if moving_camera else TEXTURES)
    count = 2 if rng.random() < _TWO_OBJECTS_SHARE else 1
    shapes = [str(shape) for shape in rng.permutation(SHAPES)[:count]]
    colours = [str(colour) for colour in rng.permutation(contrasting_colours(background))[:count]]
    lanes = _sample_lanes(rng, count, camera)
    motions = [
        "still" if frozen or moving_camera else _pick(rng, _motions(shape, lane, count))
        for shape, lane in zip(shapes, lanes, strict=True)
    ]
    if count == 2 and not frozen and not moving_camera and rng.random() < 0.3:
        motions[1] = "still"
    return Shot(
        objects=tuple(
            _place_object(rng, colour, shape, lane, motion, camera)
            for colour, shape, lane, motion in zip(colours, shapes, lanes, motions, strict=True)
        ),
        background=background,
        texture=texture,
        camera=camera,
        text=_pick(rng, TEXT_WORDS) if with_text and not blurred else None,
        text_at_top=bool(rng.random() < 0.5),
        blurred=blurred,
        is_image=is_image,
        period=float(rng.uniform(0.32, 0.48)),
        phase=float(rng.random()),
        slope=1 if rng.random() < 0.5 else -1,
    )


def _pick(rng: np.random.Generator, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _sample_lanes(rng: np.random.Generator, count: int, camera: str) -> list[str]:
    """A lane for each object; a pair gets two opposite ones. A pan runs along its lane, never across."""
    across = ["top", "bottom"] if camera.startswith("pan") else ["left", "right"]
    if count == 1:
        return [_pick(rng, [*across, "centre"] if camera.startswith(("pan", "tilt")) else PLACES)]
    if not camera.startswith(("pan", "tilt")) and rng.random() < 0.5:
        across = ["top", "bottom"]
    return [str(lane) for lane in rng.permutation(across)]


def _motions(shape: str, lane: str, count: int) -> list[str]:
    """Motions an object may make from its lane; a single still object would make the shot static."""
    along = {
        "top": HORIZONTAL,
        "bottom": HORIZONTAL,
        "left": VERTICAL,
        "right": VERTICAL,
        "centre": HORIZONTAL + VERTICAL,
    }
    in_place = IN_PLACE if shape in SPINNABLE else IN_PLACE[1:]
    # Crossings are drawn twice as often: a lane allows only two of the four.
    return [*along[lane], *along[lane], *in_place]


def _place_object(
    rng: np.random.Generator, colour: str, shape: str, lane: str, motion: str, camera: str
) -> ToyObject:
    """Turns a lane, a motion and a camera into positions and into what may be stated about them."""
    zooming = camera.startswith("zoom")
    crossing = motion in HORIZONTAL + VERTICAL or camera.startswith(("pan", "tilt"))
    changing = zooming or motion in ("growing", "shrinking")
    size = _pick(rng, tuple(SIZE_RADIUS))
    x, y = _ANCHOR[lane]
    if zooming:  # leave room for the zoom to carry the object outwards
        x, y = 0.5 + 0.8 * (x - 0.5), 0.5 + 0.8 * (y - 0.5)
    return ToyObject(
        colour=colour,
        shape=shape,
        size=None if changing else size,
        place=None if crossing and lane == "centre" else lane,
        motion=motion,
        x=x + float(rng.uniform(-0.025, 0.025)),
        y=y + float(rng.uniform(-0.025, 0.025)),
        radius=(CHANGING_RADIUS if changing else SIZE_RADIUS[size]) * float(rng.uniform(0.92, 1.08)),
    )
