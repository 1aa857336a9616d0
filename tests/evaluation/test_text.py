"""Text files, packed or not, and the tokens and bytes that they come to."""

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.bundled import TINY
from lapidist.evaluation.text import read_text_files, tokenize
from lapidist.models.errors import CheckpointError
from lapidist.models.tokenizer import Tokenizer

TOKENIZER = Tokenizer.from_directory(TINY)
VOCAB_SIZE = 3072


def test_packed_files_are_what_they_were_packed_from(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Grüße\n\nzwei", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("Grüße\n\nzwei".encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    files = [tmp_path / name for name in ("a.txt", "a.txt.gz", "b.jsonl.gz")]
    assert read_text_files(files) == ["Grüße\n\nzwei", "Grüße\n\nzwei", "one", "two"]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt.gz", b"plain", "a.txt.gz cannot be read: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"some text" * 99)[:-9], "a.txt.gz cannot be read: Compressed file ended"),
        ("a.txt.gz", gzip.compress(b"\xff"), "a.txt.gz is no UTF-8 text (byte 0)"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n{}'), "a.jsonl.gz, line 2 must be an object"),
        ("absent.txt.gz", None, "absent.txt.gz cannot be read: No such file or directory"),
        ("absent.txt", None, "absent.txt cannot be read: No such file or directory"),
    ],
)
def test_a_bad_file_is_named(name: str, contents: bytes | None, message: str, tmp_path: Path) -> None:
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / message}")) as caught:
        read_text_files([tmp_path / name])
    assert "\n" not in str(caught.value)


@given(st.lists(st.text(min_size=1), min_size=2, max_size=4))
def test_bytes_of_tokens_add_up_to_the_text(texts: list[str]) -> None:
    text = tokenize(TOKENIZER, texts, VOCAB_SIZE)
    assert sum(text.byte_counts) == len("\n\n".join(texts).encode())
    assert len(text.byte_counts) == len(text.token_ids)


def test_the_text_is_tokenized_as_one() -> None:
    text = tokenize(TOKENIZER, ["The king", "and the queen"], VOCAB_SIZE)
    assert text.token_ids == TOKENIZER.encode("The king\n\nand the queen", add_special_tokens=False)
    assert text.opening == (TOKENIZER.bos_token_id,)


def test_only_the_beginning_is_taken() -> None:
    whole = tokenize(TOKENIZER, ["The king and the queen of all the land"], VOCAB_SIZE)
    part = tokenize(TOKENIZER, ["The king and the queen of all the land"], VOCAB_SIZE, max_tokens=3)
    assert (part.token_ids, part.byte_counts) == (whole.token_ids[:3], whole.byte_counts[:3])


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_too_little_text(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="fewer than 2 tokens: there is nothing to predict"):
        tokenize(TOKENIZER, texts, VOCAB_SIZE)


def test_the_tokenizer_of_another_model() -> None:
    with pytest.raises(CheckpointError, match="and the model has 50: it is another model's"):
        tokenize(TOKENIZER, ["The king and the queen"], 50)
