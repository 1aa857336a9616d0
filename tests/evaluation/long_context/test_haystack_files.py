"""Which text needles are hidden in."""

import gzip
import json
from pathlib import Path

import pytest

from lapidist.bundled import TINY
from lapidist.evaluation.long_context.haystack_files import read_haystack
from lapidist.models.tokenizer import Tokenizer


def test_files_of_a_folder_are_read_by_name(tmp_path: Path) -> None:
    for name in ("c.txt", "a.txt", "b.txt"):
        (tmp_path / name).write_text(f"Text {name}.")
    (tmp_path / "d.jsonl").write_text(json.dumps({"text": "Line."}))
    (tmp_path / "e.txt.gz").write_bytes(gzip.compress(b"Packed."))
    (tmp_path / "notes.md").write_text("Not read.")
    expected = ["Text a.txt.", "Text b.txt.", "Text c.txt.", "Line.", "Packed."]
    assert read_haystack(tmp_path, 10) == expected
    assert read_haystack(tmp_path / "e.txt.gz", 10) == ["Packed."]


def test_generated_prose_is_long_enough() -> None:
    for tokens in (100, 5000):
        assert len(Tokenizer.from_directory(TINY).encode("".join(read_haystack(None, tokens)))) > tokens


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="absent does not exist"):
        read_haystack(tmp_path / "absent", 10)
    with pytest.raises(ValueError, match=r"has no \.txt, \.jsonl, \.gz files"):
        read_haystack(tmp_path, 10)
    (tmp_path / "a.txt").write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"a\.txt is no UTF-8 text"):
        read_haystack(tmp_path, 10)
