"""A checkpoint's parameters as the simulated wafer takes them."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lapidist.hardware.wafer.decoder_weights import DecoderWeights
    from lapidist.hardware.wafer.placement import Array
    from lapidist.hardware.wafer.ring import Indices
    from lapidist.hardware.wafer.rope import Rope
    from lapidist.models.config import ModelConfig


def float_weights(directory: Path, config: "ModelConfig") -> "DecoderWeights":
    """Parameters in fp32 of any family that ``lapidist.models`` knows.

    Raises
    ------
    ValueError : the checkpoint is quantized, or lacks a tensor.
    """
    from lapidist.hardware.wafer.decoder_weights import checkpoint_weights
    from lapidist.models.families import FAMILIES
    from lapidist.models.weights import WeightFiles

    if config.quantization is not None:
        raise ValueError(
            f"{directory} holds quantized weights, which the wafer does not run; give the float model"
        )
    files = WeightFiles(directory)

    def tensor(name: str, shape: tuple[int, ...]) -> "Array":
        return files.mapped((name, shape)).float().numpy()

    return checkpoint_weights(
        config,
        tensor,
        rope_of(config),
        config.norm_eps,
        config.tie_embeddings,
        FAMILIES[config.architecture].fused_weights,
        config.norm_offset,
    )


def rope_of(config: "ModelConfig") -> "Rope":
    """The model's rotary embedding with its scaling for long contexts."""
    import torch

    from lapidist.hardware.wafer.rope import Rope
    from lapidist.models.rope import RotaryEmbedding

    rotary = RotaryEmbedding(config.rope, torch.device("cpu"))
    half = config.rope.rotary_dim // 2

    def cos_sin(positions: "Indices", lengths: "Indices") -> "tuple[Array, Array]":
        cos, sin = rotary.cos_sin(torch.as_tensor(positions), torch.as_tensor(lengths), torch.float32)
        return cos[:, 0, half:].numpy(), sin[:, 0, half:].numpy()  # the second half has the plain signs

    return Rope(config.rope.rotary_dim, cos_sin)
