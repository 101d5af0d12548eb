"""What items are taken to cost before anyone has looked at them, so that tasks can be of about the same time.

In: rows of the inputs table, or numbers of clips. Out: seconds of one worker and bytes a row
(pipeline/engine/tasks.py). Estimates, a factor of two either way: they decide where tasks begin and end and
nothing else. They are constants and not what an earlier run's receipts say, because the borders between tasks
must be the same on every machine and in a run that goes on where another was killed.
"""

import numpy as np
import pyarrow as pa

from pipeline.engine.tasks import Costs
from pipeline.sources.discover import is_image

# Measured on one core over 90 real files of 2 KB to 20 MB (H.264, HEVC, AV1, VP8, MPEG-4; JPEG, PNG): the
# analysis of a video takes 0.1 to 2 s a MB, of a picture 0.1 to 0.3; of 4,000 JPEGs of 3 KB, 2 ms each.
VIDEO_S, VIDEO_S_A_BYTE = 0.03, 1e-6
IMAGE_S, IMAGE_S_A_BYTE = 0.002, 0.2e-6
# The built-in models on one core, whatever lies in a clip: captioning took 0.2 s a clip of 8 frames and about
# 60 tokens. A larger model has fewer frames or more seconds; its tasks are longer or shorter by that factor.
FRAME_S, TOKEN_S = 0.01, 0.002
STRIP_FRAME_BYTES = 12 << 10  # a JPEG of 256 px


def source_costs(inputs: pa.Table) -> Costs:
    """What it costs to analyze each row of the inputs table: by its size, and by its name a video or not."""
    sizes = inputs["size_bytes"].to_numpy().astype(np.int64)  # [N]
    stills = np.array([is_image(uri) for uri in inputs["uri"].to_pylist()], bool)  # [N]
    seconds = np.where(stills, IMAGE_S + IMAGE_S_A_BYTE * sizes, VIDEO_S + VIDEO_S_A_BYTE * sizes)
    return Costs(seconds=seconds, nbytes=sizes)


def clip_costs(clips: int, *, frames: int, tokens: int = 0) -> Costs:
    """What it costs a model to look at each of `clips` filmstrips of so many frames and to write so many
    tokens (0: an embedder). For `plan_sized_tasks(clips_of_all_parts, "clip_id", done, …, clip_costs(…),
    per_task=config.caption.clips_per_task)`, over all clips of the stage, done or not."""
    seconds = np.full(clips, FRAME_S * frames + TOKEN_S * tokens)
    return Costs(seconds=seconds, nbytes=np.full(clips, STRIP_FRAME_BYTES * frames, np.int64))
