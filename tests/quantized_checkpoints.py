"""Quantized checkpoints of random codes, made of float ones. Nothing is rounded: the codes are what the weights are."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from lapidist.kernels.quantized_weight import QuantizedWeight, pack_nibbles
from lapidist.models.quantization_config import FLOAT, QuantizationConfig, WeightFormat, quantization_section
from lapidist.models.quantized_tensors import tensors_of

GROUPS = WeightFormat(4, 128)
CHANNELS = WeightFormat(4)
EIGHT_BITS = WeightFormat(8)


def formats(weights: WeightFormat, lm_head: WeightFormat = FLOAT, **bits: int) -> QuantizationConfig:
    return QuantizationConfig("random", weights, lm_head, **bits)


def random_weight(rows: int, columns: int, format: WeightFormat) -> QuantizedWeight:
    """Any codes and parameters that the form allows; the weights have about the spread of a new model's."""
    scales = torch.rand(rows) + 0.5
    if format.bits == 8:
        codes = torch.randint(-127, 128, (rows, columns), dtype=torch.int8)
        return QuantizedWeight(8, columns, codes, (scales / 73 * columns**-0.5).half())
    codes = pack_nibbles(torch.randint(16, (rows, columns), dtype=torch.uint8))
    if format.group_size is None:
        scales = scales / 4.6 * columns**-0.5
        return QuantizedWeight(4, columns, codes, scales.half(), (scales * 15 * torch.rand(rows)).half())
    groups = (rows, -(-columns // format.group_size))
    group_scales = torch.randint(1, 17, groups)
    # So that no code gives an integer over 127 or below -128.
    least = (15 * group_scales - 127).clamp(min=-128)
    group_zeros = least + (torch.rand(groups) * (128 - least)).long()
    return QuantizedWeight(
        4,
        columns,
        codes,
        (scales / 60 * columns**-0.5).half(),
        group_scales=group_scales.to(torch.uint8),
        group_zeros=group_zeros.to(torch.int8),
    )


def quantize_at_random(
    directory: Path, out: Path, quantization: QuantizationConfig
) -> dict[str, QuantizedWeight]:
    """Copy a checkpoint of one file with other matrices; returns those by their names."""
    shutil.copytree(directory, out)
    tensors = load_file(directory / "model.safetensors")
    weights: dict[str, QuantizedWeight] = {}
    for name, tensor in list(tensors.items()):
        format = quantization.lm_head if name == "lm_head.weight" else quantization.weights
        if tensor.dim() == 2 and "embed" not in name and not format.is_float:
            weights[name] = random_weight(*tensor.shape, format)
            del tensors[name]
            tensors |= tensors_of(name.removesuffix(".weight"), weights[name])
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    edit_config(out, quantization_config=quantization_section(quantization))
    return weights


def edit_config(directory: Path, **changes: object) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def edit_tensors(directory: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a checkpoint of one file, or take them out (None)."""
    file = directory / "model.safetensors"
    tensors = load_file(file) | changes
    save_file(
        {name: tensor for name, tensor in tensors.items() if tensor is not None}, file, {"format": "pt"}
    )
