"""The files of a built-in captioner's folder, and the description that names their hashes.

In: a folder that `framemill captioner train` wrote. Out: its description. Loads no weights.
"""

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError

FORMAT_VERSION = 1
BUILTIN_DIR = Path(__file__).parent / "weights"
WEIGHTS_NAME, CONFIG_NAME, TOKENIZER_NAME = "builtin.safetensors", "builtin.json", "builtin.tokenizer.json"


def read_description(folder: Path) -> dict[str, Any]:
    """Model sizes, hashes and training record, checked for format."""
    try:
        description: dict[str, Any] = json.loads((folder / CONFIG_NAME).read_text())
    except FileNotFoundError as error:
        raise ModelError(
            f"no captioner in {folder}: {error.filename} is missing",
            fix="framemill captioner train --out DIR",
        ) from error
    if description.get("format_version") != FORMAT_VERSION:
        raise ModelError(
            f"captioner format {description.get('format_version')} in {folder}", expected=f"{FORMAT_VERSION}"
        )
    return description
