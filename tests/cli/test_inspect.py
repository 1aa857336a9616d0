"""``lapidist inspect`` as a user types it."""

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


def test_the_bundled_model(lapidist: Lapidist) -> None:
    result = lapidist("inspect", "tiny")
    assert result.returncode == 0
    assert "tiny: LlamaForCausalLM, not quantized" in result.stdout
    assert "output head (the embedding's)" in result.stdout
    assert "20,460,288" in result.stdout
    assert "16.000 bits per weight (9,043,968 weights)" in result.stdout
    assert "KV cache: 4,096 bytes per token; 1 GiB holds 262,144 tokens of context" in result.stdout


def test_a_quantized_one(lapidist: Lapidist, tmp_path: Path) -> None:
    """2 layers of 64 with 96 in the MLP, 4 heads and 2 KV heads of 16, float32, 320 tokens."""
    write_random_llama(tmp_path / "floats")
    out = tmp_path / "model"
    quantize_at_random(tmp_path / "floats", out, formats(GROUPS, activation_bits=8, kv_bits=4))
    layer = 64 * 64 * 2 + 2 * 32 * 64 + 3 * 96 * 64
    rows = 64 + 2 * 32 + 64 + 2 * 96 + 64
    result = lapidist("inspect", out)
    assert result.returncode == 0
    shown = result.stdout
    assert "model: LlamaForCausalLM, recipe random" in shown
    assert "weights 4 bits in groups of 128, output head float, activations 8 bits, KV cache 4 bits" in shown
    assert "KV cache: 88 bytes per token, unquantized 512 (5.82x); 1 GiB holds 12,201,611 tokens" in shown
    found = json.loads(lapidist("inspect", out, "--json").stdout)
    assert found["recipe"] == "random"
    assert found["weights"] == {"bits": 4, "group_size": 128}
    assert found["bytes"] == {
        "weights": 2 * layer // 2,
        "scales_and_zeros": 2 * rows * (2 + 1 + 1),
        "embedding": 320 * 64 * 4,
        "lm_head": 320 * 64 * 4,
        "norms": 5 * 64 * 4,
        "biases": 0,
        "other": 0,
        "total": layer + 8 * rows + 2 * 320 * 64 * 4 + 5 * 64 * 4,
    }
    assert found["linear_weights"] == 2 * layer
    assert found["bits_per_weight"] == pytest.approx(4 + 32 * rows / layer)
    assert found["kv_bytes_per_token"] == 2 * 2 * 2 * (16 * 4 // 8 + 3)
    assert found["float_kv_bytes_per_token"] == 2 * 2 * 2 * 16 * 4
    assert found["tokens_per_gib_of_kv_cache"] == 2**30 // 88


def test_a_mistake_is_one_sentence(lapidist: Lapidist, tmp_path: Path) -> None:
    result = lapidist("inspect", tmp_path / "absent")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "does not exist" in result.stderr
