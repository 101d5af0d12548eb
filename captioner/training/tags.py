"""A clip's facts as tags: what the built-in captioner learns to see before it learns to say it.

In: facts of a toy-world shot. Out: a text of one fixed order and wording, or which of TAGS are true. Draws
nothing by chance.
"""

from pipeline.toyworld.scene import (
    BACKGROUND_RGB,
    CAMERAS,
    MOTIONS,
    OBJECT_RGB,
    PLACES,
    SHAPES,
    SIZE_RADIUS,
    TEXT_WORDS,
    TEXTURES,
    Fact,
)

TAGS = tuple(  # (kind, value) of every fact there can be; an object's colour and shape also on their own
    [("object", f"{colour} {shape}") for colour in OBJECT_RGB for shape in SHAPES]
    + [("object", word) for word in (*OBJECT_RGB, *SHAPES)]
    + [("size", size) for size in SIZE_RADIUS]
    + [("place", place) for place in PLACES]
    + [("motion", motion) for motion in MOTIONS]
    + [("background", value) for value in (*BACKGROUND_RGB, *TEXTURES)]
    + [("camera", camera) for camera in CAMERAS]
    + [("text", word) for word in TEXT_WORDS]
)


def tags_of(facts: frozenset[Fact]) -> str:
    """The facts in one fixed order and wording, object by object: "blue plain background, camera still, red
    star moving left small"."""
    scene = [fact.value for fact in sorted(facts) if fact.kind == "background"]
    parts = [f"{' '.join(scene)} background"]
    parts += [f"{fact.kind} {fact.value}" for fact in sorted(facts) if fact.kind in ("camera", "text")]
    for name in sorted(fact.value for fact in facts if fact.kind == "object"):
        details = [fact.value for fact in sorted(facts) if fact.subject == name and fact.kind != "object"]
        parts.append(" ".join([name, *details]))
    return ", ".join(parts)


def true_tags(facts: frozenset[Fact]) -> set[tuple[str, str]]:
    """Which of TAGS are true of a clip with these facts."""
    whole = {(fact.kind, fact.value) for fact in facts}
    return whole | {(kind, word) for kind, value in whole if kind == "object" for word in value.split()}
