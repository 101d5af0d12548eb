"""Words the facts of a toy shot: varied English whose every statement is true.

In: a `Shot` and a random generator. Out: a `short` caption (5 to 12 words: the main subject and what it
does) and a `detailed` one (25 to 60 words for video: every fact). Never states what the shot's facts do not
hold. The phrase tables below are the whole vocabulary of values; `pipeline.toyworld.facts` reads captions
back with the same tables, so a phrase must mean one value only, wherever it stands.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.toyworld.scene import Shot, ToyObject

Phrases = Mapping[str, tuple[str, ...]]  # value -> ways to say it

COLOUR_WORDS: Phrases = {
    "red": ("red", "scarlet"),
    "green": ("green",),
    "blue": ("blue",),
    "yellow": ("yellow",),
    "orange": ("orange",),
    "purple": ("purple", "violet"),
    "white": ("white",),
    "black": ("black",),
    "grey": ("grey", "gray"),
    "pink": ("pink",),
}
SHAPE_WORDS: Phrases = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box"),
    "triangle": ("triangle", "triangular shape"),
    "star": ("star", "five-pointed star"),
    "ring": ("ring", "hoop"),
}
SIZE_WORDS: Phrases = {"small": ("small", "little"), "large": ("large", "big")}
TEXTURE_ADJECTIVES: Phrases = {
    "plain": ("plain", "solid", "uniform"),
    "striped": ("striped",),
    "checkered": ("checkered", "checkerboard"),
    "gradient": ("gradient", "shaded"),
}
TEXTURE_TAILS: Phrases = {
    "plain": ("without any pattern",),
    "striped": ("with diagonal stripes", "with stripes"),
    "checkered": ("with a checkered pattern", "with checks"),
    "gradient": ("with a smooth gradient", "that fades from light to dark"),
}
BACKGROUND_NOUNS = ("background", "backdrop")
PLACE_PHRASES: Phrases = {
    "left": (
        "on the left",
        "on the left side",
        "in the left part of the frame",
        "at the left of the picture",
    ),
    "right": (
        "on the right",
        "on the right side",
        "in the right part of the frame",
        "at the right of the picture",
    ),
    "top": ("at the top", "near the top", "in the upper part of the frame", "at the top of the picture"),
    "bottom": (
        "at the bottom",
        "near the bottom",
        "in the lower part of the frame",
        "at the bottom of the picture",
    ),
    "centre": (
        "in the centre",
        "in the middle",
        "in the centre of the frame",
        "in the middle of the picture",
    ),
}
_VERBS = ("moves", "slides", "travels", "glides")
_DIRECTIONS: Phrases = {
    "moving left": ("left", "to the left", "leftward", "from right to left"),
    "moving right": ("right", "to the right", "rightward", "from left to right"),
    "moving up": ("up", "upward", "upwards"),
    "moving down": ("down", "downward", "downwards"),
}
_OTHER_MOTIONS: Phrases = {
    "still": ("stays still", "does not move", "remains motionless", "rests in place"),
    "moving up": ("rises", "climbs"),
    "moving down": ("sinks", "descends"),
    "spinning": ("spins", "rotates", "spins around", "turns around itself"),
    "growing": ("grows", "grows larger", "gets bigger", "expands"),
    "shrinking": ("shrinks", "gets smaller", "becomes smaller", "contracts"),
}
_PARTICIPLES = {
    "moves": "moving", "slides": "sliding", "travels": "travelling", "glides": "gliding",
    "stays": "staying", "does not move": "not moving", "remains": "remaining", "rests": "resting",
    "rises": "rising", "climbs": "climbing", "sinks": "sinking", "descends": "descending",
    "spins": "spinning", "rotates": "rotating", "turns": "turning", "grows": "growing", "gets": "getting",
    "becomes": "becoming", "expands": "expanding", "shrinks": "shrinking", "contracts": "contracting",
}  # fmt: skip


def _finite_motions() -> Phrases:
    table = {motion: list(phrases) for motion, phrases in _OTHER_MOTIONS.items()}
    for motion, directions in _DIRECTIONS.items():
        table.setdefault(motion, []).extend(f"{verb} {way}" for verb in _VERBS for way in directions)
    return {motion: tuple(phrases) for motion, phrases in table.items()}


def _participle(finite: str) -> str:
    verb, _, rest = finite.partition(" ")
    if finite in _PARTICIPLES:
        return _PARTICIPLES[finite]
    return f"{_PARTICIPLES[verb]} {rest}".rstrip()


MOTION_FINITE: Phrases = _finite_motions()  # "a red star ..."
MOTION_PARTICIPLE: Phrases = {m: tuple(map(_participle, ways)) for m, ways in MOTION_FINITE.items()}
MOTION_PASSIVE: Phrases = {  # "the frame is ... by a red star"
    motion: tuple(f"crossed {way}" for way in ways)
    for motion, ways in {
        "moving left": ("from right to left",),
        "moving right": ("from left to right",),
        "moving up": ("from bottom to top",),
        "moving down": ("from top to bottom",),
    }.items()
}
CAMERA_PHRASES: Phrases = {  # each completes "the camera ..."
    "still": ("camera holds still", "camera stays fixed", "camera is steady", "camera remains static"),
    "pan left": ("camera pans left", "camera pans to the left"),
    "pan right": ("camera pans right", "camera pans to the right"),
    "tilt up": ("camera tilts up", "camera tilts upward"),
    "tilt down": ("camera tilts down", "camera tilts downward"),
    "zoom in": ("camera zooms in", "camera slowly zooms in"),
    "zoom out": ("camera zooms out", "camera slowly zooms out"),
}
_TEXT_SENTENCES = (
    'The word "{word}" is written on the screen.',
    'Overlaid text reads "{word}".',
    'A caption on the screen says "{word}".',
    'The text "{word}" is displayed over the picture.',
)
_FILLERS = ("Nothing else is in view.", "No other objects appear.", "There is nothing else to see.")
SHORT_WORDS = (5, 12)
DETAILED_WORDS = (25, 60)
IMAGE_WORDS = (15, 60)
_TRIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyCaption:
    short: str
    detailed: str


def caption_shot(shot: Shot, rng: np.random.Generator) -> ToyCaption:
    """Words one shot. Wording is drawn until its length fits, so it may take several draws."""
    return ToyCaption(
        short=_fitting(lambda: _short(shot, rng), SHORT_WORDS),
        detailed=_fitting(lambda: _detailed(shot, rng), IMAGE_WORDS if shot.is_image else DETAILED_WORDS),
    )


def _fitting(draw: Callable[[], str], limits: tuple[int, int]) -> str:
    text = draw()
    for _ in range(_TRIES):
        if limits[0] <= len(text.split()) <= limits[1]:
            break
        text = draw()
    return text


class _Words:
    """Draws phrases from the tables with one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def any(self, options: tuple[str, ...]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def common(self, options: tuple[str, ...]) -> str:
        """The first option half of the time: rare words stay rare."""
        return options[0] if self.rng.random() < 0.5 else self.any(options)

    def noun(self, thing: ToyObject, *, with_size: bool = True) -> str:
        """ "a small red star" """
        words = f"{self.common(COLOUR_WORDS[thing.colour])} {self.common(SHAPE_WORDS[thing.shape])}"
        if with_size and thing.size is not None:
            words = f"{self.common(SIZE_WORDS[thing.size])} {words}"
        return with_article(words)

    def background(self, shot: Shot) -> str:
        """ "a striped blue background" """
        colour, noun = self.common(COLOUR_WORDS[shot.background]), self.any(BACKGROUND_NOUNS)
        adjective = self.any(TEXTURE_ADJECTIVES[shot.texture])
        return with_article(
            self.any(
                (
                    f"{adjective} {colour} {noun}",
                    f"{colour} {adjective} {noun}",
                    f"{colour} {noun} {self.any(TEXTURE_TAILS[shot.texture])}",
                )
            )
        )


def with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"


def _short(shot: Shot, rng: np.random.Generator) -> str:
    """The main subject and what it does; other facts only where they fit."""
    words = _Words(rng)
    thing = shot.objects[0]
    noun = words.noun(thing, with_size=rng.random() < 0.5)
    if shot.is_image:
        place = words.any(PLACE_PHRASES[thing.place]) if thing.place else ""
        still = (f"{noun} on {words.background(shot)}", f"{noun} {place}", f"{place}, {noun}")
        return _sentence(words.any(still if place else still[:1]))
    finite, participle = words.any(MOTION_FINITE[thing.motion]), words.any(MOTION_PARTICIPLE[thing.motion])
    forms: tuple[str, ...] = (
        f"{noun} {finite}",
        f"{noun} {participle}",
        f"{noun} {participle} on {words.background(shot)}",
        f"{noun} {finite} against {words.background(shot)}",
    )
    if thing.place:
        place = words.any(PLACE_PHRASES[thing.place])
        forms += (f"{noun} {finite} {place}", f"{place}, {noun} {finite}")
    if shot.camera != "still":  # then the camera is what happens
        camera = words.any(CAMERA_PHRASES[shot.camera])
        relation = "on" if shot.camera.startswith("zoom") else "past"
        forms = (
            f"the {camera} {relation} {noun}",
            f"{noun}, while the {camera}",
            f"{noun} {finite} while the {camera}",
            f"the {camera}, {noun} {participle}",
        )
    elif len(shot.objects) == 2 and rng.random() < 0.6:
        other, other_motion = shot.objects[1], words.any(MOTION_FINITE[shot.objects[1].motion])
        forms = (
            f"{noun} {finite} while {words.noun(other, with_size=False)} {other_motion}",
            f"{noun} {participle} and {words.noun(other, with_size=False)}",
        )
    return _sentence(words.any(forms))


def _detailed(shot: Shot, rng: np.random.Generator) -> str:
    """Every fact of the shot, in one of several orders."""
    words = _Words(rng)
    clauses = [_object_clause(thing, words, shot.is_image) for thing in shot.objects]
    attach_background = rng.random() < 0.4
    joined = len(clauses) == 2 and rng.random() < 0.5
    subject = [f"{clauses[0]}, while {clauses[1]}"] if joined else clauses
    if attach_background:
        relation = words.any(("against", "in front of", "on"))
        front = rng.random() < 0.3 and ". " not in subject[0]
        if front:
            subject[0] = f"{relation} {words.background(shot)}, {subject[0]}"
        else:
            subject[-1] = f"{subject[-1]} {relation} {words.background(shot)}"
    if rng.random() < 0.2:
        subject[0] = f"in this {'image' if shot.is_image else 'clip'}, {subject[0]}"
    sentences = [_sentence(clause) for clause in subject]
    extras = [] if attach_background else [_background_sentence(shot, words)]
    if not shot.is_image:
        extras.append(_camera_sentence(shot, words))
    if shot.text is not None:
        extras.append(words.any(_TEXT_SENTENCES).format(word=shot.text))
    extras = [extras[int(i)] for i in rng.permutation(len(extras))]
    lead = extras[:1] if rng.random() < 0.3 else []
    sentences = [*lead, *sentences, *extras[len(lead) :]]
    if rng.random() < 0.25:
        sentences.append(words.any(_FILLERS))
    return " ".join(sentences)


def _object_clause(thing: ToyObject, words: _Words, is_image: bool) -> str:
    """One object with its size, place and motion, as a clause without capital and full stop."""
    noun = words.noun(thing)
    place = words.any(PLACE_PHRASES[thing.place]) if thing.place else ""
    if is_image:
        still = (f"{noun} is seen {place}", f"there is {noun} {place}", f"{place}, there is {noun}")
        return words.any(still if place else still[:2]).strip()
    finite, participle = words.any(MOTION_FINITE[thing.motion]), words.any(MOTION_PARTICIPLE[thing.motion])
    forms: tuple[str, ...] = (
        f"{noun} {finite} {place}",
        f"{noun} {place} {finite}",
        f"there is {noun} {place}. It {finite}",
        f"{noun} can be seen {participle} {place}",
        f"{noun} {place} is shown {participle}",
    )
    if place:
        forms += (f"{place}, {noun} {finite}", f"{place}, there is {noun} {participle}")
    if thing.motion in MOTION_PASSIVE:
        forms += (f"the frame is {words.any(MOTION_PASSIVE[thing.motion])} by {noun} {place}",)
    return " ".join(words.any(forms).split())


def _background_sentence(shot: Shot, words: _Words) -> str:
    colour, noun = words.common(COLOUR_WORDS[shot.background]), words.any(BACKGROUND_NOUNS)
    adjective = words.any(TEXTURE_ADJECTIVES[shot.texture])
    return _sentence(
        words.any(
            (
                f"the {noun} is {colour} and {adjective}",
                f"the {noun} is {adjective} and {colour}",
                f"the scene is set against {words.background(shot)}",
                f"{words.background(shot)} fills the frame",
                f"the whole frame is filled by {words.background(shot)}",
            )
        )
    )


def _camera_sentence(shot: Shot, words: _Words) -> str:
    phrase = words.any(CAMERA_PHRASES[shot.camera])
    return _sentence(
        words.any(
            (f"the {phrase}", f"throughout the shot, the {phrase}", f"the {phrase} during the whole shot")
        )
    )


def _sentence(clause: str) -> str:
    clause = " ".join(clause.replace(" ,", ",").split())
    return f"{clause[0].upper()}{clause[1:]}."
