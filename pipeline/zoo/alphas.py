"""Transparency of videos and animations: it lies over white.

In: the corners. Out: cases whose right half is transparent over its colours, and must be white.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.zoo.case import Case, Corners, one_file, one_scene
from pipeline.zoo.pictures import SIZE, WHITE, moving
from pipeline.zoo.writer import Coding, write

CODED = (  # container, encoder, pixel format with alpha
    ("mov", "prores_ks", "yuva444p10le"),
    ("mov", "qtrle", "argb"),
    ("mov", "png", "rgba"),
    ("matroska", "ffv1", "yuva420p"),
    ("matroska", "ffv1", "bgra"),
    ("webm", "libvpx", "yuva420p"),
    ("webm", "libvpx-vp9", "yuva420p"),
    ("matroska", "libvpx-vp9", "yuva420p"),
    ("avi", "utvideo", "gbrap"),
    ("apng", "apng", "rgba"),
    ("nut", "rawvideo", "rgba"),
)


def cases(corners: Corners) -> list[Case]:
    """Every codec with alpha, and every animation."""
    return [
        *(_coded(corners, *row) for row in CODED),
        *(_animated(corners, kind) for kind in ("GIF", "WEBP", "AVIF")),
    ]


def see_through(corners: Corners) -> list[np.ndarray]:
    """uint8 RGBA [H, W, 4] whose right half is transparent, but for what moves: no two are the same."""
    pictures = []
    for pixels in moving(corners):
        alpha = np.where((pixels == WHITE).all(axis=2, keepdims=True), 255, 0).astype(np.uint8)
        alpha[:, : SIZE[0] // 2] = 255
        pictures.append(np.concatenate([pixels, alpha], axis=2))
    return pictures


def _shown(corners: Corners) -> Corners:
    return corners[0], WHITE, corners[2], WHITE


def _coded(corners: Corners, container: str, codec: str, layout: str) -> Case:
    options = {"profile": "4444"} if codec == "prores_ks" else {"auto-alt-ref": "0"} if "vpx" in codec else {}
    coding = Coding(codec=codec, layout=layout, container=container, options=options)
    return one_file(
        f"alphas/{container}-{codec}-{layout}",
        "video",
        lambda path: write(path, see_through(corners), coding),
        one_scene(_shown(corners), size=SIZE),
        needs=(codec,),
    )


def _animated(corners: Corners, kind: str) -> Case:
    def make(path: Path) -> None:
        frames = [Image.fromarray(pixels) for pixels in see_through(corners)]
        frames[0].save(path, kind, save_all=True, append_images=frames[1:], duration=40, disposal=2)

    return one_file(f"alphas/{kind.lower()}", "video", make, one_scene(_shown(corners), size=SIZE))
