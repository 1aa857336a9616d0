"""Text of a growing token sequence, character by character and never half of one."""

import codecs
import os.path
from collections.abc import Sequence

from lapidist.models.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Turns the tokens of a completion into text as they come.

    The pieces returned add up to ``tokenizer.decode(prompt + completion)`` less the text of the prompt. A
    piece ends at a character boundary. Bytes that are no UTF-8 come out as U+FFFD where ``decode`` has it;
    for byte tokens like ``<0xE2>`` this is known, and their text comes, when the run of them ends. Each token
    costs constant time, amortised.

    Parameters
    ----------
    prompt_token_ids : what precedes. It decides whether a leading space belongs to the text, and a prompt
        that ends inside a character has it completed.
    skip_special_tokens : special tokens have no text.
    """

    def __init__(
        self, tokenizer: Tokenizer, prompt_token_ids: Sequence[int] = (), *, skip_special_tokens: bool = True
    ) -> None:
        self._tokenizer = tokenizer
        self._skipped = tokenizer.special_token_ids if skip_special_tokens else frozenset()
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        # Tokens whose text is out already, from a place where text can be decoded apart from what precedes.
        self._context: list[int] = []
        self._pending: list[int] = []
        if tokenizer.is_byte_level:
            for token_id in self._tail(prompt_token_ids):
                self.append(token_id)
        else:
            self._context = self._tail(prompt_token_ids)

    def append(self, token_id: int) -> str:
        """Take the next token; returns the text that is certain now and was not before."""
        if self._is_silent(token_id):
            return ""
        if self._tokenizer.is_byte_level:
            return self._utf8.decode(self._tokenizer.token_bytes(token_id))
        self._pending.append(token_id)
        return "" if self._tokenizer.is_byte_token(token_id) else self._emit()

    def flush(self) -> str:
        """The rest: no token follows."""
        return self._utf8.decode(b"", final=True) + self._emit()

    def _emit(self) -> str:
        """Text of the pending tokens, which end a run of byte tokens if they have one."""
        tokenizer = self._tokenizer
        before = tokenizer.decode(self._context, skip_special_tokens=False)
        after = tokenizer.decode(self._context + self._pending, skip_special_tokens=False)
        self._context, self._pending = self._pending[-1:] or self._context, []
        # Only where a prompt ends inside a run of byte tokens is ``before`` not a prefix of ``after``.
        return after[len(os.path.commonprefix([before, after])) :]  # noqa: RUF071 (characters are meant)

    def _is_silent(self, token_id: int) -> bool:
        """Whether decoding passes over the token."""
        return token_id in self._skipped or self._tokenizer.backend.id_to_token(token_id) is None

    def _tail(self, prompt_token_ids: Sequence[int]) -> list[int]:
        """The last tokens of the prompt, enough that what precedes them does not matter to what follows."""
        tail: list[int] = []
        for token_id in reversed(prompt_token_ids):
            if self._is_silent(token_id):
                continue
            tail.append(token_id)
            # A character has four bytes at most; a run of byte tokens is decoded as a whole.
            if len(tail) >= 4 and not self._tokenizer.is_byte_token(token_id):
                break
        return tail[::-1]
