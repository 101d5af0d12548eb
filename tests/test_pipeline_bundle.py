"""A model's folder: whole or refused, with the file and the cure named; names of models have a form."""

import json
from pathlib import Path

import pytest

from pipeline import bundle
from pipeline.errors import ModelError, UsageError

MADE_BY = "framemill something train --out DIR"
FORMS = ("builtin:", "builtin:DIR", "truth:FILE", "openai:URL#MODEL")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bundle.write(tmp_path / "model", b"weights", {"more.json": b"[]"}, {"spec": {"width": 3}})
    return tmp_path / "model"


def test_what_was_written_comes_back(folder: Path) -> None:
    saved = bundle.read(folder, MADE_BY)
    assert saved.weights == b"weights"
    assert saved.description["spec"] == {"width": 3}
    assert saved.text("more.json") == "[]"
    assert bundle.read_description(folder, MADE_BY) == saved.description
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [bundle.RECORD_NAME, bundle.WEIGHTS_NAME, "more.json"]
    )


@pytest.mark.parametrize("name", [bundle.RECORD_NAME, bundle.WEIGHTS_NAME])
def test_a_missing_file_is_named_with_the_command_that_makes_it(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name} is missing.*{MADE_BY}"):
        bundle.read(folder, MADE_BY)


@pytest.mark.parametrize("weights", [b"", b"weight", b"weights of another training"])
def test_damaged_and_swapped_weights_are_refused(folder: Path, weights: bytes) -> None:
    (folder / bundle.WEIGHTS_NAME).write_bytes(weights)
    with pytest.raises(ModelError, match=rf"{bundle.WEIGHTS_NAME} does not match.*{MADE_BY}"):
        bundle.read(folder, MADE_BY)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "format None"),
        (b'{"format_version": 7, "weights_sha256": "0"}', "format 7.*expected format 1"),
        (b'{"format_version": 1}', "weights_sha256"),
    ],
)
def test_a_record_that_is_none_is_refused(folder: Path, record: bytes, expected: str) -> None:
    (folder / bundle.RECORD_NAME).write_bytes(record)
    with pytest.raises(ModelError, match=expected):
        bundle.read(folder, MADE_BY)


@pytest.mark.parametrize(
    "error", [KeyError("spec"), RuntimeError("shape"), TypeError("no"), ValueError("no")]
)
def test_what_does_not_fit_the_program_is_a_model_error(folder: Path, error: Exception) -> None:
    with pytest.raises(ModelError, match=f"do not fit.*{MADE_BY}"), bundle.read(folder, MADE_BY).fitting():
        raise error


def test_a_write_that_fails_leaves_the_old_model_whole(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(TypeError):
        bundle.write(folder, b"new", {"more.json": None}, {})  # type: ignore[dict-item]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(ValueError, match="JSON"):
        bundle.write(folder, b"new", {}, {"loss": float("nan")})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_record_is_put_in_place_last(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / bundle.WEIGHTS_NAME).mkdir(parents=True)  # nothing can be put in its place
    with pytest.raises(Exception, match=bundle.WEIGHTS_NAME):
        bundle.write(folder, b"new", {"more.json": b"[]"}, {})
    assert not (folder / bundle.RECORD_NAME).exists()


@pytest.mark.parametrize("name", [bundle.RECORD_NAME, bundle.WEIGHTS_NAME, "metrics.jsonl"])
def test_a_folder_of_an_earlier_training_is_not_free(tmp_path: Path, name: str) -> None:
    bundle.require_free(tmp_path)
    bundle.require_free(tmp_path / "new")
    (tmp_path / name).write_text("x")
    with pytest.raises(UsageError, match=f"holds {name}.*--out"):
        bundle.require_free(tmp_path)


def test_tensors_that_are_not_finite_are_named() -> None:
    bundle.refuse_non_finite({"a": True}, "x")
    with pytest.raises(ModelError, match=r"1 tensors.*\(b\): x was not written"):
        bundle.refuse_non_finite({"a": True, "b": False}, "x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("builtin:", ("builtin", "")),
        ("builtin:a:b", ("builtin", "a:b")),
        ("truth:t.jsonl", ("truth", "t.jsonl")),
        ("openai:http://h/v1#m", ("openai", "http://h/v1#m")),
    ],
)
def test_a_name_is_a_scheme_and_its_argument(name: str, expected: tuple[str, str]) -> None:
    assert bundle.parse_name(name, "captioner", FORMS) == expected


@pytest.mark.parametrize("name", ["", "builtin", "truth:", "gpt:4", ":x"])
def test_a_name_of_no_form_is_refused_with_the_forms(name: str) -> None:
    with pytest.raises(
        ModelError, match=r"no captioner is called.*builtin:, builtin:DIR.* or openai:URL#MODEL"
    ):
        bundle.parse_name(name, "captioner", FORMS)


def test_the_records_that_ship_name_their_weights() -> None:
    root = Path(__file__).resolve().parents[1]
    for package in ("captioner", "tokenizer_stage", "training"):
        saved = bundle.read(root / package / "weights", MADE_BY)
        assert json.loads((saved.folder / bundle.RECORD_NAME).read_text()) == saved.description
