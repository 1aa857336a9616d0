"""Tokenizers of every kind that checkpoints ship, trained on the spot, written as checkpoints have them."""

import functools
import json
import tempfile
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXT = [
    "The quick brown fox jumps over the lazy dog. It's 7 o'clock, isn't it?  Two  spaces\tand a tab.",
    "def add(a, b):\n    return a + b  # 12345 + 67890\n\n\nclass Fox:\n    pass\n",
    "Größe, façade, naïve, señor, Ελλάδα, Привет мир, שלום, 你好世界, こんにちは, 안녕하세요.",
    'Emoji: 😀 👩‍👩‍👧 🇩🇪; symbols: ∑ ≤ ∞ — “quoted” … {"key": [1, 2.5e-3, null, true]}',
    "Once upon a time there was a little stone cutter who cut stones so that they fit the wall.",
] * 4
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<|user|>"]

TOKENIZER_KINDS = ("byte_level", "llama3", "llama2", "llama2_resaved", "gemma", "metaspace", "unigram")


def _special_tokens() -> list[AddedToken]:
    return [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]


def _train_unigram() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=300, special_tokens=_special_tokens(), unk_token="<unk>")
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _train_byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=_special_tokens(), initial_alphabet=alphabet)
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _train_byte_fallback(kind: str) -> Tokenizer:
    """Only ASCII text is trained on, so that other characters fall back to bytes."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    if kind == "llama2":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    elif kind == "llama2_resaved":  # as transformers 5 writes it
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    elif kind == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", "▁")
        parts.pop()
    elif kind == "metaspace":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        parts = [decoders.ByteFallback(), decoders.Metaspace()]
    tokenizer.decoder = decoders.Sequence(parts)
    specials = _special_tokens()
    byte_tokens = [AddedToken(f"<0x{byte:02X}>", special=False, normalized=False) for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*specials, *byte_tokens])
    tokenizer.train_from_iterator([line.encode("ascii", "ignore").decode() for line in TEXT], trainer)
    # The byte tokens belong to the vocabulary alone: as added tokens they would match text like "<0x41>".
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = description["added_tokens"][: len(specials)]
    return Tokenizer.from_str(json.dumps(description))


def _train(kind: str) -> Tokenizer:
    if kind == "unigram":
        tokenizer = _train_unigram()
    elif kind in ("byte_level", "llama3"):
        tokenizer = _train_byte_level()
    else:
        tokenizer = _train_byte_fallback(kind)
    # Ordinary added tokens; a byte-level decoder takes the first for bytes, but not the second.
    tokenizer.add_tokens([AddedToken("é!", normalized=False), AddedToken("two words", lstrip=True)])
    if kind not in ("byte_level", "unigram"):
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return tokenizer


@functools.cache
def tokenizer_directory(kind: str) -> Path:
    """A directory with ``tokenizer.json`` and ``tokenizer_config.json``; copy it before changing anything."""
    directory = Path(_TEMPORARY.name) / kind
    directory.mkdir()
    _train(kind).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": {"__type": "AddedToken", "content": "</s>", "lstrip": False, "normalized": False},
        "unk_token": "<unk>",
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


_TEMPORARY = tempfile.TemporaryDirectory()
