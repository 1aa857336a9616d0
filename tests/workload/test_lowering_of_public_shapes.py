"""Lowering reads exactly the parameters that a public checkpoint has."""

import json
from pathlib import Path

import pytest

from lapidist.models.checkpoint_tensors import checkpoint_tensors
from lapidist.models.config import ModelConfig
from lapidist.models.shapes import SHAPES
from lapidist.workload import Recipe, SequenceStep, Step, lower
from lapidist.workload.operators import Attention, total_flops


@pytest.fixture(params=SHAPES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def config(name: str, tmp_path: Path) -> ModelConfig:
    (tmp_path / "config.json").write_text(json.dumps(SHAPES[name]))
    return ModelConfig.from_directory(tmp_path)


def test_a_decode_reads_every_parameter_once(name: str, config: ModelConfig) -> None:
    operators = lower(config, Recipe.named("bf16"), Step((SequenceStep(1, 10),), logit_rows=1))
    read = sum(operator.count * operator.weight_bytes for operator in operators)
    tensors = list(checkpoint_tensors(SHAPES[name]))
    tables = {"model.embed_tokens.weight", "lm_head.weight"}
    layers = sum(tensor.elements for tensor in tensors if tensor.name not in tables)
    # The output head whole, whether it is the embedding table or its own, and one row of the table.
    assert read == 2 * (layers + config.vocab_size * config.hidden_size + config.hidden_size)


def test_ranks_share_every_shape(config: ModelConfig) -> None:
    step = Step((SequenceStep(7, 7), SequenceStep(1, 5000)), logit_rows=2)
    whole, share = (lower(config, Recipe.named("w4a8kv4-g128"), step, ranks) for ranks in (1, 2))
    attention = [[o for o in operators if isinstance(o, Attention)] for operators in (whole, share)]
    assert total_flops(attention[0]) == 2 * total_flops(attention[1])


def test_windows_of_the_checkpoint_bound_attention(config: ModelConfig) -> None:
    longest = config.max_position_embeddings
    operators = lower(config, Recipe.named("bf16"), Step((SequenceStep(1, longest),), logit_rows=1))
    seen = {o.window: (o.count, o.visible_kv) for o in operators if isinstance(o, Attention)}
    assert sum(count for count, _ in seen.values()) == config.num_layers
    assert all(visible == min(longest, window or longest) for window, (_, visible) in seen.items())
