"""Speed: it is measured, for each checkpoint. How fast they are depends on the machine."""

import json
import shutil
from dataclasses import astuple
from pathlib import Path

import pytest

from lapidist.evaluation.speed import measure_speeds
from tests.checkpoints import write_random_llama


def test_checkpoints_of_different_contexts(llama_directory: Path, tmp_path: Path) -> None:
    short = write_random_llama(tmp_path / "short", context=48, layers=1)
    told: list[tuple[int, int]] = []
    speeds = measure_speeds(
        [llama_directory, short], rounds=2, progress=lambda done, total: told.append((done, total))
    )
    assert len(speeds) == 2
    assert all(value > 0 for speed in speeds for value in astuple(speed))
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_a_context_too_short_to_measure(llama_directory: Path, tmp_path: Path) -> None:
    directory = shutil.copytree(llama_directory, tmp_path / "llama")
    config = json.loads((directory / "config.json").read_text()) | {"max_position_embeddings": 16}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="has a context of 16 tokens: at least 32 are needed"):
        measure_speeds([directory])
