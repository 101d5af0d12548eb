"""A text encoder as it lies in a transformers or diffusers repository: which files, of what, and their hash.

In: a folder, or a repository of the hub that was named. Out: the folders of model and tokenizer, and a
description. Never: torch, or a weight in memory.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config import TextConfig
from pipeline.engine.stage import Resources
from pipeline.errors import ModelError
from pipeline.settings import fingerprint
from tokenizer_stage.text.encoder import TextDescription, limited

SUBFOLDER = "text_encoder"  # of a diffusers repository; its tokenizer stands in tokenizer…
WANTED_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
TRAINED_TOKENS = 512  # of T5 and its kin: their relative positions have no limit, their training had
UNBOUNDED = 1_000_000  # transformers writes 1e30 where a tokenizer knows no limit


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of model is used. `model_class` is its class in transformers, `width` the name of its
    width in the config, `has_limit` whether positions beyond a number are unknown to it."""

    model_class: str
    width: str
    has_limit: bool


FAMILIES: Mapping[str, Family] = {  # model_type of config.json →
    "t5": Family("T5EncoderModel", "d_model", False),
    "mt5": Family("MT5EncoderModel", "d_model", False),
    "umt5": Family("UMT5EncoderModel", "d_model", False),
    "clip": Family("CLIPTextModel", "hidden_size", True),
    "clip_text_model": Family("CLIPTextModel", "hidden_size", True),
    "gemma": Family("GemmaModel", "hidden_size", True),
    "gemma2": Family("Gemma2Model", "hidden_size", True),
    "gemma3_text": Family("Gemma3TextModel", "hidden_size", True),
    "llama": Family("LlamaModel", "hidden_size", True),
    "qwen2": Family("Qwen2Model", "hidden_size", True),
    "qwen3": Family("Qwen3Model", "hidden_size", True),
}


@dataclass(frozen=True)
class Repository:
    """`model` and `tokenizer` are folders."""

    model: Path
    tokenizer: Path

    @classmethod
    def at(cls, argument: str) -> "Repository":
        """The one that `hf:ARGUMENT` names.

        Raises:
            ModelError: it is neither a folder nor in the hub's cache, and cannot be downloaded.
        """
        name, _, subfolder = argument.partition("#")
        folder = Path(name)
        root = folder if folder.is_dir() else _downloaded(name, subfolder)
        if not subfolder and (root / "config.json").is_file():
            return cls(root, root)
        subfolder = subfolder or SUBFOLDER
        model = root / subfolder
        if not (model / "config.json").is_file():
            raise ModelError(
                f"hf:{argument}: no {subfolder}/config.json in {root}",
                expected="a transformers folder, or a diffusers folder with text_encoder and tokenizer",
            )
        beside = root / subfolder.replace(SUBFOLDER, "tokenizer")
        return cls(model, beside if beside.is_dir() else model)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """config.json, of a CLIP with two towers that of its text tower."""
        values: dict[str, Any] = json.loads((self.model / "config.json").read_text())
        text = values.get("text_config") if values.get("model_type") == "clip" else None
        return {**values, **(text or {}), "model_type": values.get("model_type")}

    @property
    def family(self) -> Family:
        kind = self.config["model_type"]
        if kind not in FAMILIES:
            raise ModelError(f"{self.model} is a {kind}", expected=f"one of {', '.join(FAMILIES)}")
        return FAMILIES[kind]

    def describe(self, name: str, config: TextConfig) -> TextDescription:
        """What planning needs of it, with the limit and template of `config`."""
        weights = sorted(self.model.glob("*.safetensors"))
        if not weights:
            raise ModelError(
                f"no safetensors in {self.model}", expected="weights as safetensors: no pickle is read"
            )
        limit = limited(self._own_limit(), config.max_tokens, name)
        return TextDescription(
            name=name,
            family=self.config["model_type"],
            width=int(self.config[self.family.width]),
            limit=limit,
            template=config.template,
            identity=fingerprint(self._files_sha256(), limit, config.template, config.dtype),
            resources=Resources(
                cpus=1, gpus=1, memory_gb=2 + 2 * sum(path.stat().st_size for path in weights) / 2**30
            ),
        )

    def _own_limit(self) -> int:
        positions = int(self.config.get("max_position_embeddings") or UNBOUNDED)
        if self.family.has_limit:
            return positions
        path = self.tokenizer / "tokenizer_config.json"
        own = json.loads(path.read_text()).get("model_max_length") if path.is_file() else None
        return int(own) if own and own < UNBOUNDED else TRAINED_TOKENS

    def _files_sha256(self) -> list[str]:
        """A hash of every file that decides the features, whatever the folder is called."""
        folders = dict.fromkeys((self.model, self.tokenizer))
        files = [path for folder in folders for path in sorted(folder.iterdir()) if path.is_file()]
        wanted = [path for path in files if any(path.match(pattern) for pattern in WANTED_FILES)]
        return [f"{path.name} {_sha256_of(path)}" for path in wanted if path.name != "README.md"]


def _sha256_of(path: Path) -> str:
    """The content's hash. A large file in the hub's cache is a link to a blob whose name is that hash."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and len(blob.name) == hashlib.sha256().digest_size * 2:
        return blob.name
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _downloaded(name: str, subfolder: str) -> Path:
    """The folder of a repository in the hub's cache, downloaded where it is not there."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(f"hf:{name} needs transformers", fix="pip install 'framemill[hf]'") from error
    inside = subfolder or SUBFOLDER
    places = [inside, inside.replace(SUBFOLDER, "tokenizer")]
    patterns = [*WANTED_FILES, *(f"{place}/{pattern}" for place in places for pattern in WANTED_FILES)]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises of its own, of httpx, and OSError
        raise ModelError(
            f"no text encoder at hf:{name}: {' '.join(str(error).split())[:200]}",
            expected="a folder, or a repository of the hub",
            fix="check the name, or download it on a machine that reaches the hub",
        ) from error
