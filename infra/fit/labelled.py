"""Evidence with labels: what the shot models are fitted on.

In: described videos. Out: a `Table` for cuts and one for dissolves and wipes, computed by the project's own
functions (pipeline/shots/cuts.py, gradual.py). Never: a copy of them; a label where the truth leaves it open
(jump cuts, the edges of transitions), or for a jump where a whole video fades in or out: black against a
faint picture looks like a cut from there, and no evidence of this kind tells otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infra.fit.described import Described
from pipeline.bench.shots import GRADUAL_TOLERANCE, HARD_TOLERANCE
from pipeline.config import ShotConfig
from pipeline.shots import cuts, gradual
from pipeline.shots.boundaries import cuts_and_fades
from pipeline.shots.descriptor import looks, steps
from pipeline.shots.weights import Models

NEITHER, CUT, DISSOLVE, WIPE, OPEN = range(5)  # labels; OPEN: not fitted on
KINDS = {"dissolve": DISSOLVE, "wipe": WIPE}
SAME_SPAN = 0.5  # intersection over union with a true transition from which a span is that transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Candidates of many videos, K of them."""

    evidence: np.ndarray  # cuts.EVIDENCE or gradual.EVIDENCE [K]
    label: np.ndarray  # int [K]
    video: np.ndarray  # int [K], index of the video

    def known(self) -> "Table":
        """The rows that are not OPEN."""
        keep = self.label != OPEN
        return Table(evidence=self.evidence[keep], label=self.label[keep], video=self.video[keep])


def cut_table(videos: Sequence[Described]) -> Table:
    """Every candidate for a hard cut."""
    parts, labels = [], []
    for video in videos:
        change = steps(video.frames)
        at = cuts.candidates(change)
        parts.append(cuts.evidence(video.frames, change, at, video.fps))
        labels.append(np.array([_cut_label(video, t) for t in at.tolist()], int))
    return _table(parts, labels)


def span_table(videos: Sequence[Described], models: Models) -> Table:
    """Every span that may be a dissolve or a wipe, beside the cuts and fades that `models` find."""
    parts, labels = [], []
    for video in videos:
        frames, views = video.frames, looks(video.frames)
        _, closed = cuts_and_fades(frames, steps(frames), video.fps, ShotConfig(), models=models)
        spans = gradual.propose(frames, views, video.fps, closed)
        changed = gradual.changes(views, spans)
        parts.append(gradual.evidence(frames, views, spans, changed, video.fps))
        labels.append(np.array([_span_label(video, p + 1, q) for p, q in spans.tolist()], int))
    return _table(parts, labels)


def _table(parts: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> Table:
    video = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return Table(evidence=np.concatenate(parts), label=np.concatenate(labels), video=video)


def _cut_label(video: Described, at: int) -> int:
    truth = video.truth
    if any(abs(at - hard) <= HARD_TOLERANCE for hard in truth.hard):
        return CUT
    fading = any(first <= at <= last for first, last in video.end_fades)
    return OPEN if fading or _open(video, at, at) else NEITHER


def _span_label(video: Described, first: int, frame: int) -> int:
    """Of frames `first` to `frame` - 1."""
    for (start, last), kind in zip(video.truth.gradual, video.kinds, strict=True):
        shared = min(frame, last + 1) - max(first, start)
        if shared >= SAME_SPAN * (max(frame, last + 1) - min(first, start)):
            return KINDS.get(kind, OPEN)
    near = [hard for hard in video.truth.hard if first - HARD_TOLERANCE <= hard <= frame + HARD_TOLERANCE]
    return OPEN if near or _open(video, first, frame) else NEITHER


def _open(video: Described, first: int, frame: int) -> bool:
    """Whether these frames touch a true transition, or an edit that is neither right nor wrong."""
    near = GRADUAL_TOLERANCE
    touched = any(first <= b + near and a - near <= frame for a, b in video.truth.gradual)
    return touched or any(first - near <= edit <= frame + near for edit in video.truth.ignored)
