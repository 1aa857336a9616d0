"""A tokenizer for checkpoints of random weights: bytes in, and every id of a given vocabulary decodes."""

from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def byte_tokenizer(vocab_size: int, special_tokens: dict[int, str]) -> Tokenizer:
    """A byte-level BPE tokenizer without merges: text becomes one token per UTF-8 byte.

    The remaining ids, which encoding never yields, decode to " t" and their number, so that what a random
    model writes can be printed.

    Parameters
    ----------
    special_tokens : id -> text; skipped when decoding.

    Raises
    ------
    ValueError : the vocabulary cannot hold 256 bytes beside the special tokens.
    """
    if vocab_size < 256 + len(special_tokens) or not all(0 <= token < vocab_size for token in special_tokens):
        raise ValueError(
            f"a vocabulary of {vocab_size} tokens cannot hold 256 bytes and special tokens {special_tokens}"
        )
    byte_texts = iter(sorted(pre_tokenizers.ByteLevel.alphabet()))
    vocabulary = {
        special_tokens.get(token) or next(byte_texts, f"Ġt{token}"): token for token in range(vocab_size)
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in special_tokens.values()]
    )
    return tokenizer


def special_tokens(config: dict[str, Any]) -> dict[int, str]:
    """The special tokens that a ``config.json`` names, by id."""
    return {
        config[f"{role}_token_id"]: f"<|{role}|>"
        for role in ("pad", "bos", "eos")
        if config.get(f"{role}_token_id") is not None
    }


def tokenizer_config(config: dict[str, Any]) -> dict[str, Any]:
    """``tokenizer_config.json`` beside the tokenizer of :func:`byte_tokenizer`."""
    texts = special_tokens(config)
    named = {
        f"{role}_token": texts[config[f"{role}_token_id"]]
        for role in ("pad", "bos", "eos")
        if config.get(f"{role}_token_id") is not None
    }
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
        **named,
    }
