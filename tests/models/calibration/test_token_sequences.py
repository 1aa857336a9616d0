"""Text to sequences: how much, cut where, what is held out."""

import itertools
from pathlib import Path

import pytest

from lapidist.bundled import TINY
from lapidist.models.calibration.default_text import default_texts
from lapidist.models.calibration.token_sequences import token_sequences
from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny() -> Tokenizer:
    return Tokenizer.from_directory(TINY)


def test_the_last_fifth_is_held_out(tiny: Tokenizer) -> None:
    text = "The ships were late, so the people waited for news. " * 100
    found = token_sequences(tiny, [text], tokens=500, context=64, vocab_size=3072)
    bos = tiny.bos_token_id
    for part in (found.chosen_on, found.held_out):
        assert all(sequence[0] == bos for sequence in part)
        assert {len(sequence) for sequence in part[:-1]} <= {64}
        assert len(part[-1]) <= 64
    chosen, held_out = (
        [token for sequence in part for token in sequence[1:]] for part in (found.chosen_on, found.held_out)
    )
    assert (len(chosen), len(held_out)) == (400, 100)
    assert chosen + held_out == tiny.encode(text, add_special_tokens=False)[:500]
    assert found.tokens == 500 + len(found.chosen_on) + len(found.held_out)


def test_no_opening_where_the_tokenizer_sets_none(llama_directory: Path) -> None:
    tokenizer = Tokenizer.from_directory(llama_directory)
    found = token_sequences(tokenizer, ["the cat sat on the mat "] * 20, 40, 16, 320)
    assert found.tokens == 40


def test_short_and_long_texts(tiny: Tokenizer) -> None:
    assert token_sequences(tiny, ["one two three four five " * 8], 10_000, 32, 3072).tokens < 100
    # Only as much as needed is tokenized.
    assert token_sequences(tiny, itertools.repeat("word " * 50_000), 100, 32, 3072).tokens > 100
    for texts in ([], [""], ["short"]):
        with pytest.raises(ValueError, match="calibration text has"):
            token_sequences(tiny, texts, 100, 32, 3072)
    with pytest.raises(ValueError, match="tokens must be at least 16, got 0"):
        token_sequences(tiny, ["text"], 0, 32, 3072)


def test_a_tokenizer_of_another_model(tiny: Tokenizer) -> None:
    with pytest.raises(CheckpointError, match="another model's"):
        token_sequences(tiny, default_texts(), 1000, 32, vocab_size=500)


def test_the_default_text_is_endless_varied_and_always_the_same() -> None:
    first = list(itertools.islice(default_texts(), 40))
    assert first == list(itertools.islice(default_texts(), 40))
    assert len(set(first)) == 40
    text = "".join(first)
    for piece in ("The ferry left at seven", "SELECT", "Утром", "今天", "def merge"):
        assert piece in text
    assert sum(character.isdigit() for character in text) > 1000
    assert not any(line.startswith("%%") for line in text.splitlines())
