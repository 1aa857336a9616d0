"""Text files of the user, good and bad."""

import re
from pathlib import Path

import pytest

from lapidist.models.calibration.text_files import read_texts


def test_text_and_lines_of_json(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Grüße\n\nzwei", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text('{"text": "one", "id": 1}\n\n{"text": "two\\nlines"}\n')
    assert read_texts([tmp_path / "a.txt", tmp_path / "b.jsonl"]) == ["Grüße\n\nzwei", "one", "two\nlines"]


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        ("a.txt", b"abc \xff", "a.txt is no UTF-8 text (byte 4)"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n', "a.jsonl, line 2 is not valid JSON"),
        ("a.jsonl", b'{"content": "a"}\n', 'a.jsonl, line 1 must be an object with a string "text"'),
        ("a.jsonl", b'["a"]\n', 'must be an object with a string "text"'),
        ("a.jsonl", b'{"text": 5}\n', 'must be an object with a string "text"'),
        ("absent.txt", None, "absent.txt cannot be read: No such file or directory"),
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
