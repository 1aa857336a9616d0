"""Text to measure a model on: files to documents to tokens, each with the bytes that it stands for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lapidist.models.calibration.token_sequences import opening_tokens
from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenizedText:
    """Text as one stream of tokens.

    Attributes
    ----------
    opening : the beginning-of-text token if the tokenizer sets one, as in a prompt; else nothing.
    token_ids : of the text alone.
    byte_counts : bytes of UTF-8 of each token. A token may be a part of a character; together they are the text.
    """

    opening: tuple[int, ...]
    token_ids: list[int]
    byte_counts: list[int]


def joined(texts: Iterable[str]) -> str:
    """The documents as one text, with two line ends between them: so papers join the parts of WikiText."""
    return "\n\n".join(texts)


def tokenize(
    tokenizer: Tokenizer, texts: Sequence[str], vocab_size: int, max_tokens: int | None = None
) -> TokenizedText:
    """The documents, ``joined`` and tokenized as one text; of it the first ``max_tokens`` tokens.

    Raises
    ------
    ValueError : there are fewer than two tokens.
    CheckpointError : the tokenizer is not that of a model with ``vocab_size``.
    """
    token_ids = tokenizer.encode(joined(texts), add_special_tokens=False)[:max_tokens]
    if len(token_ids) < 2:
        raise ValueError("the text has fewer than 2 tokens: there is nothing to predict")
    distinct = set(token_ids)
    if max(distinct) >= vocab_size:
        raise CheckpointError(
            f"tokenizer.json gives token id {max(distinct)}, and the model has {vocab_size}: it is another model's"
        )
    size = {token_id: len(tokenizer.token_bytes(token_id)) for token_id in distinct}
    return TokenizedText(
        tuple(opening_tokens(tokenizer)), token_ids, [size[token_id] for token_id in token_ids]
    )
