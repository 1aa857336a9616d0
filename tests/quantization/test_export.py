import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lapidist.kernels.quantized_weight import QuantizedWeight
from lapidist.models.errors import CheckpointError
from lapidist.models.quantization_config import QuantizationConfig
from lapidist.quantization.export import export_checkpoint
from tests.checkpoints import write_random_llama
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

# Two groups, of which the second is short.
WIDE = {"hidden_size": 192, "intermediate_size": 160, "num_attention_heads": 6, "num_key_value_heads": 2}
CASES = {
    "groups": ("llama", GROUPS, {}),
    "groups-head": ("llama", formats(GROUPS, EIGHT_BITS), WIDE),
    "channels-head": ("mistral", formats(CHANNELS, GROUPS), {}),
    "tied": ("qwen2", formats(CHANNELS), {}),
    "8 bits": ("qwen3", formats(EIGHT_BITS), {}),
    "fused": ("phi3", formats(GROUPS), {}),
    "gemma2": ("gemma2-biases", formats(GROUPS, CHANNELS, activation_bits=8, kv_bits=4), {}),
    "cache": ("llama", QuantizationConfig("cache", kv_bits=4), {}),
}


def write(directory: Path, name: str, seed: int, options: dict[str, Any]) -> Path:
    variant = VARIANTS[name]
    return save(build(replace(variant, options=variant.options | options), seed), directory)


def model_of(directory: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(tokens).logits


def put(model: Any, weights: dict[str, QuantizedWeight]) -> None:
    parameters = dict(model.named_parameters())
    for name, weight in weights.items():
        parameters[name].data = weight.dequantize()


@pytest.mark.parametrize("case", CASES)
def test_transformers_computes_the_dequantized_weights(case: str, seed: int, tmp_path: Path) -> None:
    name, quantization, options = CASES[case]
    if not isinstance(quantization, QuantizationConfig):
        quantization = formats(quantization)
    floats = write(tmp_path / "floats", name, seed, options)
    weights = quantize_at_random(floats, tmp_path / "quantized", quantization)
    written: list[tuple[int, int]] = []
    out = tmp_path / "out"
    total = export_checkpoint(
        tmp_path / "quantized", out, "float32", progress=lambda *step: written.append(step)
    )
    assert written[-1] == (total, total)
    assert written == sorted(written)
    assert total == sum(tensor.nbytes for tensor in load_file(out / "model.safetensors").values())
    expected = model_of(floats)
    put(expected, weights)
    tokens = torch.randint(131, (2, 20))
    assert torch.equal(logits(model_of(out), tokens), logits(expected, tokens))
    config = json.loads((out / "config.json").read_text())
    original = json.loads((floats / "config.json").read_text())
    assert config == original | {"dtype": "float32"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_dtypes_and_shards(dtype: torch.dtype, seed: int, tmp_path: Path) -> None:
    name = str(dtype).removeprefix("torch.")
    floats = write_random_llama(tmp_path / "floats", seed)
    weights = quantize_at_random(floats, tmp_path / "quantized", formats(GROUPS, EIGHT_BITS))
    export_checkpoint(tmp_path / "quantized", tmp_path / "out", name, max_shard_bytes=50_000)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 2
    assert set(index.values()) == {shard.name for shard in shards}
    found = {name: tensor for shard in shards for name, tensor in load_file(shard).items()}
    expected = load_file(floats / "model.safetensors")
    expected |= {name: weight.dequantize() for name, weight in weights.items()}
    assert found.keys() == expected.keys() == index.keys()
    assert all(torch.equal(found[name], tensor.to(dtype)) for name, tensor in expected.items())
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == name
    for companion in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / companion).read_bytes() == (floats / companion).read_bytes()


def test_calibrated_softmax_stays(seed: int, tmp_path: Path) -> None:
    write_random_llama(tmp_path / "floats", seed)
    quantize_at_random(tmp_path / "floats", tmp_path / "quantized", formats(CHANNELS))
    section = json.loads((tmp_path / "quantized" / "config.json").read_text())["quantization_config"]
    softmax = {"mode": "unified", "phi": 1.5}
    edit_config(tmp_path / "quantized", quantization_config=section | {"attention_softmax": softmax})
    export_checkpoint(tmp_path / "quantized", tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "lapidist", "attention_softmax": softmax}
    assert config["dtype"] == "bfloat16"
    assert logits(model_of(tmp_path / "out"), torch.tensor([[1, 2, 3]])).isfinite().all()


def test_what_cannot_be_exported(seed: int, tmp_path: Path) -> None:
    floats = write_random_llama(tmp_path / "floats", seed)
    source, out = tmp_path / "quantized", tmp_path / "out"
    weights = quantize_at_random(floats, source, formats(GROUPS, CHANNELS))
    before = sorted(path.name for path in tmp_path.iterdir())

    def refused(problem: str, *arguments: Any) -> None:
        with pytest.raises(CheckpointError, match=problem) as raised:
            export_checkpoint(*arguments)
        assert "\n" not in str(raised.value)
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    refused("floats is not quantized", floats, out)
    refused("exists already", source, floats)
    refused("does not exist", source, tmp_path / "absent" / "out")
    refused("does not exist", tmp_path / "absent", out)
    refused("dtype must be float32, bfloat16, float16, got 'float64'", source, out, "float64")
    scales = weights["lm_head.weight"].scales
    edit_tensors(source, **{"lm_head.scales": torch.full_like(scales, 60_000)})
    refused(r"lm_head\.weight has values too large for float16: export to bfloat16", source, out, "float16")
    edit_tensors(source, **{"lm_head.scales": torch.full_like(scales, torch.nan)})
    refused(r"lm_head\.scales contains NaN", source, out)
    edit_tensors(source, **{"lm_head.scales": None})
    refused(r"has no tensor lm_head\.scales", source, out)
    edit_tensors(source, **{"lm_head.scales": scales[:-1].clone()})
    refused(r"lm_head\.scales is float16 \[319\] where float16 \[320\] is expected", source, out)
