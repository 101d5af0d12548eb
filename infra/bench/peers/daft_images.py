"""daft for images: download, decode, size, perceptual hash, one of each hash kept.

    daft_images.py images FILES.json OUT.json

Runs in an environment of its own, daft_images.txt.
"""

import json
import sys
from pathlib import Path

import daft
from daft import col
from daft.functions import decode_image, download, image_hash, image_height, image_width


def main(files: list[str]) -> dict[str, object]:
    pictures = (
        daft.from_pydict({"file": files})
        .with_column("picture", decode_image(download(col("file"), on_error="null"), on_error="null"))
        .with_column("width", image_width(col("picture")))
        .with_column("height", image_height(col("picture")))
        .with_column("print", image_hash(col("picture"), method="phash"))
        .select("file", "width", "height", "print")
        .to_pydict()
    )
    rows = [dict(zip(pictures, values, strict=True)) for values in zip(*pictures.values(), strict=True)]
    good = sorted((row for row in rows if row["print"] is not None), key=lambda row: row["file"])
    first = {row["print"]: row["file"] for row in reversed(good)}
    failed = [[row["file"], "no picture"] for row in rows if row["print"] is None]
    said = [{name: row[name] for name in ("file", "width", "height")} for row in good]
    return {"rows": said, "kept": sorted(first.values()), "failed": failed}


if __name__ == "__main__":
    assert sys.argv[1] == "images"
    done = main(json.loads(Path(sys.argv[2]).read_text()))
    Path(sys.argv[3]).write_text(json.dumps(done))
