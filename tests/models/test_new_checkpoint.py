import os
from pathlib import Path

import pytest

from lapidist.models.errors import CheckpointError
from lapidist.models.new_checkpoint import copy_companions, new_checkpoint


def test_it_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_checkpoint(out) as folder:
        (folder / "config.json").write_text("{}")
        assert not out.exists()
    assert (out / "config.json").read_text() == "{}"
    assert os.listdir(tmp_path) == ["out"]


def write_and_fail(out: Path, error: Exception) -> None:
    with new_checkpoint(out) as folder:
        (folder / "config.json").write_text("{}")
        raise error


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / "out", ZeroDivisionError())
    with pytest.raises(CheckpointError, match=r"out: cannot be written \(No space left on device\)"):
        write_and_fail(tmp_path / "out", OSError(28, "No space left on device"))
    assert os.listdir(tmp_path) == []


def test_what_exists_stays(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="exists already"), new_checkpoint(tmp_path):
        pass
    with pytest.raises(CheckpointError, match="does not exist"), new_checkpoint(tmp_path / "a" / "b"):
        pass


def test_companions_are_all_but_weights_and_config(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    kept = {"tokenizer.json", "tokenizer.model", "generation_config.json", "README.md", "chat_template.jinja"}
    left = {"config.json", "model.safetensors", "pytorch_model.bin", "quant_model.pt", ".hidden"}
    left |= {"model.safetensors.index.json", "pytorch_model.bin.index.json", "model.gguf"}
    for name in kept | left:
        (source / name).write_text(name)
    (source / "folder").mkdir()
    copy_companions(source, target)
    assert {file.name: file.read_text() for file in target.iterdir()} == {name: name for name in kept}
