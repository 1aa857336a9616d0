"""Checkpoints in shards, with ties and leftovers, and checkpoints that are broken in every way we know."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from lapidist.models.errors import CheckpointError
from lapidist.models.load import load_decoder, resolve_dtype
from tests.family_checkpoints import VARIANTS, Variant, build, save
from tests.paged_decoding import logits_in_steps

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"
TOKENS = [5, 3, 100, 7]


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return save(build(VARIANTS["llama"], seed=1), tmp_path / "llama")


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    directory = save(build(VARIANTS["llama"], seed=1), tmp_path / "sharded", max_shard_size="60KB")
    assert len(list(directory.glob("*.safetensors"))) > 2
    return directory


def edit(directory: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Rewrite the weights after ``change``."""
    tensors = {name: tensor.clone() for name, tensor in load_file(directory / WEIGHTS).items()}
    change(tensors)
    save_file(tensors, directory / WEIGHTS)


def refusal(directory: Path, dtype: torch.dtype | None = None) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_decoder(directory, dtype)
    message = str(caught.value)
    assert "\n" not in message
    return message


def logits(directory: Path, dtype: torch.dtype | None = None) -> torch.Tensor:
    return logits_in_steps(load_decoder(directory, dtype), TOKENS, len(TOKENS), [len(TOKENS)])


def test_shards_give_what_one_file_gives(llama: Path, sharded: Path) -> None:
    assert torch.equal(logits(llama), logits(sharded))


def test_dtype_of_the_checkpoint_and_of_the_caller(tmp_path: Path) -> None:
    model = build(VARIANTS["qwen2"], seed=2).to(torch.bfloat16)
    directory = save(model, tmp_path)
    assert load_decoder(directory).dtype == torch.bfloat16
    assert load_decoder(directory, torch.float32).dtype == torch.float32
    # Read anew, for a model that was rounded has rounded rotary frequencies too.
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    exact = model(torch.tensor([TOKENS])).logits[0]
    assert (logits(directory, torch.float32) - exact).abs().max() < 1e-4


def test_one_dimension_of_one(tmp_path: Path) -> None:
    """The smallest sizes there are."""
    shape = {"vocab_size": 2, "hidden_size": 2, "intermediate_size": 1, "num_hidden_layers": 1}
    variant = Variant("Llama", shape | {"num_attention_heads": 1, "num_key_value_heads": 1})
    model = build(variant, seed=3)
    tokens = [1, 0, 1]
    found = logits_in_steps(load_decoder(save(model, tmp_path)), tokens, 3, [2, 1])
    assert (found - model(torch.tensor([tokens])).logits[0]).abs().max() < 1e-4


def test_what_is_left_over_is_reported_unless_harmless(llama: Path, caplog: pytest.LogCaptureFixture) -> None:
    harmless = "model.layers.0.self_attn.rotary_emb.inv_freq"
    edit(llama, lambda tensors: tensors.update({harmless: torch.ones(4)}))
    with caplog.at_level(logging.WARNING):
        load_decoder(llama)
    assert not caplog.records
    edit(llama, lambda tensors: tensors.update(stranger=torch.ones(4)))
    with caplog.at_level(logging.WARNING):
        load_decoder(llama)
    assert "stranger" in caplog.text


def test_a_tied_model_may_carry_its_head(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = save(build(VARIANTS["qwen2"], seed=4), tmp_path)
    before = logits(directory)
    edit(directory, lambda tensors: tensors.update({"lm_head.weight": torch.zeros(131, 48)}))
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(directory), before)
    assert not caplog.records


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", [Q_PROJ, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_not_a_number(value: float, name: str, dtype: torch.dtype, llama: Path) -> None:
    def poison(tensors: dict[str, torch.Tensor]) -> None:
        for key in tensors:
            tensors[key] = tensors[key].to(dtype)
        flat = tensors[name].view(-1)
        flat[torch.randint(len(flat), ())] = value

    edit(llama, poison)
    for compute in (None, torch.bfloat16):
        message = refusal(llama, compute)
        assert name in message
        assert WEIGHTS in message
        assert "NaN" in message


def test_too_large_for_float16(llama: Path) -> None:
    edit(llama, lambda tensors: tensors[Q_PROJ][0].fill_(1e6))
    message = refusal(llama, torch.float16)
    assert Q_PROJ in message
    assert "too large for float16" in message
    load_decoder(llama, torch.bfloat16)


def test_a_missing_tensor(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.pop(Q_PROJ))
    assert f"has no tensor {Q_PROJ}" in refusal(llama)


def test_a_wrong_shape(llama: Path) -> None:
    edit(llama, lambda tensors: tensors.update({Q_PROJ: torch.zeros(48, 47)}))
    message = refusal(llama)
    assert f"{WEIGHTS}: {Q_PROJ} has shape [48, 47] where config.json asks for [48, 48]" in message


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.int64, torch.bool])
def test_a_wrong_dtype(dtype: torch.dtype, llama: Path) -> None:
    edit(llama, lambda tensors: tensors.update({Q_PROJ: tensors[Q_PROJ].to(dtype)}))
    message = refusal(llama)
    assert Q_PROJ in message
    assert "dtype" in message
    assert "convert" in message


def test_a_config_of_another_model(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text())
    (llama / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))
    assert "model.layers.3." in refusal(llama)


def test_no_weights(llama: Path) -> None:
    (llama / WEIGHTS).unlink()
    assert f"neither {WEIGHTS} nor {INDEX}" in refusal(llama)
    (llama / "pytorch_model.bin").touch()
    assert "convert the weights to safetensors" in refusal(llama)


@pytest.mark.parametrize("size", [0, 5, 8, 100, 3000, -1])
def test_a_truncated_file(size: int, llama: Path) -> None:
    contents = (llama / WEIGHTS).read_bytes()
    (llama / WEIGHTS).write_bytes(contents[:size])
    assert f"{WEIGHTS} is truncated" in refusal(llama)


def test_a_truncated_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-3])
    assert f"{shard.name} is truncated" in refusal(sharded)


def test_a_missing_shard(sharded: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    assert f"{shard.name} is missing, but {INDEX} names it" in refusal(sharded)


def test_an_index_that_promises_too_much(sharded: Path) -> None:
    index = json.loads((sharded / INDEX).read_text())
    shard = index["weight_map"][Q_PROJ]
    index["weight_map"]["ghost"] = shard
    (sharded / INDEX).write_text(json.dumps(index))
    assert f"{shard} has no tensor ghost" in refusal(sharded)


@pytest.mark.parametrize(
    "index",
    [
        "",
        "[]",
        "{}",
        '{"weight_map": []}',
        '{"weight_map": {}}',
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../x"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": ""}}',
        '{"weight_map": {"a": ".."}}',
    ],
)
def test_a_broken_index(index: str, sharded: Path) -> None:
    (sharded / INDEX).write_text(index)
    assert INDEX in refusal(sharded)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_does_worse_than_a_checkpoint_error(llama: Path, data: st.DataObject) -> None:
    """Bytes overwritten anywhere: either the values just differ, or one sentence says what is wrong."""
    original = (llama / WEIGHTS).read_bytes()
    header = 8 + int.from_bytes(original[:8], "little")
    damaged = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, header - 1) | st.integers(0, len(original) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    (llama / WEIGHTS).write_bytes(damaged)
    try:
        load_decoder(llama)
    except CheckpointError as error:
        message = str(error)
        assert str(llama) in message
    finally:
        (llama / WEIGHTS).write_bytes(original)


def test_dtype_options() -> None:
    assert resolve_dtype("auto") is None
    assert resolve_dtype("bfloat16") == resolve_dtype(torch.bfloat16) == torch.bfloat16
    for wrong in ("int8", "", torch.int8):
        with pytest.raises(ValueError, match="dtype must be auto, float32, bfloat16, float16"):
            resolve_dtype(wrong)
