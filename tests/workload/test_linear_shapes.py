"""The weights of a decoder's linear layers."""

from lapidist.models.config import ModelConfig
from lapidist.workload.linear_shapes import linear_shapes


def test_llama_3_2_1b() -> None:
    assert linear_shapes(ModelConfig.of_shape("llama-3.2-1b")) == {
        "qkv_proj": (3072, 2048),
        "o_proj": (2048, 2048),
        "gate_up_proj": (16384, 2048),
        "down_proj": (2048, 8192),
        "lm_head": (128256, 2048),
    }


def test_heads_wider_than_the_hidden_size() -> None:
    shapes = linear_shapes(ModelConfig.of_shape("qwen3-0.6b"))
    assert shapes["qkv_proj"] == (16 * 128 + 2 * 8 * 128, 1024)
    assert shapes["o_proj"] == (1024, 2048)
