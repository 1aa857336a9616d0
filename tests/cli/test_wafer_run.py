import json
from pathlib import Path

import pytest

from tests.checkpoints import write_random_llama
from tests.cli.command import Lapidist, command


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    return command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_llama(tmp_path_factory.mktemp("wafer") / "llama")


def test_tokens_are_those_of_the_engine(lapidist: Lapidist, llama: Path) -> None:
    arguments = ("--prompt", "the cat sat", "--tokens", 12, "--prefill-grid", "8", "--decode-grid", "6x8")
    result = lapidist("wafer", "run", llama, *arguments, "--check", "--json")
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["same_as_cpu"] is True
    assert 1 <= len(found["token_ids"]) <= 12
    assert found["phases"]["prefill"]["layer"]["shifts"] == 9 * 8 + 3 * 8
    assert found["phases"]["decode"]["grid"] == "6x8"
    assert found["phases"]["decode"]["sent_bytes"] > 0
    assert sum(found["tokens_of_each_row"]) == found["prompt_tokens"] + len(found["token_ids"]) - 1


def test_the_table_names_both_phases(lapidist: Lapidist, llama: Path) -> None:
    result = lapidist("wafer", "run", llama, "--tokens", 2, "--prefill-grid", 8, "--decode-grid", 8)
    assert result.returncode == 0, result.stderr
    assert "prefill" in result.stdout
    assert "decode" in result.stdout
    assert "of a core" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--policy", "stack"), "unknown policy 'stack' of the KV cache; known are shift, concat"),
        (("--decode-grid", "2"), "decode layer on 2 x 2 cores needs"),
        (("--prefill-grid", "900"), "does not fit on Cerebras WSE-2"),
        (("--prefill-grid", "a"), "a grid is a side or rows x columns"),
        (("--device", "wse-9"), "no wafer device named 'wse-9'"),
        (("--context", "3", "--prompt", "the cat sat on the mat"), "a prompt has from 1 to 3 tokens here"),
    ],
)
def test_mistakes_end_in_one_sentence(
    lapidist: Lapidist, llama: Path, arguments: tuple[str, ...], message: str
) -> None:
    result = lapidist("wafer", "run", llama, *arguments)
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr
