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


def pack_analyses(analyses: Sequence[SourceAnalysis | None]) -> Answer:
    """Those of many sources, some of which have none."""
    packed = [None if analysis is None else pack_analysis(analysis) for analysis in analyses]
    buffers = [buffer for answer in packed if answer for buffer in answer[1]]
    return {"analyses": [answer and answer[0] for answer in packed]}, buffers


def unpack_analyses(header: dict[str, Any], data: Buffer) -> list[SourceAnalysis | None]:
    """Those of many sources again."""
    at, analyses = 0, []
    for of_source in header["analyses"]:
        count = sum(sum(strip["sizes"]) for strip in of_source["strips"]) if of_source else 0
        analyses.append(unpack_analysis(of_source, data[at : at + count]) if of_source else None)
        at += count
    return analyses


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
