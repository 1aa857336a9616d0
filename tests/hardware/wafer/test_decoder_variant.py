import pytest

from lapidist.hardware.wafer.decoder_variant import LLAMA, DecoderVariant
from lapidist.models.config import ModelConfig


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("llama-3.1-8b", LLAMA),
        ("mistral-7b", LLAMA),
        ("phi-3-mini-4k", LLAMA),
        ("qwen2.5-7b", DecoderVariant(qkv_bias=True)),
        ("qwen3-8b", DecoderVariant(qk_norm=True)),
        (
            "gemma-2-9b",
            DecoderVariant(
                "gelu_pytorch_tanh", sandwich_norms=True, attention_softcap=True, final_softcap=True
            ),
        ),
    ],
)
def test_what_public_models_have(name: str, expected: DecoderVariant) -> None:
    assert DecoderVariant.of(ModelConfig.of_shape(name)) == expected


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="does not know the activation 'relu'"):
        DecoderVariant("relu")
