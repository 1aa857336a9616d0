"""Text files, packed or not, and the tokens and bytes that they come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.bundled import TINY
from lapidist.evaluation.text import tokenize
from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
VOCAB_SIZE = 3072


@given(st.lists(st.text(min_size=1), min_size=2, max_size=4))
def test_bytes_of_tokens_add_up_to_the_text(texts: list[str]) -> None:
    text = tokenize(TOKENIZER, texts, VOCAB_SIZE)
    assert sum(text.byte_counts) == len("\n\n".join(texts).encode())
    assert len(text.byte_counts) == len(text.token_ids)


def test_the_text_is_tokenized_as_one() -> None:
    text = tokenize(TOKENIZER, ["The king", "and the queen"], VOCAB_SIZE)
    assert text.token_ids == TOKENIZER.encode("The king\n\nand the queen", add_special_tokens=False)
    assert text.opening == (TOKENIZER.bos_token_id,)


def test_only_the_beginning_is_taken() -> None:
    whole = tokenize(TOKENIZER, ["The king and the queen of all the land"], VOCAB_SIZE)
    part = tokenize(TOKENIZER, ["The king and the queen of all the land"], VOCAB_SIZE, max_tokens=3)
    assert (part.token_ids, part.byte_counts) == (whole.token_ids[:3], whole.byte_counts[:3])


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_too_little_text(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="fewer than 2 tokens: there is nothing to predict"):
        tokenize(TOKENIZER, texts, VOCAB_SIZE)


def test_the_tokenizer_of_another_model() -> None:
    with pytest.raises(CheckpointError, match="and the model has 50: it is another model's"):
        tokenize(TOKENIZER, ["The king and the queen"], 50)
