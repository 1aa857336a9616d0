"""Generation that must match a JSON schema or a regular expression, through llguidance."""

import functools
import json
import re
from collections.abc import Iterable

import llguidance
import torch

from lapidist.engine.errors import InvalidRequestError
from lapidist.engine.sampling_params import StructuredOutput
from lapidist.models.tokenizer import Tokenizer

# Bounds on what one request can make the server do. llguidance builds its automata as it goes and stops at
# its own limits, so a short grammar costs little whatever it says, and the cost of a long one is its length.
MAX_GRAMMAR_CHARACTERS = 64 * 1024
_LIMITS = llguidance.LLParserLimits(verbose_errors=False)

# Without a bound a model that is unsure can go on with white space between JSON tokens for ever.
_JSON_WHITE_SPACE = r"[\x20\x0A\x0D\x09]{1,40}"


class GrammarState:
    """How far one completion has come in its grammar."""

    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self._matcher = matcher

    def fill_mask(self, row: torch.Tensor) -> None:
        """Set bit ``t % 32`` of ``row[t // 32]`` for every token ``t`` that may come next, clear the others.

        The end-of-text tokens are among them when the text is complete.

        Parameters
        ----------
        row : int32 [ceil(vocab / 32)], contiguous, on the CPU.

        Raises
        ------
        InvalidRequestError : the text cannot be followed any further within the limits of computation.
        """
        self._matcher.unsafe_compute_mask_ptr(row.data_ptr(), row.numel() * row.element_size())
        if self._matcher.is_error():
            raise InvalidRequestError(f"structured_output: {_reason(self._matcher.get_error())}")

    def accept(self, token_id: int) -> None:
        """Go on by a token that the mask allowed."""
        self._matcher.consume_token(token_id)

    @property
    def is_terminated(self) -> bool:
        """Whether the text is complete and nothing can follow."""
        return bool(self._matcher.is_stopped() and not self._matcher.is_error())


class GrammarCompiler:
    """Compiles the constraints of requests for one model; equal constraints are compiled once.

    Parameters
    ----------
    vocab_size : the model's, which may exceed the tokenizer's: ids that no token has are never allowed.
    eos_token_ids : tokens that end a complete text.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Iterable[int]) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._compiled = functools.lru_cache(maxsize=128)(self._compile)

    def compile(self, constraint: StructuredOutput) -> GrammarState:
        """A fresh state at the beginning of the text.

        Raises
        ------
        InvalidRequestError : the schema or expression is invalid, not supported, or too large.
        """
        try:
            if constraint.regex is not None:
                source = constraint.regex
                grammar = llguidance.LLMatcher.grammar_from_regex(source)
            else:
                source = json.dumps(constraint.json_schema, allow_nan=False)
                grammar = llguidance.LLMatcher.grammar_from_json_schema(
                    source, overrides={"whitespace_pattern": _JSON_WHITE_SPACE}
                )
        except (RecursionError, TypeError, ValueError) as error:
            raise InvalidRequestError(f"structured_output: {_reason(str(error))}") from error
        if len(source) > MAX_GRAMMAR_CHARACTERS:
            raise InvalidRequestError(
                f"structured_output has {len(source)} characters; the limit is {MAX_GRAMMAR_CHARACTERS}"
            )
        return GrammarState(self._compiled(grammar).deep_copy())

    def _compile(self, grammar: str) -> llguidance.LLMatcher:
        matcher = llguidance.LLMatcher(self._ll_tokenizer, grammar, log_level=0, limits=_LIMITS)
        if matcher.is_error():
            raise InvalidRequestError(f"structured_output: {_reason(matcher.get_error())}")
        return matcher

    @functools.cached_property
    def _ll_tokenizer(self) -> llguidance.LLTokenizer:
        """Built at the first use: for a large vocabulary it takes about a second."""
        tokenizer = self._tokenizer
        try:
            built = llguidance.LLTokenizer(
                tokenizer.backend.to_str(), n_vocab=self._vocab_size, eos_token=self._eos_token_ids
            )
        except ValueError as error:
            raise InvalidRequestError(
                f"structured_output is not possible with this model's tokenizer: {_reason(str(error))}"
            ) from error
        # llguidance takes some rarer kinds of tokens for other text than they decode to.
        probe = tokenizer.encode("once upon a time\né", add_special_tokens=False)
        if built.decode_bytes(probe) != b"".join(map(tokenizer.token_bytes, probe)):
            raise InvalidRequestError(
                "structured_output is not possible with this model's tokenizer: llguidance misreads its tokens"
            )
        return built


def _reason(message: str) -> str:
    """llguidance's message in one line, without positions in grammars that the user did not write."""
    first, *rest = message.split("\n")
    details = [line.removeprefix("error: ") for line in rest if line.startswith("error: ")]
    return " ".join([re.sub(r"^at \d+\(\d+\): ", "", first), *details])
