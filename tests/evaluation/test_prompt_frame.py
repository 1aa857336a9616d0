"""What surrounds a user's text."""

import pytest

from lapidist.bundled import TINY
from lapidist.evaluation.prompt_frame import chat_frame, plain_frame
from lapidist.models.errors import ChatTemplateError
from lapidist.models.tokenizer import Tokenizer


def test_a_frame_makes_the_prompt_that_the_template_makes() -> None:
    tokenizer = Tokenizer.from_directory(TINY)
    frame = chat_frame(tokenizer)
    own = [*frame.opening, *tokenizer.encode("Hello there." + frame.between, add_special_tokens=False)]
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "Hello there."}])
    assert own == tokenizer.encode(whole, add_special_tokens=False)


def test_without_a_template() -> None:
    tokenizer = Tokenizer.from_directory(TINY)
    frame = plain_frame(tokenizer, between=" ")
    assert (list(frame.opening), frame.between) == ([tokenizer.bos_token_id], " ")
    with pytest.raises(ChatTemplateError, match="no chat template"):
        chat_frame(Tokenizer(tokenizer.backend))
