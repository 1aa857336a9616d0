"""The text behind the model: which files, how much of each, and what is held out."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from lapidist.evaluation import haystack
from recipes.tiny.tokenizer import runtime_tokenizer

# Relative chance that a training row comes from a source. The reviews are half of all bytes but lower-case and crude,
# so they count for less than their size; the prose that reads best counts for more, but not so much that it is learnt
# by heart: 20 million tokens with WikiText at a quarter of the text took unseen text from 3.2 to 3.5 nats per token.
SOURCE_WEIGHTS = {
    "wikitext2_train": 0.8,
    "wikitext2_detokenized": 0.8,
    "state_union": 1.7,
    "masc_written": 2.4,
    "inaugural": 0.6,
    "masc_spoken": 0.4,
    "genesis_english": 0.12,
    "tinyshakespeare": 0.8,
    "udhr_multilingual": 0.1,
    "movie_reviews": 3.2,
}
HELD_OUT_FRACTION = 0.1
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class Source:
    """One body of training text as token ids, with the positions just after each sentence's end."""

    name: str
    tokens: np.ndarray  # [tokens], uint16
    sentence_starts: np.ndarray  # [sentences], int64, ascending
    weight: float


def read_text(data: Path, name: str) -> str:
    """The text of `name`.txt.gz under `data`; FileNotFoundError says what to do if it is absent."""
    path = data / f"{name}.txt.gz"
    if not path.is_file():
        raise FileNotFoundError(
            f"no training text at {path}; point --data at the folder holding {name}.txt.gz"
        )
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return file.read()


def split_wikitext(text: str) -> tuple[str, str]:
    """(training part, held-out tail): the tail starts with the first article of the last 10 % of bytes."""
    raw = text.encode("utf-8")
    earliest = int(len(raw) * (1 - HELD_OUT_FRACTION))
    article = re.compile(rb"^ = [^=].* = $", re.MULTILINE).search(raw, earliest)
    boundary = article.start() if article else raw.index(b"\n", earliest) + 1
    return raw[:boundary].decode("utf-8"), raw[boundary:].decode("utf-8")


def detokenize(text: str) -> str:
    """WikiText's spaced-out tokens as ordinary prose: `film , 1 @,@ 000 's` becomes `film, 1,000's`."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r" ([,.;:!?)\]%])", r"\1", text)
    text = re.sub(r"([(\[$£]) ", r"\1", text)
    text = re.sub(r" '(s|t|re|ve|ll|d|m)\b", r"'\1", text)
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r" n't\b", "n't", text)
    return re.sub(r"^ | $", "", text, flags=re.MULTILINE)


def without_unknowns(text: str) -> str:
    """`text` less the sentences in which WikiText replaced a rare word by `<unk>`."""
    lines = (re.split(r"(?<=[.!?]) ", line) for line in text.splitlines())
    kept = (" ".join(sentence for sentence in line if "<unk>" not in sentence) for line in lines)
    return "\n".join(kept)


def training_texts(data: Path) -> dict[str, str]:
    """Every training text by source name. WikiText appears twice, as published and as ordinary prose."""
    texts = {}
    wiki, _ = split_wikitext(read_text(data, "wikitext2_valid"))
    for name in SOURCE_WEIGHTS:
        if name == "wikitext2_train":
            texts[name] = wiki
        elif name == "wikitext2_detokenized":
            texts[name] = without_unknowns(detokenize(wiki))
        else:
            texts[name] = read_text(data, name)
    return texts


def chunks(text: str, size: int = CHUNK_BYTES) -> Iterator[str]:
    """`text` in pieces of about `size` characters, cut after line ends, losing nothing."""
    start = 0
    while start < len(text):
        end = text.find("\n", start + size)
        end = len(text) if end < 0 else end + 1
        yield text[start:end]
        start = end


def sentence_starts(tokens: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Positions [sentences] that follow a full stop (or ! or ?) and begin with a space or a line end."""
    return haystack.sentence_starts(tokens, runtime_tokenizer(tokenizer))


def load_sources(data: Path, tokenizer: Tokenizer) -> list[Source]:
    """Tokenize every training text (about ten seconds)."""
    sources = []
    for name, text in training_texts(data).items():
        encodings = tokenizer.encode_batch(list(chunks(text)), add_special_tokens=False)
        tokens = np.concatenate([np.asarray(encoding.ids, dtype=np.uint16) for encoding in encodings])
        sources.append(Source(name, tokens, sentence_starts(tokens, tokenizer), SOURCE_WEIGHTS[name]))
    return sources
