from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lapidist.cli.make_checkpoint import make_checkpoint
from lapidist.models.shapes import SHAPES

app = typer.Typer()
app.command()(make_checkpoint)


def test_list_shows_every_shape() -> None:
    result = CliRunner().invoke(app, ["--list"])
    assert result.exit_code == 0
    assert all(name in result.output for name in SHAPES)


def test_writes_a_shortened_shape(tmp_path: Path) -> None:
    out = tmp_path / "model"
    result = CliRunner().invoke(
        app, ["--like", "qwen2.5-0.5b", "--layers", "1", "--max-shard-gb", "0.2", str(out)]
    )
    assert result.exit_code == 0, result.output
    assert "1 layer," in result.output
    assert len(list(out.glob("*.safetensors"))) == 2


def test_missing_arguments_are_explained(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path / "model")])
    assert result.exit_code == 2
    assert "--like" in result.output


def test_an_unknown_shape_is_a_value_error(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--like", "lama-3-8b", str(tmp_path / "model")])
    assert isinstance(result.exception, ValueError)
    with pytest.raises(ValueError, match="did you mean llama-3-8b"):
        raise result.exception
