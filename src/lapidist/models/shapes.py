"""Shapes of public checkpoints: the ``config.json`` values that decide what a model computes and how fast.

Source: ``config.json`` of each model's repository on the Hugging Face hub, named beside it.
"""

import copy
import difflib
from typing import Any

from lapidist.models.expert_shapes import EXPERT_SHAPES

_LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 128256,
}
_LLAMA_2 = _LLAMA | {
    "bos_token_id": 1,
    "eos_token_id": 2,
    "rope_theta": 10000.0,
    "torch_dtype": "float16",
    "vocab_size": 32000,
}


def _llama_3_1_rope(factor: float) -> dict[str, Any]:
    return {
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    }


_LLAMA_3_2 = _LLAMA | {"tie_word_embeddings": True, "rope_scaling": _llama_3_1_rope(32.0)}

_MISTRAL: dict[str, Any] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32000,
}
_QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
}
_QWEN3: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40960,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
# fmt: off
_PHI_3_LONG_FACTOR = [
    1.0700000524520874, 1.1200000047683716, 1.149999976158142, 1.4199999570846558, 1.5699999332427979,
    1.7999999523162842, 2.129999876022339, 2.129999876022339, 3.009999990463257, 5.910000324249268,
    6.950000286102295, 9.070000648498535, 9.930000305175781, 10.710000038146973, 11.130000114440918,
    14.609999656677246, 15.409998893737793, 19.809999465942383, 37.279998779296875, 38.279998779296875,
    38.599998474121094, 40.12000274658203, 46.20000457763672, 50.940006256103516, 53.66000747680664,
    54.9373893737793, 56.89738845825195, 57.28738784790039, 59.98738479614258, 60.86738586425781,
    60.887386322021484, 61.71739196777344, 62.91739273071289, 62.957393646240234, 63.41739273071289,
    63.8173942565918, 63.83739471435547, 63.897396087646484, 63.93739700317383, 64.06739807128906,
    64.11434936523438, 64.12435150146484, 64.15435028076172, 64.19435119628906, 64.24435424804688,
    64.57435607910156, 64.69000244140625, 64.76000213623047,
]
_PHI_3_SHORT_FACTOR = [
    1.1, 1.1, 1.1, 1.3000000000000003, 1.3500000000000003, 1.3500000000000003, 1.4000000000000004,
    1.5500000000000005, *[2.000000000000001] * 17, *[2.0500000000000007] * 6, 2.1000000000000005,
    2.1000000000000005, 2.1500000000000004, *[2.25] * 5, 2.3999999999999995, 2.4499999999999993,
    2.499999999999999, 2.6999999999999984, 2.6999999999999984, 2.7499999999999982, 2.799999999999998,
    2.8999999999999977, 3.049999999999997,
]
# fmt: on
_PHI_3: dict[str, Any] = {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 32000,
    "hidden_act": "silu",
    "hidden_size": 3072,
    "initializer_range": 0.02,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 32,
    "original_max_position_embeddings": 4096,
    "pad_token_id": 32000,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32064,
}
_GEMMA_2: dict[str, Any] = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_logit_softcapping": 50.0,
    "bos_token_id": 2,
    "cache_implementation": "hybrid",
    "eos_token_id": 1,
    "final_logit_softcapping": 30.0,
    "head_dim": 256,
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "initializer_range": 0.02,
    "max_position_embeddings": 8192,
    "pad_token_id": 0,
    "query_pre_attn_scalar": 256,
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
    "torch_dtype": "float32",
    "use_cache": True,
    "vocab_size": 256000,
}


def _sizes(
    layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, context: int, **more: Any
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": context,
        **more,
    }


def _qwen2(vocabulary: int, tied: bool, sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        **_QWEN2,
        **sizes,
        "max_window_layers": sizes["num_hidden_layers"],
        "sliding_window": sizes["max_position_embeddings"],
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
    }


def _qwen3(layers: int, hidden: int, intermediate: int, heads: int, tied: bool) -> dict[str, Any]:
    return {
        **_QWEN3,
        "num_hidden_layers": layers,
        "max_window_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "tie_word_embeddings": tied,
    }


_PHI_3_128K = _PHI_3 | {
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "long_factor": _PHI_3_LONG_FACTOR,
        "short_factor": _PHI_3_SHORT_FACTOR,
        "type": "longrope",
    },
    "sliding_window": 262144,
}

SHAPES: dict[str, dict[str, Any]] = {
    # TinyLlama/TinyLlama_v1.1, meta-llama/Llama-2-7b-hf
    "tinyllama-1.1b": _LLAMA_2 | _sizes(22, 2048, 5632, 32, 4, 2048, torch_dtype="float32"),
    "llama-2-7b": _LLAMA_2 | _sizes(32, 4096, 11008, 32, 32, 4096),
    # meta-llama/Meta-Llama-3-8B, -70B, Llama-3.1-8B, -70B, Llama-3.2-1B, -3B
    "llama-3-8b": _LLAMA | _sizes(32, 4096, 14336, 32, 8, 8192),
    "llama-3-70b": _LLAMA | _sizes(80, 8192, 28672, 64, 8, 8192),
    "llama-3.1-8b": _LLAMA | _sizes(32, 4096, 14336, 32, 8, 131072, rope_scaling=_llama_3_1_rope(8.0)),
    "llama-3.1-70b": _LLAMA | _sizes(80, 8192, 28672, 64, 8, 131072, rope_scaling=_llama_3_1_rope(8.0)),
    "llama-3.2-1b": _LLAMA_3_2 | _sizes(16, 2048, 8192, 32, 8, 131072, head_dim=64),
    "llama-3.2-3b": _LLAMA_3_2 | _sizes(28, 3072, 8192, 24, 8, 131072, head_dim=128),
    # mistralai/Mistral-7B-v0.1, -v0.3
    "mistral-7b": _MISTRAL,
    "mistral-7b-v0.3": _MISTRAL | {"rope_theta": 1000000.0, "sliding_window": None, "vocab_size": 32768},
    # Qwen/Qwen2.5-0.5B, -1.5B, -7B
    "qwen2.5-0.5b": _qwen2(151936, True, _sizes(24, 896, 4864, 14, 2, 32768)),
    "qwen2.5-1.5b": _qwen2(151936, True, _sizes(28, 1536, 8960, 12, 2, 131072)),
    "qwen2.5-7b": _qwen2(152064, False, _sizes(28, 3584, 18944, 28, 4, 131072)),
    # Qwen/Qwen3-0.6B, -8B, -32B
    "qwen3-0.6b": _qwen3(28, 1024, 3072, 16, tied=True),
    "qwen3-8b": _qwen3(36, 4096, 12288, 32, tied=False),
    "qwen3-32b": _qwen3(64, 5120, 25600, 64, tied=False),
    # microsoft/Phi-3-mini-4k-instruct, -128k-instruct
    "phi-3-mini-4k": _PHI_3 | {"max_position_embeddings": 4096, "rope_scaling": None, "sliding_window": 2047},
    "phi-3-mini-128k": _PHI_3_128K,
    # google/gemma-2-2b, -9b
    "gemma-2-2b": _GEMMA_2 | _sizes(26, 2304, 9216, 8, 4, 8192),
    "gemma-2-9b": _GEMMA_2 | _sizes(42, 3584, 14336, 16, 8, 8192),
}


def shape_config(name: str, *, to_run: bool = True) -> dict[str, Any]:
    """A copy of the ``config.json`` of a known shape, without ``to_run`` of ``models.expert_shapes`` too.

    Raises
    ------
    ValueError : there is no such shape, or it is one that does not run.
    """
    known = SHAPES if to_run else SHAPES | EXPERT_SHAPES
    if name in known:
        return copy.deepcopy(known[name])
    if name in EXPERT_SHAPES:
        raise ValueError(f"{name} is a mixture of experts, which lapidist plan forecasts but nothing runs")
    near = difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}"
    raise ValueError(f"unknown shape {name!r}: {hint}")
