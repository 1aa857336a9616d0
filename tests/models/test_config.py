"""Reading ``config.json``: both styles, the defaults that real files rely on, and everything that may be wrong."""

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.models.config import ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.rope import RotaryEmbedding
from lapidist.models.rope_config import RopeConfig
from tests.family_checkpoints import SHAPE, VARIANTS

# What the hub serves for these models, less the fields that no decoder reads.
LLAMA_32_1B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "bos_token_id": 128000,
    "eos_token_id": [128001, 128008, 128009],
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 16,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
PHI_3_MINI_128K = {
    "architectures": ["Phi3ForCausalLM"],
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "rope_scaling": {"type": "su", "short_factor": [1.05] * 48, "long_factor": [1.9] * 48},
    "sliding_window": 262144,
    "torch_dtype": "bfloat16",
    "vocab_size": 32064,
}


def read(values: Any) -> ModelConfig:
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "config.json").write_text(json.dumps(values))
        return ModelConfig.from_directory(directory)


def changed(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (values | changes).items() if value != "absent"}


def test_llama_in_the_style_of_version_4() -> None:
    config = read(LLAMA_32_1B)
    assert (config.vocab_size, config.hidden_size, config.num_layers) == (128256, 2048, 16)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (32, 8, 64)
    assert config.tie_embeddings
    assert config.dtype == torch.bfloat16
    assert config.eos_token_ids == (128001, 128008, 128009)
    assert config.sliding_windows == (None,) * 16
    assert config.rope == RopeConfig("llama3", 500000.0, 64, factor=32.0, original_context=8192)


def test_the_style_of_version_5_means_the_same() -> None:
    rope = LLAMA_32_1B["rope_scaling"] | {"rope_theta": 500000.0}
    renamed = changed(
        LLAMA_32_1B,
        rope_scaling="absent",
        rope_theta="absent",
        rope_parameters=rope,
        torch_dtype="absent",
        dtype="bfloat16",
    )
    assert read(renamed) == read(LLAMA_32_1B)


def test_early_phi3_names_longrope_su() -> None:
    rope = read(PHI_3_MINI_128K).rope
    assert (rope.kind, rope.original_context, rope.rotary_dim) == ("longrope", 4096, 96)
    assert rope.attention_factor == pytest.approx((1 + 5 / 12) ** 0.5)  # log 32 / log 4096


def test_absent_fields_have_the_defaults_of_transformers() -> None:
    shape = {"vocab_size": 131, "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3}
    shape |= {"num_attention_heads": 32, "max_position_embeddings": 64}
    for family in ("Llama", "Mistral", "Qwen2", "Qwen3", "Phi3", "Gemma2"):
        theirs = getattr(transformers, f"{family}Config")(**shape, pad_token_id=0)
        ours = read({"architectures": [f"{family}ForCausalLM"]} | shape)
        assert ours.num_kv_heads == theirs.num_key_value_heads, family
        assert ours.head_dim == getattr(
            theirs, "head_dim", theirs.hidden_size // theirs.num_attention_heads
        ), family
        assert ours.norm_eps == theirs.rms_norm_eps, family
        assert ours.tie_embeddings == theirs.tie_word_embeddings, family
        assert ours.rope.theta == theirs.rope_parameters["rope_theta"], family
        window = theirs.sliding_window if family != "Llama" else None
        slides = {"Mistral": [True] * 3, "Gemma2": [True, False, True]}.get(family, [False] * 3)
        assert ours.sliding_windows == tuple(window if sliding else None for sliding in slides), family


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"architectures": ["BertModel"]},
            ["architectures", "BertModel", "LlamaForCausalLM", "Gemma2ForCausalLM"],
        ),
        ({"architectures": "absent"}, ["architectures", "missing"]),
        ({"hidden_size": "absent"}, ["hidden_size", "missing"]),
        ({"vocab_size": -1}, ["vocab_size", "-1"]),
        ({"num_hidden_layers": "16"}, ["num_hidden_layers", '"16"']),
        ({"num_attention_heads": True}, ["num_attention_heads", "true"]),
        ({"num_key_value_heads": 5}, ["num_key_value_heads", "5", "32"]),
        ({"num_attention_heads": 24, "head_dim": None}, ["num_attention_heads", "24", "2048"]),
        ({"head_dim": 63}, ["head_dim", "63", "even"]),
        ({"hidden_act": "relu"}, ["hidden_act", "relu", "silu"]),
        ({"rms_norm_eps": 0}, ["rms_norm_eps", "positive"]),
        ({"torch_dtype": "int8"}, ["torch_dtype", "int8", "bfloat16"]),
        ({"tie_word_embeddings": 1}, ["tie_word_embeddings", "true or false"]),
        ({"eos_token_id": [1, "2"]}, ["eos_token_id"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantization_config", "gptq", "unquantized"]),
        ({"rope_scaling": {"rope_type": "mrope"}}, ["rope_scaling.rope_type", "mrope", "yarn"]),
        ({"rope_scaling": {"rope_type": "linear"}}, ["rope_scaling.factor", "missing"]),
        ({"rope_scaling": [1]}, ["rope_scaling", "object"]),
        ({"rope_theta": 1}, ["rope_theta"]),
        ({"partial_rotary_factor": 0.5}, ["partial_rotary_factor", "0.5"]),
        (
            {"rope_scaling": None, "rope_parameters": {"full_attention": {}, "sliding_attention": {"a": 1}}},
            ["rotate"],
        ),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], expected: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        read(changed(LLAMA_32_1B, **changes))
    for part in ["config.json", *expected]:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_longrope_needs_a_factor_for_each_frequency() -> None:
    rope = PHI_3_MINI_128K["rope_scaling"] | {"long_factor": [1.0] * 47}
    with pytest.raises(CheckpointError, match=r"long_factor must be a list of 48 positive numbers"):
        read(changed(PHI_3_MINI_128K, rope_scaling=rope))


def test_layer_types_must_fit_the_layers() -> None:
    qwen = changed(LLAMA_32_1B, architectures=["Qwen2ForCausalLM"], layer_types=["full_attention"] * 15)
    with pytest.raises(CheckpointError, match="layer_types must list 16"):
        read(qwen)
    with pytest.raises(CheckpointError, match="sliding_window is missing or switched off"):
        read(changed(qwen, layer_types=["sliding_attention"] * 16))


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", '"text"', "\x00", "[" * 100_000])
def test_a_broken_file_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        ModelConfig.from_directory(tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere/config\.json does not exist: give the directory"):
        ModelConfig.from_directory(tmp_path / "nowhere")


def documents() -> list[dict[str, Any]]:
    """A valid document of every variant, in both styles."""
    found = [LLAMA_32_1B, PHI_3_MINI_128K]
    for variant in VARIANTS.values():
        config = getattr(transformers, f"{variant.family}Config")(**SHAPE | variant.options)
        found.append(config.to_dict() | {"architectures": [f"{variant.family}ForCausalLM"]})
    return json.loads(json.dumps(found))


DOCUMENTS = documents()
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(
        ["yarn", "dynamic", "longrope", "llama3", "linear", "gelu", "float16", "sliding_attention"]
    ),
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def mutated(draw: st.DrawFn) -> Any:
    document = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 4))):
        target = document
        rope = document.get("rope_parameters", document.get("rope_scaling"))
        if isinstance(rope, dict) and rope and draw(st.booleans()):
            target = rope
        key = draw(st.sampled_from(sorted(target)))
        if draw(st.booleans()):
            target[key] = draw(anything)
        else:
            del target[key]
    return document


@settings(max_examples=600, deadline=None)
@given(st.one_of(mutated(), anything))
def test_no_document_does_worse_than_a_checkpoint_error(document: Any) -> None:
    try:
        config = read(document)
    except CheckpointError as error:
        message = str(error)
    else:
        message = None
    if message is not None:
        assert "config.json" in message
        assert "\n" not in message
        return
    assert config.num_heads % config.num_kv_heads == 0
    assert len(config.sliding_windows) == config.num_layers
    # What was accepted can be computed.
    cos, sin = RotaryEmbedding(config.rope, torch.device("cpu")).cos_sin(
        torch.arange(3), torch.tensor([1, 50, 500]), torch.float32
    )
    assert cos.isfinite().all()
    assert sin.shape == (3, 1, config.rope.rotary_dim)


def test_salt_tells_prompts_apart_only_beyond_the_context() -> None:
    dynamic = RopeConfig("dynamic", 10_000.0, 8, factor=2.0, original_context=100)
    assert dynamic.cache_salt(3) == dynamic.cache_salt(100) == b""
    assert dynamic.cache_salt(101) != dynamic.cache_salt(102) != b""
    longrope = RopeConfig("longrope", 10_000.0, 8, original_context=100)
    assert longrope.cache_salt(100) == b"" != longrope.cache_salt(101) == longrope.cache_salt(5000)
    assert RopeConfig("yarn", 10_000.0, 8, original_context=100).cache_salt(101) == b""
