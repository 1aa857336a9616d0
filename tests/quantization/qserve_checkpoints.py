"""Checkpoints as QServe stores them, packed element by element from the description of the layout."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig

from tests.checkpoints import write_tokenizer

NORMS = ("input_layernorm", "post_attention_layernorm")


def pack_codes(codes: Tensor) -> Tensor:
    """0 to 15 ``[rows, columns]`` to int8 ``[rows, columns / 2]``."""
    rows, columns = codes.shape
    packed, values = [0] * (rows * columns // 2), codes.tolist()
    for row in range(rows):
        for column in range(columns):
            block = (row // 32) * (columns // 32) + column // 32
            lane = 4 * (row % 8) + column % 16 // 4
            byte = 8 * (column % 32 // 16) + 4 * (row % 16 // 8) + column % 4
            packed[512 * block + 16 * lane + byte] |= values[row][column] << 4 * (row % 32 // 16)
    return torch.tensor(packed, dtype=torch.uint8).view(torch.int8).view(rows, columns // 2)


def pack_groups(parameters: Tensor) -> Tensor:
    """Integers ``[rows, groups]`` to int8 ``[groups, rows]``, of which the lowest eight bits count."""
    rows, groups = parameters.shape
    packed = torch.zeros(groups, rows, dtype=torch.int8)
    for row in range(rows):
        place = row // 32 * 32 + row % 8 * 4 + row % 32 // 8
        for group in range(groups):
            value = int(parameters[row, group]) % 256
            packed[group, place] = value if value < 128 else value - 256
    return packed


@dataclass
class QServeMatrix:
    """QServe's tensors of a matrix, by the ends of their names, and the numbers that they stand for.

    Attributes
    ----------
    integers : int64 ``[rows, columns]``, what the matrix instruction multiplies.
    weight : float32 ``[rows, columns]``.
    """

    tensors: dict[str, Tensor]
    integers: Tensor
    weight: Tensor


def random_groups(rows: int, columns: int) -> QServeMatrix:
    """Groups of 128, with zeros up to all that the quantizer gives, most of which are over a signed byte."""
    groups = columns // 128
    scales = torch.randint(1, 18, (rows, groups))
    spread = (254 // scales).clamp(max=15)
    least = (torch.rand(rows, groups) * (16 - spread)).long()
    most = least + spread
    codes = least[..., None] + (torch.rand(rows, groups, 128) * (spread + 1)[..., None]).long()
    # No integer is over 127 or below -127.
    lowest, highest = most * scales - 127, least * scales + 127
    zeros = lowest + (torch.rand(rows, groups) * (highest - lowest + 1)).long()
    integers = (codes * scales[..., None] - zeros[..., None]).view(rows, columns)
    s1_scales = (torch.rand(rows) / 50 * columns**-0.5).half()
    tensors = {
        "qweight": pack_codes(codes.view(rows, columns)),
        "s1_scales": s1_scales,
        "s2_scales": pack_groups(scales),
        "s2_zeros": pack_groups(-zeros),
    }
    return QServeMatrix(tensors, integers, integers * s1_scales.float()[:, None])


def random_channels(rows: int, columns: int) -> QServeMatrix:
    codes = torch.randint(16, (rows, columns))
    scales = (torch.rand(rows) / 4 * columns**-0.5).half()
    zeros = torch.randint(16, (rows,)).half() * scales
    tensors = {"qweight": pack_codes(codes), "s1_scales": scales, "s1_szeros": zeros}
    return QServeMatrix(tensors, codes, codes * scales.float()[:, None] - zeros.float()[:, None])


def qserve_llama(directory: Path, is_grouped: bool) -> tuple[dict[str, Tensor], dict[str, QServeMatrix]]:
    """Write what is not weights, and return the tensors to save and the matrices by their names."""
    directory.mkdir(parents=True)
    hidden, intermediate, kv, vocab_size = 128, 256, 64, write_tokenizer(directory)
    LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=False,
        dtype="bfloat16",
    ).save_pretrained(directory)
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (kv, hidden),
        "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (intermediate, hidden),
        "mlp.up_proj": (intermediate, hidden),
        "mlp.down_proj": (hidden, intermediate),
    }
    tensors = {
        "model.embed_tokens.weight": torch.randn(vocab_size, hidden).half(),
        "lm_head.weight": (torch.randn(vocab_size, hidden) * hidden**-0.5).half(),
    }
    matrices: dict[str, QServeMatrix] = {}
    for layer in range(2):
        for name, shape in shapes.items():
            matrix = random_groups(*shape) if is_grouped else random_channels(*shape)
            matrices[f"model.layers.{layer}.{name}"] = matrix
            tensors |= {f"model.layers.{layer}.{name}.{part}": it for part, it in matrix.tensors.items()}
    return tensors, matrices


def with_norms(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Norm weights of 1, as some converters write them."""
    names = [f"model.layers.{layer}.{norm}" for layer in range(2) for norm in NORMS]
    return tensors | {f"{name}.weight": torch.ones(128).half() for name in [*names, "model.norm"]}


def write_safetensors(tensors: dict[str, Tensor], directory: Path) -> None:
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
