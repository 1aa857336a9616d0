from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lapidist.bundled import TINY
from lapidist.models.checkpoint_parts import CheckpointParts, checkpoint_parts, kv_bytes_per_token
from lapidist.models.config import ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.quantization_config import FLOAT, QuantizationConfig
from lapidist.models.random_checkpoint import write_random_checkpoint
from lapidist.models.shapes import shape_config
from tests.family_checkpoints import VARIANTS, build, save
from tests.quantized_checkpoints import (
    CHANNELS,
    EIGHT_BITS,
    GROUPS,
    edit_config,
    edit_tensors,
    formats,
    quantize_at_random,
)

Q_PROJ = "model.layers.1.self_attn.q_proj"


def write(directory: Path, name: str = "llama", **options: Any) -> Path:
    variant = VARIANTS[name]
    return save(build(replace(variant, options=variant.options | options), seed=3), directory)


def tensor_bytes(directory: Path) -> int:
    return sum(
        tensor.nbytes for file in directory.glob("*.safetensors") for tensor in load_file(file).values()
    )


def test_the_bundled_model_by_hand() -> None:
    """384 wide, 8 layers, 6 heads and 2 KV heads of 64, 640 in the MLP, 3072 tokens, bfloat16, tied head."""
    found = checkpoint_parts(TINY)
    layer = 384 * 384 + 2 * 128 * 384 + 384 * 384 + 3 * 640 * 384
    assert layer == 1_130_496
    assert found.byte_counts == {
        "weights": 2 * 8 * layer,
        "scales_and_zeros": 0,
        "embedding": 2 * 3072 * 384,
        "lm_head": 0,
        "norms": 2 * (2 * 8 + 1) * 384,
        "biases": 0,
        "other": 0,
    }
    assert found.total == 20_460_288
    assert found.num_weights == 8 * layer
    assert found.bits_per_weight == 16
    assert found.kv_bytes_per_token == found.float_kv_bytes_per_token == 2 * 8 * 2 * 64 * 2 == 4096
    assert found.quantization.weights == FLOAT


@pytest.mark.parametrize("name", [name for name in VARIANTS if "-" not in name] + ["gemma2-biases"])
def test_every_family(name: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "float", name)
    found = checkpoint_parts(directory)
    tensors = load_file(directory / "model.safetensors")
    byte_counts = found.byte_counts
    assert found.total == tensor_bytes(directory)
    assert byte_counts["biases"] == sum(it.nbytes for key, it in tensors.items() if key.endswith("bias"))
    assert byte_counts["norms"] == sum(it.nbytes for key, it in tensors.items() if "norm" in key)
    assert byte_counts["embedding"] == tensors["model.embed_tokens.weight"].nbytes
    assert (byte_counts["lm_head"] > 0) == ("lm_head.weight" in tensors)
    assert found.bits_per_weight == 32
    assert byte_counts["scales_and_zeros"] == byte_counts["other"] == 0
    weights = quantize_at_random(directory, tmp_path / "quantized", formats(GROUPS))
    quantized = checkpoint_parts(tmp_path / "quantized")
    assert quantized.total == tensor_bytes(tmp_path / "quantized")
    assert quantized.num_weights == found.num_weights
    assert quantized.byte_counts["weights"] == sum(weight.codes.nbytes for weight in weights.values())
    parameters = sum(weight.byte_count - weight.codes.nbytes for weight in weights.values())
    assert quantized.byte_counts["scales_and_zeros"] == parameters
    for part in ("embedding", "lm_head", "norms", "biases", "other"):
        assert quantized.byte_counts[part] == byte_counts[part]


@pytest.mark.parametrize("head", [FLOAT, CHANNELS, GROUPS, EIGHT_BITS], ids=str)
@pytest.mark.parametrize("form", [CHANNELS, GROUPS, EIGHT_BITS], ids=str)
def test_a_head_has_its_own_line(form: Any, head: Any, tmp_path: Path) -> None:
    weights = quantize_at_random(write(tmp_path / "float"), tmp_path / "out", formats(form, head))
    found = checkpoint_parts(tmp_path / "out")
    floats = 131 * 48 * 4
    lm_head = weights["lm_head.weight"].byte_count if head != FLOAT else floats
    assert found.byte_counts["lm_head"] == lm_head
    assert found.byte_counts["embedding"] == floats
    layers = sum(weight.byte_count for name, weight in weights.items() if "layers" in name)
    assert found.byte_counts["weights"] + found.byte_counts["scales_and_zeros"] == layers
    assert found.total == tensor_bytes(tmp_path / "out")


@pytest.mark.parametrize(
    ("form", "bits"),
    [
        (GROUPS, lambda k: 4 + 16 / 128 + 16 / k),
        (CHANNELS, lambda k: 4 + 32 / k),
        (EIGHT_BITS, lambda k: 8 + 16 / k),
    ],
    ids=["groups", "channels", "8 bits"],
)
def test_a_file_is_as_large_as_the_formula_says(form: Any, bits: Any, tmp_path: Path) -> None:
    config = shape_config("llama-3-8b") | {"num_hidden_layers": 2, "hidden_size": 1024, "vocab_size": 300}
    config |= {"intermediate_size": 1536, "num_attention_heads": 8, "num_key_value_heads": 4}
    config |= {"bos_token_id": 0, "eos_token_id": 1}
    write_random_checkpoint(config, tmp_path / "float", dtype="float16")
    quantize_at_random(tmp_path / "float", tmp_path / "out", formats(form))
    wide = 2 * (1024 * 1024 * 2 + 2 * 512 * 1024 + 2 * 1536 * 1024)
    down = 2 * 1024 * 1536
    linear = (wide * bits(1024) + down * bits(1536)) / 8
    floats = 2 * (2 * 300 * 1024 + 5 * 1024)
    found = checkpoint_parts(tmp_path / "out")
    assert found.num_weights == wide + down
    assert found.bits_per_weight == pytest.approx(linear * 8 / (wide + down), rel=1e-9)
    assert found.total == linear + floats
    assert (tmp_path / "out" / "model.safetensors").stat().st_size == pytest.approx(linear + floats, rel=0.01)


@pytest.mark.parametrize(
    ("head_dim", "bits", "head"), [(128, 4, 67), (64, 4, 35), (128, 8, 131), (128, 16, 256)]
)
def test_bytes_of_a_token_in_the_cache(head_dim: int, bits: int, head: int) -> None:
    config = replace(ModelConfig.of_shape("llama-3-8b"), head_dim=head_dim)
    assert kv_bytes_per_token(config, bits) == 2 * 32 * 8 * head


def test_the_cache_of_a_quantized_checkpoint(tmp_path: Path) -> None:
    """3 layers, 2 KV heads of 8; floats are of 4 bytes."""
    directory = write(tmp_path / "float")
    for kv_bits, head in ((4, 4 + 3), (8, 8 + 3), (16, 32)):
        out = tmp_path / str(kv_bits)
        quantize_at_random(directory, out, formats(GROUPS, activation_bits=8, kv_bits=kv_bits))
        found = checkpoint_parts(out)
        assert found.quantization == QuantizationConfig("random", GROUPS, FLOAT, 8, kv_bits)
        assert found.kv_bytes_per_token == 2 * 3 * 2 * head
        assert found.float_kv_bytes_per_token == 2 * 3 * 2 * 32


def test_shards_and_what_the_model_does_not_use(tmp_path: Path) -> None:
    directory = write(tmp_path / "float")
    expected = checkpoint_parts(directory)
    sharded = save(build(VARIANTS["llama"], seed=3), tmp_path / "sharded", max_shard_size="100KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    assert checkpoint_parts(sharded) == expected
    stranger = torch.zeros(7, dtype=torch.int64)
    edit_tensors(directory, stranger=stranger)
    byte_counts = expected.byte_counts | {"other": stranger.nbytes}
    assert checkpoint_parts(directory) == CheckpointParts(expected.config, byte_counts, expected.num_weights)


def refusal(directory: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        checkpoint_parts(directory)
    message = str(raised.value)
    assert "\n" not in message
    return message


def test_bad_checkpoints(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "absent")
    write(tmp_path / "float")
    out = tmp_path / "out"
    quantize_at_random(tmp_path / "float", out, formats(GROUPS))
    scales = load_file(out / "model.safetensors")[f"{Q_PROJ}.scales"]
    edit_tensors(out, **{f"{Q_PROJ}.scales": scales[1:].clone()})
    assert f"{Q_PROJ}.scales is F16 [47] where config.json asks for F16 [48]" in refusal(out)
    edit_tensors(out, **{f"{Q_PROJ}.scales": scales.float()})
    assert f"{Q_PROJ}.scales is F32 [48] where config.json asks for F16 [48]" in refusal(out)
    edit_tensors(out, **{f"{Q_PROJ}.scales": None})
    assert f"has no tensor {Q_PROJ}.scales" in refusal(out)
    edit_tensors(out, **{f"{Q_PROJ}.scales": scales})
    edit_tensors(out, **{"model.norm.weight": torch.zeros(48, dtype=torch.int32)})
    assert "model.norm.weight is I32 [48] where config.json asks for floats [48]" in refusal(out)
    edit_config(out, quantization_config=None)
    assert "has no tensor model.layers.0.self_attn.q_proj.weight" in refusal(out)
    file = out / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    assert "truncated" in refusal(out)
    file.unlink()
    assert "the weights are missing" in refusal(out)


def test_floats_that_pytorch_has_no_kernels_for_are_floats(tmp_path: Path) -> None:
    directory = write(tmp_path / "float")
    file = directory / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, file, {"format": "pt"})
    assert checkpoint_parts(directory).byte_counts["norms"] == 6 * 48 * 4 + 48
