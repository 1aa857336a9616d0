"""Configurations that are forecast and not run: mixtures of experts, and what others quantized."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.models.config import ModelConfig
from lapidist.models.config_fields import ConfigFields
from lapidist.models.errors import CheckpointError
from lapidist.models.expert_config import ExpertConfig
from lapidist.models.expert_shapes import EXPERT_SHAPES
from lapidist.models.latent_config import LatentConfig
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import total_flops

MIXTRAL = EXPERT_SHAPES["mixtral-8x7b"]


def written(folder: Path, fields: dict[str, Any]) -> Path:
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("config", "architecture", "expected"),
    [
        (transformers.MixtralConfig(), "MixtralForCausalLM", ExpertConfig(8, 2, 14336)),
        (transformers.Qwen3MoeConfig(), "Qwen3MoeForCausalLM", ExpertConfig(128, 8, 768)),
        (transformers.GptOssConfig(), "GptOssForCausalLM", ExpertConfig(128, 4, 2880)),
    ],
)
def test_what_transformers_writes_is_read(
    config: transformers.PretrainedConfig, architecture: str, expected: ExpertConfig, tmp_path: Path
) -> None:
    config.architectures = [architecture]
    config.save_pretrained(tmp_path)
    found = ModelConfig.from_directory(tmp_path, to_run=False)
    assert found.experts == expected
    assert found.num_heads == config.num_attention_heads
    assert found.num_kv_heads == config.num_key_value_heads


@pytest.mark.parametrize("name", EXPERT_SHAPES)
def test_shapes_are_forecast_and_not_run(name: str, tmp_path: Path) -> None:
    assert ModelConfig.of_shape(name, to_run=False).experts is not None
    with pytest.raises(ValueError, match="lapidist plan forecasts"):
        ModelConfig.of_shape(name)
    with pytest.raises(CheckpointError, match=r"config\.json: architectures .*lapidist plan forecasts"):
        ModelConfig.from_directory(written(tmp_path, EXPERT_SHAPES[name]))


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"num_experts_per_tok": None}, "num_experts_per_tok"),
        ({"num_local_experts": None}, "num_experts"),
        ({"num_local_experts": "8"}, "num_local_experts"),
        ({"intermediate_size": 0}, "intermediate_size"),
        ({"decoder_sparse_step": 2}, "decoder_sparse_step"),
        ({"mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"quantization_config": {"quant_method": 3}}, "quantization_config.quant_method"),
        ({"quantization_config": "fp8"}, "quantization_config"),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        ModelConfig.from_directory(written(tmp_path, MIXTRAL | changes), to_run=False)
    assert "config.json" in str(caught.value)
    assert key in str(caught.value)


def test_what_others_quantized_is_told_apart(tmp_path: Path) -> None:
    fields = MIXTRAL | {"quantization_config": {"quant_method": "awq", "bits": 4}}
    found = ModelConfig.from_directory(written(tmp_path, fields), to_run=False)
    assert (found.foreign_quantization, found.quantization) == ("awq", None)


def test_deepseek_is_read_with_its_latents(tmp_path: Path) -> None:
    config = transformers.DeepseekV3Config()
    config.architectures = ["DeepseekV3ForCausalLM"]
    config.save_pretrained(tmp_path)
    found = ModelConfig.from_directory(tmp_path, to_run=False)
    assert found.latent == LatentConfig(1536, 512, 64, 128, 128)
    assert found.experts == ExpertConfig(256, 8, 2048, shared_inner=2048, dense_layers=3)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"kv_lora_rank": None}, "kv_lora_rank"),
        ({"v_head_dim": 0}, "v_head_dim"),
        ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"first_k_dense_replace": 61}, "first_k_dense_replace"),
        ({"n_shared_experts": -1}, "n_shared_experts"),
    ],
)
def test_a_wrong_field_of_deepseek_is_named(changes: dict[str, Any], key: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"config.json: {key}"):
        ModelConfig.from_directory(written(tmp_path, EXPERT_SHAPES["deepseek-v3"] | changes), to_run=False)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 70), st.integers(), st.floats(), st.text(max_size=5)
)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_document_does_worse_than_a_checkpoint_error(data: st.DataObject) -> None:
    """What is read can be lowered, or is told not to divide over the ranks."""
    fields = copy.deepcopy(data.draw(st.sampled_from(list(EXPERT_SHAPES.values()))))
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from(sorted(fields)))
        fields[key] = data.draw(st.one_of(scalars, st.lists(scalars, max_size=3)))
    message, expected = "", "config.json"
    try:
        config = ModelConfig.from_fields(ConfigFields(Path("config.json"), fields), to_run=False)
        expected = "does not divide"
        operators = lower(config, Recipe.named("bf16"), Step((SequenceStep(3, 5),), 1), 2, 2)
    except ValueError as error:
        message = str(error)
    if message:
        assert expected in message
    else:
        assert total_flops(operators) > 0
