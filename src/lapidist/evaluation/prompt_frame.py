"""What surrounds a user's text in a prompt: a chat template, or hardly anything."""

from dataclasses import dataclass

from lapidist.models.calibration.token_sequences import opening_tokens
from lapidist.models.tokenizer import Tokenizer

_CONTENT = "\ue000"  # stands for a user's message in a rendered chat template


@dataclass(frozen=True)
class PromptFrame:
    """Tokens that come before a user's text, and the text that stands between it and the reply."""

    opening: tuple[int, ...]
    between: str


def plain_frame(tokenizer: Tokenizer, between: str = "") -> PromptFrame:
    """No template: the beginning-of-text token, if the tokenizer sets one."""
    return PromptFrame(tuple(opening_tokens(tokenizer)), between)


def chat_frame(tokenizer: Tokenizer) -> PromptFrame:
    """The checkpoint's chat template around one message of the user's.

    Raises
    ------
    ChatTemplateError : the checkpoint has no usable template.
    """
    before, _, after = tokenizer.apply_chat_template([{"role": "user", "content": _CONTENT}]).partition(
        _CONTENT
    )
    return PromptFrame(tuple(tokenizer.encode(before, add_special_tokens=False)), after)
