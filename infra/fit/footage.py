"""The real footage that montages are cut from: checked by its hash, decoded once, kept small.

In: files.toml beside this file and a folder of media. Out: `Take`s, stretches of frames without any cut,
whose pixels lie in .npy files of a cache folder. Never: a download; a file whose bytes are others than those
that files.toml names.
"""

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.errors import UsageError
from pipeline.media import stills
from pipeline.media.decode import decode, probe
from pipeline.media.frames import Damage

HERE = Path(__file__).resolve().parent
LONG_PX = 384  # of the kept frames: a little more than a montage shows
MAX_PIXELS = 100_000_000
STILL_FPS = 25.0  # of a photograph, which has no rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Take:
    """Frames `first` to `end` - 1 of a file, with no cut among them."""

    file: str
    first: int
    end: int
    fps: float
    pixels: np.ndarray  # uint8 [frames of the file, H, W, 3] RGB, mapped from disk

    @property
    def frames(self) -> int:
        return self.end - self.first

    @property
    def is_still(self) -> bool:
        return self.frames == 1


def read_takes(part: str, media: Path, cache: Path) -> list[Take]:
    """All takes of `part`: "fit" or "held-out"."""
    cache.mkdir(parents=True, exist_ok=True)
    takes: list[Take] = []
    for row in tomllib.loads((HERE / "files.toml").read_text())["files"]:
        if row["part"] != part:
            continue
        path = media / row["file"]
        if not path.is_file() and "bundled" in row:
            path = HERE.parents[1] / row["bundled"]
        kept = cache / f"{row['sha256'][:16]}-{LONG_PX}.npy"
        if not kept.exists():
            _check(path, row)
            np.save(kept, _small_frames(path))
        pixels = np.load(kept, mmap_mode="r")
        fps = STILL_FPS if len(pixels) == 1 else probe(path).fps
        takes += [
            Take(file=row["file"], first=first, end=end, fps=fps, pixels=pixels)
            for first, end in row["takes"]
        ]
    return takes


def _check(path: Path, row: dict[str, str]) -> None:
    if not path.is_file():
        raise UsageError(f"no file {path}", expected=f"the file of {row['origin']}", fix="--media FOLDER")
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != row["sha256"]:
        raise UsageError(f"{path} has sha256 {actual}", expected=f"{row['sha256']} ({row['origin']})")


def _small_frames(path: Path) -> np.ndarray:
    """uint8 [T, H, W, 3] RGB, long side LONG_PX, at the displayed aspect."""
    if stills.is_still(path):
        pixels, _, _ = stills.read_still(path, MAX_PIXELS)
        step = max(1, max(pixels.shape[:2]) // (2 * LONG_PX))
        return np.ascontiguousarray(pixels[None, ::step, ::step])
    info = probe(path)
    scale = LONG_PX / max(info.width, info.height)
    size = round(info.width * scale), round(info.height * scale)
    return np.stack([frame.small_rgb(*size) for frame in decode(path, Damage(), max_pixels=MAX_PIXELS)])
