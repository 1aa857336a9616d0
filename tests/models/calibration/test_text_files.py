"""Text files of the user, good and bad."""

import gzip
import re
from pathlib import Path

import pytest

from lapidist.models.calibration.text_files import read_texts


def test_text_and_lines_of_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Grüße\n\nzwei", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "one", "id": 1}\n\n{"text": "two\\nlines"}\n')
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["Grüße\n\nzwei", "one", "two\nlines"]


def test_packed_files_are_what_they_were_packed_from(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Grüße\n\nzwei", encoding="utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("Grüße\n\nzwei".encode()))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text": "two"}\n'))
    files = [tmp_path / name for name in ("a.txt", "a.txt.gz", "b.jsonl.gz")]
    assert read_texts(files) == ["Grüße\n\nzwei", "Grüße\n\nzwei", "one", "two"]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt", b"abc \xff", "a.txt is no UTF-8 text (byte 4)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2 is not valid JSON"),
        ("a.jsonl", b'{"content": "a"}\n', 'a.jsonl, line 1 must be an object with a string "text"'),
        ("a.jsonl", b'["a"]\n', 'must be an object with a string "text"'),
        ("a.jsonl", b'{"text": 5}\n', 'must be an object with a string "text"'),
        ("absent.txt", None, "absent.txt cannot be read: No such file or directory"),
        ("a.txt.gz", b"plain", "a.txt.gz cannot be read: Not a gzipped file"),
        ("a.txt.gz", gzip.compress(b"some text" * 99)[:-9], "a.txt.gz cannot be read: Compressed file ended"),
        ("a.txt.gz", gzip.compress(b"\xff"), "a.txt.gz is no UTF-8 text (byte 0)"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n{}'), "a.jsonl.gz, line 2 must be an object"),
        ("absent.txt.gz", None, "absent.txt.gz cannot be read: No such file or directory"),
        ("folder", None, "folder cannot be read: Is a directory"),
    ],
)
def test_a_bad_file_is_named(name: str, contents: bytes | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    if contents is not None:
        (tmp_path / name).write_bytes(contents)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        read_texts([tmp_path / name])
    assert "\n" not in str(caught.value)
