"""``lapidist quantize`` as a user types it."""

from pathlib import Path

import pytest

from lapidist.models.config import ModelConfig
from lapidist.quantization.recipe import RECIPES, load_recipe
from tests.cli.command import Lapidist, command

FAST = ["--sequences", "4", "--length", "24"]


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


def test_makes_a_checkpoint_that_generates(lapidist: Lapidist, llama_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    result = lapidist("quantize", llama_directory, out, *FAST)
    assert result.returncode == 0, result.stderr
    assert "qoq-g128" in result.stdout
    quantization = ModelConfig.from_directory(out).quantization
    assert quantization == load_recipe("qoq-g128").formats
    result = lapidist("generate", out, "the cat", "--max-tokens", "4")
    assert result.returncode == 0, result.stderr


def test_takes_a_recipe_from_a_file_and_text_of_the_user(
    lapidist: Lapidist, llama_directory: Path, tmp_path: Path
) -> None:
    shown = lapidist("quantize", "--recipe", "kv4", "--show")
    recipe, text = tmp_path / "mine.yaml", tmp_path / "text.jsonl"
    recipe.write_text(shown.stdout.replace("name: kv4", "name: mine").replace("kv_cache: 4", "kv_cache: 8"))
    text.write_text('{"text": "the cat sat on the mat and the dog ran after the cat "}\n' * 20)
    out = tmp_path / "cut"
    result = lapidist("quantize", llama_directory, out, "--recipe", recipe, "--text", text, *FAST)
    assert result.returncode == 0, result.stderr
    quantization = ModelConfig.from_directory(out).quantization
    assert quantization is not None
    assert (quantization.recipe, quantization.kv_bits) == ("mine", 8)


def test_lists_all_recipes(lapidist: Lapidist) -> None:
    result = lapidist("quantize", "--list")
    assert result.returncode == 0
    for name in RECIPES:
        assert f" {name} " in result.stdout


def test_what_a_user_can_get_wrong(lapidist: Lapidist, llama_directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut"
    missing = tmp_path / "missing.txt"
    for arguments, problem in [
        ([], "name a checkpoint"),
        ([llama_directory], "name a checkpoint"),
        ([tmp_path / "none", out], "does not exist"),
        ([llama_directory, tmp_path], "exists already"),
        ([llama_directory, tmp_path / "no" / "cut"], "does not exist"),
        ([llama_directory, out, "--recipe", "qoq"], "unknown recipe"),
        ([llama_directory, out, "--recipe", tmp_path / "no.yaml"], "cannot be read"),
        ([llama_directory, out, "--text", missing], "cannot be read"),
        ([llama_directory, out, "--length", "1"], "calibration.length"),
        ([llama_directory, out, "--sequences", "many"], "sequences"),
    ]:
        result = lapidist("quantize", *arguments)
        assert result.returncode == 2, arguments
        assert problem in " ".join(result.stderr.split()), result.stderr
        assert "Traceback" not in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == []
