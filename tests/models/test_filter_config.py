"""The section ``prompt_filter`` of a checkpoint's ``config.json``."""

import json
from pathlib import Path
from typing import Any

import pytest

from lapidist.models.calibration.checkpoint_files import copy_checkpoint, write_filter
from lapidist.models.config import ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.filter_config import AdaptivePolicy, FilterDefaults, GemFilterPolicy
from tests.checkpoints import write_random_llama


def test_written_and_read(tmp_path: Path) -> None:
    directory = write_random_llama(tmp_path / "m")
    before = json.loads((directory / "config.json").read_text())
    assert ModelConfig.from_directory(directory).prompt_filter is None
    assert write_filter(directory, FilterDefaults(1, 0.1)) == directory / "config.json"
    assert ModelConfig.from_directory(directory).prompt_filter == FilterDefaults(1, 0.1)
    whole = FilterDefaults(1, 0.1, GemFilterPolicy(softmax=True, pool=13), AdaptivePolicy(mass=0.7))
    write_filter(directory, whole)
    assert ModelConfig.from_directory(directory).prompt_filter == whole
    write_filter(directory, FilterDefaults(0, 0.5))
    after = json.loads((directory / "config.json").read_text())
    assert after.pop("prompt_filter") == {"layer": 0, "keep": 0.5}
    assert after == before
    assert not [file for file in directory.iterdir() if file.name.startswith(".")]


def test_a_copy_shares_the_weights(tmp_path: Path) -> None:
    directory = write_random_llama(tmp_path / "m")
    copy_checkpoint(directory, tmp_path / "copy", FilterDefaults(1, 0.1))
    assert ModelConfig.from_directory(tmp_path / "copy").prompt_filter == FilterDefaults(1, 0.1)
    assert ModelConfig.from_directory(directory).prompt_filter is None
    assert (tmp_path / "copy" / "model.safetensors").samefile(directory / "model.safetensors")


@pytest.mark.parametrize(
    ("section", "named"),
    [
        ({"layer": 2, "keep": 0.1}, "layer"),
        ({"layer": -1, "keep": 0.1}, "layer"),
        ({"layer": 1}, "keep"),
        ({"layer": 1, "keep": 0}, "keep"),
        ({"layer": 1, "keep": 1.5}, "keep"),
        ({"layer": "1", "keep": 0.5}, "layer"),
        ("gemfilter", "prompt_filter"),
        ({"layer": 1, "keep": 0.5, "gemfilter": 3}, "gemfilter"),
        ({"layer": 1, "keep": 0.5, "gemfilter": {"pool": 4}}, "gemfilter.pool"),
        ({"layer": 1, "keep": 0.5, "gemfilter": {"softmax": 1}}, "gemfilter.softmax"),
        ({"layer": 1, "keep": 0.5, "gemfilter": {"window": 0}}, "gemfilter.window"),
        ({"layer": 1, "keep": 0.5, "adaptive": {"mass": 1.5}}, "adaptive.mass"),
        ({"layer": 1, "keep": 0.5, "adaptive": {"least": "all"}}, "adaptive.least"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, section: Any, named: str) -> None:
    directory = write_random_llama(tmp_path / "m")
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"prompt_filter": section}))
    with pytest.raises(CheckpointError, match=named) as raised:
        ModelConfig.from_directory(directory)
    assert "config.json" in str(raised.value)


def test_nothing_is_written_into_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        write_filter(tmp_path, FilterDefaults(1, 0.1))
    assert not list(tmp_path.iterdir())
