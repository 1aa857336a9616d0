"""The pieces add up to the one-shot decode, and none of them ends inside a character."""

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.engine.detokenizer import IncrementalDetokenizer
from lapidist.models.tokenizer import Tokenizer
from tests.trained_tokenizers import TEXT, TOKENIZER_KINDS, tokenizer_directory

EVERY_KIND = pytest.mark.parametrize("kind", TOKENIZER_KINDS)


@functools.cache
def loaded(kind: str) -> Tokenizer:
    return Tokenizer.from_directory(tokenizer_directory(kind))


@functools.cache
def single_byte_tokens(tokenizer: Tokenizer) -> list[int]:
    return [i for i in range(tokenizer.vocab_size) if len(tokenizer.token_bytes(i)) == 1]


@st.composite
def token_sequences(draw: st.DrawFn, tokenizer: Tokenizer) -> list[int]:
    """Tokens of real text, random tokens, and runs of single-byte tokens (valid UTF-8 or not), mixed."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(TEXT)
    encoded = text.map(lambda value: tokenizer.encode(value, add_special_tokens=False))
    anything = st.lists(st.integers(0, tokenizer.vocab_size + 3), max_size=6)
    runs = st.lists(st.sampled_from(single_byte_tokens(tokenizer)), max_size=6)
    specials = st.lists(st.sampled_from(sorted(tokenizer.special_token_ids)), max_size=2)
    parts = draw(st.lists(encoded | anything | runs | specials, max_size=8))
    return [token_id for part in parts for token_id in part]


def pieces(detokenizer: IncrementalDetokenizer, token_ids: list[int]) -> list[str]:
    return [*map(detokenizer.append, token_ids), detokenizer.flush()]


@EVERY_KIND
@settings(max_examples=100, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_pieces_add_up_to_the_whole(kind: str, data: st.DataObject, skip: bool) -> None:
    tokenizer = loaded(kind)
    token_ids = data.draw(token_sequences(tokenizer))
    found = pieces(IncrementalDetokenizer(tokenizer, skip_special_tokens=skip), token_ids)
    assert "".join(found) == tokenizer.decode(token_ids, skip_special_tokens=skip)


@EVERY_KIND
@settings(max_examples=100, deadline=None)
@given(data=st.data(), skip=st.booleans())
def test_text_continues_the_prompt(kind: str, data: st.DataObject, skip: bool) -> None:
    tokenizer = loaded(kind)
    prompt, token_ids = data.draw(token_sequences(tokenizer)), data.draw(token_sequences(tokenizer))
    # A prompt that ends between characters: its text is then a beginning of the whole text.
    prompt = [*prompt, *tokenizer.encode("x", add_special_tokens=False)]
    found = pieces(IncrementalDetokenizer(tokenizer, prompt, skip_special_tokens=skip), token_ids)
    before = tokenizer.decode(prompt, skip_special_tokens=skip)
    whole = tokenizer.decode(prompt + token_ids, skip_special_tokens=skip)
    assert before + "".join(found) == whole


@EVERY_KIND
@settings(max_examples=50, deadline=None)
@given(data=st.data(), text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd")))
def test_no_piece_ends_inside_a_character(kind: str, data: st.DataObject, text: str) -> None:
    tokenizer = loaded(kind)
    token_ids = tokenizer.encode("x" + text, add_special_tokens=False)
    cut = data.draw(st.integers(1, len(token_ids)))
    detokenizer = IncrementalDetokenizer(tokenizer, token_ids[:cut])
    found = pieces(detokenizer, token_ids[cut:])
    assert "\ufffd" not in "".join(found)
    assert tokenizer.decode(token_ids).endswith("".join(found))


@pytest.mark.parametrize("kind", ["byte_level", "llama2", "gemma", "metaspace"])
def test_a_prompt_that_ends_inside_a_character(kind: str) -> None:
    tokenizer = loaded(kind)
    token_ids = [byte_token(tokenizer, byte) for byte in "🦊".encode()] + tokenizer.encode(
        "x", add_special_tokens=False
    )
    for cut in range(1, 4):
        detokenizer = IncrementalDetokenizer(tokenizer, token_ids[:cut])
        assert "".join(pieces(detokenizer, token_ids[cut:])).replace(" ", "") == "🦊x"


def byte_token(tokenizer: Tokenizer, byte: int) -> int:
    if tokenizer.is_byte_level:
        return next(i for i in range(tokenizer.vocab_size) if tokenizer.token_bytes(i) == bytes([byte]))
    found = tokenizer.backend.token_to_id(f"<0x{byte:02X}>")
    assert found is not None
    return found


@pytest.mark.parametrize("kind", ["llama2", "metaspace", "unigram"])
def test_leading_space(kind: str) -> None:
    tokenizer = loaded(kind)
    prompt = tokenizer.encode("once", add_special_tokens=False)
    token_ids = tokenizer.encode("stones", add_special_tokens=False)
    assert "".join(pieces(IncrementalDetokenizer(tokenizer), token_ids)) == "stones"
    assert "".join(pieces(IncrementalDetokenizer(tokenizer, prompt), token_ids)) == " stones"


def test_a_character_comes_with_its_last_byte() -> None:
    tokenizer = loaded("byte_level")
    token_ids = [byte_token(tokenizer, byte) for byte in "é🦊".encode()]
    assert pieces(IncrementalDetokenizer(tokenizer), token_ids) == ["", "é", "", "", "", "🦊", ""]
    invalid = [byte_token(tokenizer, byte) for byte in b"\xf0\x9fA"]
    assert pieces(IncrementalDetokenizer(tokenizer), invalid) == ["", "", "\ufffdA", ""]
    assert pieces(IncrementalDetokenizer(tokenizer), invalid[:2]) == ["", "", "\ufffd"]


def test_a_run_of_byte_tokens_comes_when_it_ends() -> None:
    tokenizer = loaded("gemma")
    run = [byte_token(tokenizer, byte) for byte in "é🦊".encode()]
    [x] = tokenizer.encode("x", add_special_tokens=False)
    assert pieces(IncrementalDetokenizer(tokenizer), [*run, x]) == [""] * 6 + ["é🦊x", ""]
    assert pieces(IncrementalDetokenizer(tokenizer), run) == [""] * 6 + ["é🦊"]
