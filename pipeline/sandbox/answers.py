"""How the rows of a source travel from the decoding child to its parent: JSON and the bytes of its pictures.

In: a `SourceAnalysis`, or a message. Out: the other. Never: a check of what it says.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.corpus.tables import SourceAnalysis
from pipeline.storage import Buffer

Answer = tuple[dict[str, Any], Sequence[Buffer]]  # the header and the buffers of a message


def pack_analysis(analysis: SourceAnalysis) -> Answer:
    """The rows as a header, the strips' JPEGs and prints as buffers."""
    buffers = [[*strip["frames"], strip["print"]] for strip in analysis.strips]
    strips = [
        strip | {"frames": None, "print": None, "sizes": [len(b) for b in of_strip]}
        for strip, of_strip in zip(analysis.strips, buffers, strict=True)
    ]
    header = {"source": analysis.source, "clips": analysis.clips, "strips": strips}
    return header, [buffer for of_strip in buffers for buffer in of_strip]


def unpack_analysis(header: dict[str, Any], data: Buffer) -> SourceAnalysis:
    """The rows again; the pictures stay where they lie."""
    at = 0
    for strip in header["strips"]:
        strip["frames"] = []
        for size in strip.pop("sizes"):
            strip["frames"].append(data[at : at + size])
            at += size
        strip["print"] = strip["frames"].pop()
    return SourceAnalysis(source=header["source"], clips=header["clips"], strips=header["strips"])


def pack_jpegs(frames: Sequence[Buffer]) -> Answer:
    """JPEG frames, one buffer each."""
    return {"sizes": [len(frame) for frame in frames]}, frames


def unpack_jpegs(header: dict[str, Any], data: Buffer) -> list[bytes]:
    """The frames again."""
    at, frames = 0, []
    for size in header["sizes"]:
        frames.append(bytes(data[at : at + size]))
        at += size
    return frames
