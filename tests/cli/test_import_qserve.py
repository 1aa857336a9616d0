"""``lapidist import-qserve`` as a user types it."""

import json
from pathlib import Path

import pytest
import torch

from tests.cli.command import Lapidist, command
from tests.quantization.qserve_checkpoints import qserve_llama


@pytest.fixture
def lapidist(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Lapidist:
    """Runs the ``lapidist`` command in this process."""
    return command(monkeypatch, capsys)


def test_in_comes_a_checkpoint(lapidist: Lapidist, tmp_path: Path) -> None:
    tensors, _ = qserve_llama(tmp_path / "qserve", is_grouped=True)
    torch.save(tensors, tmp_path / "qserve" / "pytorch_model.bin")
    result = lapidist("import-qserve", tmp_path / "qserve", tmp_path / "out", "--kv-bits", "8")
    assert result.returncode == 0, result.stderr
    shown = result.stdout.replace("\n", " ")
    assert "recipe qserve-g128, weights 4 bits in groups of 128, KV cache 8 bits" in shown
    found = json.loads(lapidist("inspect", tmp_path / "out", "--json").stdout)
    assert found["kv_bits"] == found["activation_bits"] == 8
    # All inputs are 128 wide, but those of down_proj, a quarter of the weights of a layer, 256.
    assert found["bits_per_weight"] == pytest.approx(4 + 16 / 128 + 16 * (3 / 128 + 1 / 256) / 4, rel=0.01)


def test_a_mistake_is_one_sentence(lapidist: Lapidist, llama_directory: Path, tmp_path: Path) -> None:
    for source in (llama_directory, tmp_path / "absent"):
        result = lapidist("import-qserve", source, tmp_path / "out")
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1
        assert result.stderr.startswith("error: ")
        assert not (tmp_path / "out").exists()
