"""Text encoders by name, with real classes: tiny random weights in the real layout."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from pipeline.config import TextConfig
from pipeline.errors import ModelError
from tokenizer_stage.text.names import describe_text_encoder, load_text_encoder

transformers = pytest.importorskip("transformers", reason="no transformers: pip install 'framemill[hf]'")
torch = pytest.importorskip("torch")

WORDS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "a",
    "red",
    "circle",
    "moves",
    "to",
    "the",
    "left",
    "on",
    "plain",
    "blue",
    "ground",
    "slowly",
]
SHORT = "A red circle."
LONG = " ".join(["the camera follows a red circle over the blue ground,"] * 30)  # some 300 tokens


def tokenizer(folder: Path, *, begins: bool, limit: int | None) -> None:
    """A word-level tokenizer with an end token, or a begin and an end, as transformers saves it."""
    own = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    own.pre_tokenizer = pre_tokenizers.Whitespace()
    single = "<s> $A </s>" if begins else "$A </s>"
    own.post_processor = processors.TemplateProcessing(single, None, [("<s>", 1), ("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    more = {} if limit is None else {"model_max_length": limit}
    transformers.PreTrainedTokenizerFast(tokenizer_object=own, **names, **more).save_pretrained(folder)


def t5(kind: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(
            vocab_size=len(WORDS), d_model=16, d_kv=4, d_ff=32, num_layers=2, num_heads=4
        )
        getattr(transformers, f"{kind}EncoderModel")(config).save_pretrained(folder)
        tokenizer(folder, begins=False, limit=512 if kind == "T5" else None)

    return save


def clip(folder: Path) -> None:
    torch.manual_seed(0)
    config = transformers.CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        eos_token_id=2,
    )
    transformers.CLIPTextModel(config).save_pretrained(folder)
    tokenizer(folder, begins=True, limit=77)


def gemma(folder: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=512,
    )
    transformers.Gemma2Model(config).save_pretrained(folder)
    tokenizer(folder, begins=True, limit=None)


ENCODERS = {"T5": t5("T5"), "UMT5": t5("UMT5"), "MT5": t5("MT5"), "CLIP": clip, "Gemma": gemma}


@pytest.fixture(scope="module", params=list(ENCODERS))
def repository(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / request.param
    ENCODERS[request.param](folder)
    return folder


def reference(folder: Path, text: str, limit: int) -> np.ndarray:
    """What transformers' own calls give, written as its documentation does."""
    words = transformers.AutoTokenizer.from_pretrained(folder)
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    names = {"t5": "T5EncoderModel", "umt5": "UMT5EncoderModel", "mt5": "MT5EncoderModel"}
    names |= {"clip_text_model": "CLIPTextModel", "gemma2": "Gemma2Model"}
    model = getattr(transformers, names[kind]).from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(
            **words(text, return_tensors="pt", truncation=True, max_length=limit)
        ).last_hidden_state
    features: np.ndarray = hidden[0].numpy()
    return features


def test_features_are_those_of_the_class_itself(repository: Path) -> None:
    encoder = load_text_encoder(f"hf:{repository}", TextConfig())
    said = encoder.description
    assert said.width == 16
    assert said.limit == (77 if repository.name == "CLIP" else 512)
    for text, features in zip((SHORT, LONG, ""), encoder.encode([SHORT, LONG, ""]), strict=True):
        own = reference(repository, text, said.limit)
        assert features.tokens.dtype == np.float16
        assert features.tokens.shape == own.shape
        np.testing.assert_allclose(features.tokens, own, atol=2e-3, rtol=2e-3)


def test_a_text_is_the_same_alone_and_in_any_company(repository: Path) -> None:
    texts = [" ".join(WORDS[4 : 4 + n % 9 + 1]) + " red" * (n % 5) for n in range(40)]
    encoder = load_text_encoder(f"hf:{repository}", TextConfig())
    together = encoder.encode(texts)
    again = load_text_encoder(f"hf:{repository}", TextConfig()).encode(texts[::-1])[::-1]
    for text, one, other in zip(texts, together, again, strict=True):
        (alone,) = encoder.encode([text])
        assert one.tokens.tobytes() == alone.tokens.tobytes() == other.tokens.tobytes()


def test_long_captions_are_whole_but_for_what_is_said(repository: Path) -> None:
    encoder = load_text_encoder(f"hf:{repository}", TextConfig())
    long = encoder.encode([LONG])[0]
    assert len(long.tokens) + long.cut_tokens > 300
    assert (long.cut_tokens > 0) == (repository.name == "CLIP")
    cut = load_text_encoder(f"hf:{repository}", TextConfig(max_tokens=20)).encode([LONG])[0]
    assert (len(cut.tokens), cut.cut_tokens) == (20, len(long.tokens) + long.cut_tokens - 20)


def test_identity_is_of_the_content_and_the_settings(repository: Path, tmp_path: Path) -> None:
    def identity(folder: Path, **settings: Any) -> str:
        return describe_text_encoder(f"hf:{folder}", TextConfig(**settings)).identity

    copy = shutil.copytree(repository, tmp_path / "elsewhere")
    here = identity(repository)
    assert identity(copy) == here
    different = {here, identity(copy, max_tokens=9), identity(copy, template="Video: {}")}
    assert len(different | {identity(copy, dtype="bfloat16")}) == 4
    path = copy / "tokenizer.json"
    path.write_text(path.read_text().replace("slowly", "quickly"))
    assert identity(copy) not in different


def test_a_diffusers_folder_is_entered(repository: Path, tmp_path: Path) -> None:
    model = shutil.copytree(repository, tmp_path / "text_encoder_2")
    for path in model.glob("*token*"):
        (tmp_path / "tokenizer_2").mkdir(exist_ok=True)
        shutil.move(path, tmp_path / "tokenizer_2" / path.name)
    inner = load_text_encoder(f"hf:{tmp_path}#text_encoder_2", TextConfig())
    plain = load_text_encoder(f"hf:{repository}", TextConfig())
    assert inner.encode([SHORT])[0].tokens.tobytes() == plain.encode([SHORT])[0].tokens.tobytes()
    with pytest.raises(ModelError, match=r"no text_encoder/config\.json"):
        describe_text_encoder(f"hf:{tmp_path}", TextConfig())


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    clip(tmp_path / "clip")
    with pytest.raises(ModelError, match=r"takes 77 tokens; fix: --set text.max_tokens=77"):
        describe_text_encoder(f"hf:{tmp_path / 'clip'}", TextConfig(max_tokens=78))
    with pytest.raises(ModelError, match=r"one \{\}"):
        describe_text_encoder(f"hf:{tmp_path / 'clip'}", TextConfig(template="no place"))
    config = tmp_path / "clip" / "config.json"
    config.write_text(config.read_text().replace("clip_text_model", "bert"))
    with pytest.raises(ModelError, match="is a bert"):
        describe_text_encoder(f"hf:{tmp_path / 'clip'}", TextConfig())
    with pytest.raises(ModelError, match="no text encoder is called"):
        load_text_encoder("clip:x", TextConfig())
