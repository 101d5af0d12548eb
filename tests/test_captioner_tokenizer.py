"""Tokenizer: any text survives the round trip, special ids are fixed, training is reproducible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from captioner.tokenizer import END_ID, PAD_ID, SPECIALS, CaptionTokenizer, train_tokenizer
from pipeline.errors import ModelError

TEXTS = ["A red circle moves left.", "The camera pans right past a small blue star.", 'It says "NEWS".'] * 9
TOKENIZER = train_tokenizer(TEXTS, 400, 32)


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12))
def test_any_text_that_fits_survives(text: str) -> None:
    if len(text.encode()) <= 28:
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_known_words_are_single_tokens_and_case_is_kept() -> None:
    assert len(TOKENIZER.encode("The camera pans right.")) == 2 + 5  # style, four words, full stop, end
    assert TOKENIZER.decode(TOKENIZER.encode("A red circle. It moves")) == "A red circle. It moves"


def test_the_style_leads_the_end_closes_and_padding_follows() -> None:
    ids = TOKENIZER.encode_batch(["A red circle.", "A star."], "short")
    assert ids[:, 0].tolist() == [SPECIALS.index("<short>")] * 2
    assert ids[0, -1] == END_ID
    assert ids[1].tolist().count(PAD_ID) == ids.shape[1] - len(TOKENIZER.encode("A star."))


def test_a_text_past_the_context_keeps_its_end() -> None:
    ids = TOKENIZER.encode("red " * 100)
    assert len(ids) == 32
    assert ids[-1] == END_ID


def test_special_words_in_a_text_do_not_become_special_tokens() -> None:
    assert END_ID not in TOKENIZER.encode("a <end> b")[:-1]


def test_training_again_gives_the_same_definition() -> None:
    assert train_tokenizer(TEXTS, 400, 32).definition == TOKENIZER.definition


def test_a_broken_definition_is_a_model_error() -> None:
    with pytest.raises(ModelError, match="tokenizer"):
        CaptionTokenizer("{}", 32)
