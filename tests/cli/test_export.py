"""``lapidist export`` as a user types it."""

import json
from pathlib import Path

import pytest

from tests.checkpoints import write_random_llama
from tests.cli.command import Lapidist, command
from tests.quantized_checkpoints import GROUPS, formats, quantize_at_random


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


def test_out_come_floats(lapidist: Lapidist, tmp_path: Path) -> None:
    write_random_llama(tmp_path / "floats")
    quantize_at_random(tmp_path / "floats", tmp_path / "model", formats(GROUPS))
    result = lapidist("export", tmp_path / "model", tmp_path / "out", "--dtype", "float16")
    assert result.returncode == 0, result.stderr
    assert result.stdout.replace("\n", "").endswith("0.00 GB in float16")
    found = json.loads(lapidist("inspect", tmp_path / "out", "--json").stdout)
    assert found["recipe"] is None
    assert found["bits_per_weight"] == 16


def test_a_mistake_is_one_sentence(lapidist: Lapidist, tmp_path: Path) -> None:
    result = lapidist("export", "tiny", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "is not quantized" in result.stderr


def test_help_says_what_other_programs_leave_out(lapidist: Lapidist) -> None:
    assert "other programs compute them in floats" in " ".join(lapidist("export", "--help").stdout.split())
