"""An example as a prompt that fits: filled in, cut in the middle, in a chat template where that is wanted."""

from lapidist.evaluation.longbench.data import Example
from lapidist.evaluation.longbench.tasks import LongBenchTask
from lapidist.evaluation.prompt_frame import chat_frame
from lapidist.models.tokenizer import Tokenizer


def prompt_tokens(
    task: LongBenchTask, example: Example, tokenizer: Tokenizer, max_tokens: int, chat: bool
) -> list[int]:
    """Token ids, at most ``max_tokens`` with the chat template.

    Of a prompt that is too long the first and the last half of ``max_tokens`` are left, and joined as text, as
    published: the ends hold the instructions. Where it is joined it may have a few tokens more; then the halves are
    made shorter.

    Raises
    ------
    ValueError : ``max_tokens`` leaves nothing.
    """
    # Not str.format: braces in the data are the data's own.
    text = task.prompt.replace("{input}", "\ue000").replace("{context}", example.context)
    text = text.replace("\ue000", example.input)
    room = max_tokens
    while True:
        tokens = _framed(truncated_in_the_middle(text, tokenizer, room), tokenizer, chat and task.takes_chat)
        if len(tokens) <= max_tokens:
            return tokens
        room -= len(tokens) - max_tokens
        if room < 2:
            raise ValueError(f"prompts of {max_tokens} tokens leave no room for an example: allow more")


def truncated_in_the_middle(text: str, tokenizer: Tokenizer, max_tokens: int) -> str:
    """``text``, or the text of its first and of its last ``max_tokens // 2`` tokens."""
    tokens = tokenizer.encode(text)
    if len(tokens) <= max_tokens:
        return text
    half = max_tokens // 2
    return tokenizer.decode(tokens[:half]) + tokenizer.decode(tokens[-half:])


def _framed(text: str, tokenizer: Tokenizer, chat: bool) -> list[int]:
    if not chat:
        return tokenizer.encode(text)
    frame = chat_frame(tokenizer)
    return [*frame.opening, *tokenizer.encode(text + frame.between, add_special_tokens=False)]
