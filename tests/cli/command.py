"""The ``lapidist`` command, run in the test's own process."""

import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from lapidist.cli.main import main


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


Lapidist = Callable[..., Result]


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Takes the arguments as they are typed after ``lapidist``."""
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")

    def run(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["lapidist", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        found = capsys.readouterr()
        return Result(int(ended.value.code or 0), found.out, found.err)

    return run
