from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lapidist.hardware.cpu.cpu import CPU
from lapidist.hardware.cpu.profile import CPUProfile, Overhead
from lapidist.models.config import ModelConfig
from lapidist.planner.cpu_measurement import measure_cpu, measure_operators, shape_of, step_grid
from lapidist.planner.cpu_profile_store import VARIABLE, load_profile, profile_file
from lapidist.planner.operator_run import OperatorRun
from lapidist.planner.recipes import plan_recipe
from lapidist.workload.lowering import lower
from lapidist.workload.step import SequenceStep, Step
from tests.checkpoints import write_random_llama

SMALL = {"hidden_size": 128, "intermediate_size": 256, "num_layers": 3, "num_heads": 4, "num_kv_heads": 2}
SMALL |= {"head_dim": 64, "vocab_size": 256, "max_position_embeddings": 64}


def small(shape: str) -> ModelConfig:
    config = ModelConfig.of_shape(shape)
    windows = (config.sliding_windows * 3)[:3]
    rope = replace(config.rope, rotary_dim=64)
    return replace(config, **SMALL, sliding_windows=windows, rope=rope, dtype=torch.bfloat16)


@pytest.mark.parametrize("shape", ["llama-3-8b", "gemma-2-2b", "qwen3-8b", "qwen2.5-7b"])
@pytest.mark.parametrize("recipe", ["bf16", "qoq-g128", "qoq-channel", "awq-w4a16-g128", "rtn-w8a8", "kv8"])
def test_what_is_run_is_what_lowering_describes(shape: str, recipe: str) -> None:
    config = small(shape)
    formats = plan_recipe(recipe, config)
    step = Step((SequenceStep(1, 40), SequenceStep(5, 20)), logit_rows=2)
    seconds = OperatorRun(config, formats, 200).run(step)
    operators = lower(config, formats, step)
    assert set(seconds) == {each.name for each in operators}
    assert all(value >= 0 for values in seconds.values() for value in values)
    assert len(seconds["qkv_proj"]) == 3
    assert len(seconds["embedding"]) == 1


def test_the_grid_covers_what_is_asked_for() -> None:
    steps = list(step_grid(700))
    assert max(sequence.kv_length for step in steps for sequence in step.sequences) == 700
    assert {len(step.sequences) for step in steps} >= {1, 64}
    assert max(step.tokens for step in steps) == 512


def test_operators_are_timed_one_by_one() -> None:
    """With a clock that ticks once per look, everything takes one second."""
    ticks = iter(range(10**9))
    found = measure_operators(
        small("llama-3-8b"), plan_recipe("bf16", small("llama-3-8b")), 1, 64, clock=lambda: next(ticks)
    )
    assert {point.seconds for point in (*found.operators, *found.attention)} == {1}
    CPU(profile_of(found))


def profile_of(found: object) -> CPUProfile:
    return CPUProfile(
        "machine",
        "model",
        {},
        "bf16",
        found.operators,
        found.attention,
        Overhead(0, 0, 0),
        1 << 30,  # type: ignore[attr-defined]
    )


@pytest.mark.parametrize("recipe", ["bf16", "qoq-g128", "qoq-channel", "awq-w4a16-g128", "rtn-w8a8"])
def test_numbers_are_of_a_models_size(recipe: str) -> None:
    """Attention takes its time where scores keep growing, as large ones do."""
    config = small("llama-3-8b")
    run = OperatorRun(config, plan_recipe(recipe, config), 64)
    projection = run._projections[0]["qkv_proj"]
    hidden = torch.randn(64, config.hidden_size, dtype=config.dtype)
    out = projection(run._normalized(projection, hidden)).float().view(64, -1, config.head_dim)
    assert 0.7 < out.std() < 1.4
    # Queries and keys of a token are not alike.
    query, key = out[:, 0], out[:, config.num_heads]
    assert (query * key).sum(-1).std() / config.head_dim**0.5 < 2.0


def test_too_short_a_context_is_refused() -> None:
    config = small("llama-3-8b")
    with pytest.raises(ValueError, match="contexts from 16 tokens"):
        measure_operators(config, plan_recipe("bf16", config), 1, 8)


@pytest.mark.slow
def test_a_checkpoint_is_measured_stored_and_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    checkpoint = write_random_llama(tmp_path / "model")
    config = ModelConfig.from_directory(checkpoint)
    labels: set[str] = set()
    profile = measure_cpu(
        checkpoint,
        model="small",
        budget_seconds=0.01,
        max_context=64,
        progress=lambda label, done, total: labels.add(label),
    )
    assert labels == {"building operators", "operators", "engine"}
    assert profile.shape == shape_of(config)
    assert profile.overhead.step >= 0
    assert profile.overhead.slowdown >= 0.7
    assert profile.overhead.request > 0
    assert profile.others_cores >= 0
    recipe = plan_recipe("checkpoint", config)
    with pytest.raises(ValueError, match="run lapidist cpu measure"):
        load_profile(config, recipe)
    assert profile_file(config, recipe).parent.parent == tmp_path
