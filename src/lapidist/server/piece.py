"""Pieces of a choice: what is new since the last time its client was told."""

from collections.abc import Sequence
from dataclasses import dataclass

from lapidist.engine.outputs import CompletionOutput, TokenLogprobs


@dataclass(frozen=True)
class Piece:
    """Text and the tokens that it came from.

    ``logprobs`` has an entry per token, or is None if nobody asked; ``offset`` is where the text begins, in
    characters.
    """

    text: str = ""
    token_ids: Sequence[int] = ()
    logprobs: Sequence[TokenLogprobs | None] | None = None
    offset: int = 0


class Progress:
    """How far one choice has been sent.

    Parameters
    ----------
    echo : comes before the generated text.
    """

    def __init__(self, echo: Piece | None = None) -> None:
        self._echo = echo
        self._characters = 0
        self._tokens = 0
        self._offset = 0
        self._finished = False

    def advance(self, completion: CompletionOutput) -> Piece | None:
        """What is new, or None when there is nothing to send.

        Tokens without text of their own (half a character, what may become a stop string) wait for the text.
        """
        if self._finished or (len(completion.text) == self._characters and completion.finish_reason is None):
            return None
        text = completion.text[self._characters :]
        token_ids: Sequence[int] = completion.token_ids[self._tokens :]
        logprobs: Sequence[TokenLogprobs | None] | None = None
        if completion.logprobs is not None:
            logprobs = completion.logprobs[self._tokens :]
        self._characters, self._tokens = len(completion.text), len(completion.token_ids)
        self._finished = completion.finish_reason is not None
        if self._echo is not None:
            text = self._echo.text + text
            token_ids = [*self._echo.token_ids, *token_ids]
            logprobs = None if logprobs is None else [*(self._echo.logprobs or ()), *logprobs]
            self._echo = None
        piece = Piece(text, token_ids, logprobs, self._offset)
        self._offset += len(text)
        return piece
