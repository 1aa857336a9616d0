"""One prompt of a RULER task, and what its answer must hold."""

from dataclasses import dataclass

from lapidist.evaluation.prompt_frame import PromptFrame
from lapidist.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Sample:
    """A prompt in its parts.

    Attributes
    ----------
    body : everything up to the question, with the question.
    answer_prefix : how the reply begins; it is part of the prompt and starts with a space.
    outputs : what the reply must contain.
    max_new_tokens : room for the reply; None is what ``outputs`` take in the model's tokens, and 16 more.
    """

    body: str
    answer_prefix: str
    outputs: tuple[str, ...]
    max_new_tokens: int | None

    def prompt(self, tokenizer: Tokenizer, frame: PromptFrame) -> list[int]:
        """Token ids. After a chat template the reply's beginning has no space before it."""
        prefix = self.answer_prefix.removeprefix(" ") if frame.between else self.answer_prefix
        text = self.body + frame.between + prefix
        return [*frame.opening, *tokenizer.encode(text, add_special_tokens=False)]

    def reply_tokens(self, tokenizer: Tokenizer) -> int:
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        return len(tokenizer.encode(" " + " ".join(self.outputs), add_special_tokens=False)) + _SPARE


_SPARE = 16
