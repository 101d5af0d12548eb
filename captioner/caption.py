"""What every captioner takes and gives: the vocabulary of captioner.names and of each of its kinds.

In: filmstrips. Out: for each, a `Caption` or the `Failure` that says why there is none.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from captioner.filmstrip import Filmstrip
from pipeline.engine.stage import Failure, Resources

BUILTIN_DIR = Path(__file__).parent / "weights"  # of the captioner `builtin:`
MADE_BY = "framemill captioner train --toyworld endless: --out DIR"
MAX_TOKENS = 112
SHORT_PROMPT = "Describe the main subject of this clip and what it does, in one sentence of at most 12 words."
DETAILED_PROMPT = (
    "These are frames of one clip, in order. Describe it in 40 to 80 words: every visible subject with its "
    "colour, size and place, what moves and in which direction, the background, and what the camera does. "
    "Name only what can be seen. Plain sentences, no introduction."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """Two captions of one clip. `confidence` is the mean token log-probability, `alignment` the cosine of
    clip and caption; None where the captioner does not know it."""

    short: str
    detailed: str
    confidence: float | None = None
    alignment: float | None = None


class Captioner(Protocol):
    """`dir_name` is its folder under captions/; `weights_sha256` changes when its captions may; `resources`
    are what one worker with it would use, GPUs where there are any."""

    @property
    def name(self) -> str: ...
    @property
    def dir_name(self) -> str: ...
    @property
    def weights_sha256(self) -> str: ...
    @property
    def resources(self) -> Resources: ...
    def caption(self, strips: Sequence[Filmstrip]) -> list[Caption | Failure]:
        """One answer a strip, in order."""


def folder_name(kind: str, argument: str) -> str:
    """A safe folder name that differs for different arguments: "hf-qwen-vl-1a2b3c"."""
    if not argument:
        return kind
    readable = re.sub(r"[^a-z0-9]+", "-", argument.lower()).strip("-")[-40:].strip("-")
    return f"{kind}-{readable}-{hashlib.sha256(argument.encode()).hexdigest()[:6]}"
