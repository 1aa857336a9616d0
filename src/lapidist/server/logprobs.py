"""The engine's log-probabilities in the two shapes of the OpenAI API."""

from collections.abc import Sequence
from typing import Any

from lapidist.engine.outputs import Logprob, TokenLogprobs
from lapidist.models.tokenizer import Tokenizer

# JSON has no infinity; this is what the OpenAI API writes for a token that cannot come.
_LOWEST = -9999.0


def chat_logprobs(
    token_ids: Sequence[int], entries: Sequence[TokenLogprobs], top: int, tokenizer: Tokenizer
) -> dict[str, Any]:
    """``logprobs`` of a chat choice: each token with its ``top`` likeliest alternatives."""

    def describe(token_id: int, found: Logprob) -> dict[str, Any]:
        return {
            "token": found.decoded_token,
            "logprob": max(found.logprob, _LOWEST),
            "bytes": list(tokenizer.token_bytes(token_id)),
        }

    content = [
        describe(token_id, entry[token_id])
        | {"top_logprobs": [describe(other, found) for other, found in _by_rank(entry) if found.rank <= top]}
        for token_id, entry in zip(token_ids, entries, strict=True)
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    token_ids: Sequence[int],
    entries: Sequence[TokenLogprobs | None],
    tokenizer: Tokenizer,
    text_offset: int = 0,
) -> dict[str, Any]:
    """``logprobs`` of a text completion. An entry that is None is the first prompt token's.

    Parameters
    ----------
    text_offset : where in the choice's text the first token begins, in characters.
    """
    tokens: list[str] = []
    chosen: list[float | None] = []
    alternatives: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for token_id, entry in zip(token_ids, entries, strict=True):
        if entry is None:
            tokens.append(tokenizer.decode([token_id], skip_special_tokens=False))
            chosen.append(None)
            alternatives.append(None)
        else:
            tokens.append(entry[token_id].decoded_token)
            chosen.append(max(entry[token_id].logprob, _LOWEST))
            # Different tokens can read the same (parts of characters); the likeliest one speaks for them.
            by_text: dict[str, float] = {}
            for _, found in _by_rank(entry):
                by_text.setdefault(found.decoded_token, max(found.logprob, _LOWEST))
            alternatives.append(by_text)
        offsets.append(text_offset)
        text_offset += len(tokens[-1])
    return {"tokens": tokens, "token_logprobs": chosen, "top_logprobs": alternatives, "text_offset": offsets}


def _by_rank(entry: TokenLogprobs) -> list[tuple[int, Logprob]]:
    return sorted(entry.items(), key=lambda item: item[1].rank)
