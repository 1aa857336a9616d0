from dataclasses import replace
from pathlib import Path

import pytest

from lapidist.models.config import ModelConfig
from lapidist.models.quantization_config import QuantizationConfig, WeightFormat
from lapidist.planner.recipes import checkpoint_recipe, plan_recipe
from lapidist.quantization.recipe import RECIPES, load_recipe
from lapidist.workload.recipe import Recipe

LLAMA = ModelConfig.of_shape("llama-3-8b")


@pytest.mark.parametrize("name", RECIPES)
def test_every_quantization_recipe_has_its_formats(name: str) -> None:
    wanted, found = load_recipe(name).formats, plan_recipe(name, LLAMA)
    assert found.name == name
    assert found.weight.bits == wanted.weights.bits
    assert found.weight.group_size == wanted.weights.group_size
    assert found.activation.bits == wanted.activation_bits
    assert found.kv.bits == wanted.kv_bits
    assert found.hidden.number == "bf16"
    head_bits = 16 if found.lm_head is None else found.lm_head.bits
    assert head_bits == wanted.lm_head.bits


@pytest.mark.parametrize("name", ["bf16", "fp16", "w4a16kv8-g128", "w8a8kv8"])
def test_conventional_names_are_those_of_the_workload(name: str) -> None:
    assert plan_recipe(name, LLAMA) == Recipe.named(name, "bf16")


def test_fp8_is_weights_and_activations_and_on_demand_the_cache() -> None:
    eight, all_eight = plan_recipe("fp8", LLAMA), plan_recipe("fp8-kv8", LLAMA)
    assert (eight.weight.number, eight.activation.number, eight.kv.number) == ("fp8", "fp8", "bf16")
    assert (all_eight.weight, all_eight.kv.number) == (eight.weight, "fp8")
    four = plan_recipe("nvfp4-kv8", LLAMA)
    assert (four.weight.number, four.activation.group_size, four.kv.number) == ("fp4", 16, "fp8")


def test_a_checkpoint_has_the_formats_it_is_in() -> None:
    assert plan_recipe("checkpoint", LLAMA) == Recipe.named("bf16")
    formats = QuantizationConfig("mine", WeightFormat(4, 128), WeightFormat(8), 8, 4)
    found = checkpoint_recipe(replace(LLAMA, quantization=formats))
    assert (found.name, found.weight.bits, found.kv.bits) == ("mine", 4, 4)
    assert found.lm_head is not None
    assert found.lm_head.bits == 8


def test_a_yaml_file_is_a_recipe(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("base: qoq-g128\nkv_cache: 8\n")
    assert plan_recipe(str(tmp_path / "mine.yaml"), LLAMA).kv.bits == 8


@pytest.mark.parametrize("name", ["", "int3", "w5a8kv4", "absent.yaml"])
def test_what_is_no_recipe_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"unknown recipe|absent\.yaml"):
        plan_recipe(name, LLAMA)


def test_mxfp4_is_a_format_of_experts() -> None:
    found = plan_recipe("checkpoint", ModelConfig.of_shape("gpt-oss-20b", to_run=False))
    assert found.name == "mxfp4"
    assert found.weight == found.hidden == Recipe.named("bf16").hidden
    assert found.expert_weight is not None
    assert found.expert_weight.byte_count(1, 2880) == 2880 // 2 + 2880 // 32
    with pytest.raises(ValueError, match="this model has none"):
        plan_recipe("mxfp4", LLAMA)


def test_what_others_quantized_has_known_formats_or_is_refused() -> None:
    assert checkpoint_recipe(ModelConfig.of_shape("minimax-m2", to_run=False)).weight.number == "fp8"
    with pytest.raises(ValueError, match=r"quantized by 'awq'.*--recipe"):
        checkpoint_recipe(replace(LLAMA, foreign_quantization="awq"))
