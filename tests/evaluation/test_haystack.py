"""Where sentences start, in tokens."""

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from lapidist.bundled import TINY
from lapidist.evaluation.haystack import haystack_of, sentence_starts
from lapidist.models.tokenizer import Tokenizer

TEXT = "The king came. It was 3.14 o'clock! Was it? Yes\n\nThe end.\nNot quite.Really"
SENTENCES = ["The king came.", " It was 3.14 o'clock!", " Was it?", " Yes\n\nThe end.", "\nNot quite.Really"]


def test_sentences_start_after_their_ends() -> None:
    tokenizer = Tokenizer.from_directory(TINY)
    haystack = haystack_of(TEXT, tokenizer)
    parts = np.split(haystack.tokens, haystack.sentence_starts)
    assert [tokenizer.decode(part.tolist()) for part in parts] == SENTENCES


def test_an_end_and_a_line_end_in_one_token() -> None:
    vocabulary = {"A": 0, "B": 1, ".Ċ": 2, ".": 3}
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(), decoders.ByteLevel()
    assert sentence_starts([0, 2, 1, 3, 0], Tokenizer(backend)).tolist() == [2]


@pytest.mark.parametrize("text", ["", "The"])
def test_hardly_any_text(text: str) -> None:
    assert len(haystack_of(text, Tokenizer.from_directory(TINY)).sentence_starts) == 0
