"""``generate`` and ``chat`` as a user types them, on a small checkpoint."""

import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from lapidist import LLM, SamplingParams
from lapidist.cli.main import main


@dataclass
class Result:
    returncode: int
    stdout: str
    stderr: str


class Lapidist:
    """Runs the ``lapidist`` command in this process, which spares importing PyTorch every time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *args: object, text: str = "") -> Result:
        self._monkeypatch.setattr(sys, "argv", ["lapidist", *map(str, args)])
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        with pytest.raises(SystemExit) as ended:
            main()
        found = self._capsys.readouterr()
        return Result(int(ended.value.code or 0), found.out, found.err)


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return Lapidist(monkeypatch, capsys)


def test_command_as_a_process(llama_directory: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "lapidist.cli.main",
        "generate",
        str(llama_directory),
        "the cat",
        "--top-p",
        "7",
    ]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert found.returncode == 2
    assert found.stderr.startswith("error: top_p must be")
    assert len(found.stderr.splitlines()) == 1


def test_generate_prints_the_text_of_the_python_api(lapidist: Lapidist, llama_directory: Path) -> None:
    params = SamplingParams(temperature=0, max_tokens=12)
    expected = LLM(llama_directory).generate("the cat", params)[0].outputs[0].text
    result = lapidist("generate", llama_directory, "the cat", "--max-tokens", 12, "--temperature", 0)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == expected + "\n"
    piped = lapidist("generate", llama_directory, "-", "--max-tokens", 12, "--temperature", 0, text="the cat")
    assert piped.stdout == result.stdout


def test_generate_json_and_record(lapidist: Lapidist, llama_directory: Path, tmp_path: Path) -> None:
    record = tmp_path / "steps.jsonl"
    result = lapidist(
        "generate",
        llama_directory,
        "the cat",
        "-n",
        2,
        "--seed",
        1,
        "--max-tokens",
        5,
        "--json",
        "--record",
        record,
    )
    found = json.loads(result.stdout)
    assert found["finished"] is True
    assert len(found["outputs"]) == 2
    assert len(record.read_text().splitlines()) >= 5


def test_generate_follows_a_regex(lapidist: Lapidist, llama_directory: Path) -> None:
    result = lapidist("generate", llama_directory, "x", "--regex", "(yes|no)!", "--seed", 3)
    assert result.stdout in ("yes!\n", "no!\n")


def test_chat_answers_and_ends(lapidist: Lapidist, llama_directory: Path) -> None:
    lines = "hello\n\n/clear\nhello\n/exit\n"
    result = lapidist(
        "chat", llama_directory, "--temperature", 0, "--max-tokens", 6, "--system", "be brief", text=lines
    )
    assert result.returncode == 0, result.stderr
    first, *_, second, end = result.stdout.split("> ")[1:]
    assert first.strip()
    assert first == second, "after /clear the same question has the same answer"
    assert end == ""
    assert lapidist("chat", llama_directory, text="").returncode == 0


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["generate", "no/such/place", "hi"], "no/such/place"),
        (["generate", "MODEL", "hi", "--dtype", "float8"], "dtype"),
        (["generate", "MODEL", "hi", "--max-model-len", "100000000"], "max_model_len"),
        (["generate", "MODEL", "the cat " * 600], "maximum length of 512"),
        (["generate", "MODEL", "hi", "--regex", "(unclosed"], "regex"),
        (["generate", "MODEL", "hi", "--top-p", "7"], "top_p"),
        (["generate", "MODEL", "hi", "--device", "abacus"], "abacus"),
        (["generate", "MODEL", "hi", "--record", "no/such/folder/steps.jsonl"], "no/such/folder"),
        (["generate", "MODEL", "hi", "--max-tokens", "0"], "max-tokens"),
        (["chat", "no/such/place"], "no/such/place"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(
    lapidist: Lapidist, llama_directory: Path, args: list[str], message: str
) -> None:
    result = lapidist(*[str(llama_directory) if arg == "MODEL" else arg for arg in args])
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert message in result.stderr


@pytest.mark.parametrize(
    "command", [[], ["serve"], ["generate"], ["chat"], ["make-checkpoint"], ["bench", "serve"], ["demo"]]
)
def test_help_explains_every_command(lapidist: Lapidist, command: list[str]) -> None:
    result = lapidist(*command, "--help")
    assert result.returncode == 0
    assert "Usage" in result.stdout
    assert not command or "Example" in result.stdout
