import pytest

from lapidist.models.config import ModelConfig
from lapidist.planner.memory_fit import kv_bytes_per_token, weight_bytes
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.recipe import Recipe


@pytest.mark.parametrize(
    ("name", "parameters"),
    # As their makers state them; those of gpt-oss count biases of experts, which forecasts leave out.
    [
        ("mixtral-8x7b", 46.7e9),
        ("mixtral-8x22b", 140.6e9),
        ("qwen3-30b-a3b", 30.5e9),
        ("qwen3-235b-a22b", 235.1e9),
        ("gpt-oss-20b", 20.9e9),
        ("gpt-oss-120b", 116.8e9),
        ("minimax-m2", 228.7e9),
        ("deepseek-v3", 671.0e9),
        ("kimi-k2", 1026e9),
    ],
)
def test_mixtures_of_experts_have_the_parameters_their_makers_state(name: str, parameters: float) -> None:
    config = ModelConfig.of_shape(name, to_run=False)
    assert weight_bytes(config, Recipe.named("bf16")) == pytest.approx(2 * parameters, rel=0.004)
    # Ranks share all but routers and norms.
    four = weight_bytes(config, Recipe.named("bf16"), 4, 4)
    assert 4 * four == pytest.approx(2 * parameters, rel=0.01)


def test_the_published_gpt_oss_is_as_large_as_its_files() -> None:
    """60.8 GiB, as the model's card states."""
    config = ModelConfig.of_shape("gpt-oss-120b", to_run=False)
    assert weight_bytes(config, plan_recipe("checkpoint", config)) == pytest.approx(60.8 * 2**30, rel=0.01)


def test_latents_take_the_cache_that_deepseek_states() -> None:
    """70,272 bytes per token in bf16, on every rank."""
    config = ModelConfig.of_shape("deepseek-v3", to_run=False)
    assert kv_bytes_per_token(config, Recipe.named("bf16")) == 70_272
    assert kv_bytes_per_token(config, Recipe.named("bf16"), 8) == 70_272
