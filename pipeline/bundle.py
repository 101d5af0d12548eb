"""The folder of a trained model: weights, the files beside them, and the JSON that names their hash.

    builtin.safetensors     the weights
    builtin.json            format_version, weights_sha256, and what the model's own loader wants to know

In: such a folder, or bytes and a description. Out: the description and the weights' bytes, checked against
it; or a folder that is whole as soon as its builtin.json is, which is written last. All that can be wrong
with one is a ModelError that names the file and the command that makes it. Never looks inside the weights.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from pipeline.errors import ConfigError, ModelError, UsageError
from pipeline.runlog import METRICS_NAME
from pipeline.storage import commit, sha256_hex

FORMAT_VERSION = 1
WEIGHTS_NAME, RECORD_NAME = "builtin.safetensors", "builtin.json"
MISFITS = (KeyError, TypeError, ValueError, RuntimeError, ConfigError, SafetensorError)  # torch: RuntimeError

REASON_CHARACTERS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A folder that was read and whose weights are those that its record names."""

    folder: Path
    description: dict[str, Any]
    weights: bytes
    made_by: str  # the command that makes such a folder

    @property
    def weights_sha256(self) -> str:
        return str(self.description["weights_sha256"])

    def text(self, name: str) -> str:
        """A file beside the weights."""
        return _read(self.folder / name, self.made_by).decode()

    @contextmanager
    def fitting(self) -> Iterator[None]:
        """ModelError for whatever goes wrong while a model is built from the record and the weights: both
        are what was written, so they were not written for this program."""
        try:
            yield
        except MISFITS as error:
            raise ModelError(
                f"{self.folder / WEIGHTS_NAME} and {RECORD_NAME} do not fit this program: {reason_of(error)}",
                fix=self.made_by,
            ) from error


def read_description(folder: Path, made_by: str) -> dict[str, Any]:
    """The record of a folder, checked for format; the weights are not looked at."""
    path = folder / RECORD_NAME
    try:
        description = json.loads(_read(path, made_by))
    except ValueError as error:
        raise ModelError(f"{path} is not JSON: {error}", fix=made_by) from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if version != FORMAT_VERSION or not isinstance(description.get("weights_sha256"), str):
        raise ModelError(
            f"{path} has format {version}",
            expected=f"format {FORMAT_VERSION}, with weights_sha256",
            fix=made_by,
        )
    return dict(description)


def read(folder: Path, made_by: str) -> Bundle:
    """Record and weights of a folder; `made_by` is the command that makes one, for the messages."""
    description = read_description(folder, made_by)
    weights = _read(folder / WEIGHTS_NAME, made_by)
    if sha256_hex(weights) != description["weights_sha256"]:
        raise ModelError(
            f"{folder / WEIGHTS_NAME} does not match {RECORD_NAME}",
            expected=f"sha256 {description['weights_sha256']}",
            fix=f"restore the two files from one training run, or {made_by}",
        )
    return Bundle(folder=folder, description=description, weights=weights, made_by=made_by)


def write(folder: Path, weights: bytes, others: Mapping[str, bytes], description: Mapping[str, Any]) -> str:
    """Writes a folder that `read` takes: every file to another name first, the record put in place last.
    Returns the hash of the weights."""
    digest = sha256_hex(weights)
    record = {"format_version": FORMAT_VERSION, "weights_sha256": digest, **description}
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    files = {RECORD_NAME: text.encode(), WEIGHTS_NAME: weights, **others}
    with ExitStack() as stack:  # what is entered first is put in place last
        for name, data in files.items():
            stack.enter_context(commit(folder / name)).write_bytes(data)
    return digest


def require_free(out: Path) -> None:
    """Refuses to train into a folder that holds a model or a log: it would be lost.

    Raises:
        UsageError: it names what lies there, and how to go on from it.
    """
    taken = [name for name in (RECORD_NAME, WEIGHTS_NAME, METRICS_NAME) if (out / name).exists()]
    if taken:
        go_on = f", and --set init={out} to go on from its weights" if RECORD_NAME in taken else ""
        raise UsageError(
            f"--out {out} holds {', '.join(taken)} of an earlier training",
            expected="a new folder",
            fix=f"name another --out{go_on}",
        )


def refuse_non_finite(finite: Mapping[str, bool], where: object) -> None:
    """ModelError when a tensor (name → whether all of it is finite) must not be written to `where`."""
    wrong = [name for name, is_finite in finite.items() if not is_finite]
    if wrong:
        raise ModelError(
            f"{len(wrong)} tensors are not finite ({wrong[0]}): {where} was not written",
            expected="finite weights",
            fix="train with a lower rate",
        )


def require_finite(finite: Mapping[str, bool], where: object) -> None:
    """ModelError when a tensor read from `where` (name → whether all of it is finite) is not: what such
    weights make is noise or nothing."""
    wrong = [name for name, is_finite in finite.items() if not is_finite]
    if wrong:
        raise ModelError(
            f"{where} holds {len(wrong)} tensors that are not finite, the first is {wrong[0]}",
            expected="finite weights",
            fix="use an earlier checkpoint: delete this one's folder",
        )


def parse_name(name: str, what: str, forms: Sequence[str]) -> tuple[str, str]:
    """(scheme, argument) of a model's name such as `builtin:` or `hf:REPO`, when it has one of the forms.

    >>> parse_name("hf:Qwen/Qwen3-VL-8B", "captioner", ("builtin:", "hf:REPO"))
    ('hf', 'Qwen/Qwen3-VL-8B')
    """
    scheme, colon, argument = name.partition(":")
    for form in forms:
        known, _, placeholder = form.partition(":")
        if colon and scheme == known and bool(argument) == bool(placeholder):
            return scheme, argument
    raise ModelError(
        f"no {what} is called {name!r}",
        expected=" or ".join(filter(None, [", ".join(forms[:-1]), forms[-1]])),
    )


def reason_of(error: Exception) -> str:
    """One line of at most REASON_CHARACTERS: torch lists every tensor of another shape."""
    text = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
    return text if len(text) <= REASON_CHARACTERS else f"{text[:REASON_CHARACTERS]}…"


def _read(path: Path, made_by: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing", fix=made_by) from error
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}", fix=made_by) from error
