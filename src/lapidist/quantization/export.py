"""A quantized checkpoint as one of floats, which other programs read."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lapidist.models.checkpoint_tensors import TensorSpec, model_tensors, stored_format
from lapidist.models.config import CONFIG_FILE, DTYPES, ModelConfig
from lapidist.models.errors import CheckpointError
from lapidist.models.json_file import read_json_object, write_json
from lapidist.models.new_checkpoint import copy_companions, new_checkpoint
from lapidist.models.quantized_tensors import read_quantized
from lapidist.models.safetensors_shards import assign_shards, write_shards
from lapidist.models.softmax_config import QUANT_METHOD, SECTION
from lapidist.models.weights import WeightFiles, is_finite

_BLOCK_ELEMENTS = 1 << 24  # turned into floats at a time


def export_checkpoint(
    source: Path,
    out: Path,
    dtype: str = "bfloat16",
    max_shard_bytes: int = 5_000_000_000,
    progress: Callable[[int, int], None] = lambda written_bytes, total_bytes: None,
) -> int:
    """Write the numbers that the weights of a quantized checkpoint stand for, as a plain Hugging Face directory.

    It is what weights alone do to the model: activations and the KV cache are not rounded by who computes it in floats.
    One tensor is in memory at a time.

    Parameters
    ----------
    out : directory that is made; it appears complete or not at all.
    dtype : float32, bfloat16 or float16.
    max_shard_bytes : tensors of one file, unless a single one is larger.
    progress : called with the bytes written so far and in all.

    Returns
    -------
    Bytes of all tensors.

    Raises
    ------
    CheckpointError : ``source`` is not quantized or cannot be used, ``dtype`` is unknown or too narrow for it, or
        ``out`` exists or cannot be written.
    """
    if dtype not in DTYPES:
        raise CheckpointError(f"dtype must be {', '.join(DTYPES)}, got {dtype!r}")
    config = ModelConfig.from_directory(source)
    if config.quantization is None:
        raise CheckpointError(f"{source} is not quantized: there is nothing to turn into floats")
    files = WeightFiles(source)
    shards = assign_shards(list(model_tensors(config)), DTYPES[dtype], max_shard_bytes)
    total_bytes = sum(shard.byte_count for shard in shards)
    with new_checkpoint(out) as folder:
        values = partial(_values, files, config, DTYPES[dtype])
        written_bytes = 0
        for block_bytes in write_shards(folder, shards, values):
            written_bytes += block_bytes
            progress(written_bytes, total_bytes)
        write_json(folder / CONFIG_FILE, _plain_config(read_json_object(source / CONFIG_FILE), dtype))
        copy_companions(source, folder)
    return total_bytes


def _values(
    files: WeightFiles, config: ModelConfig, dtype: torch.dtype, tensor: TensorSpec
) -> Iterator[Tensor]:
    """A tensor's elements in order, in 1-D blocks of ``dtype``."""
    for block in _float_blocks(files, config, tensor):
        converted = block.to(dtype)
        if not is_finite(converted):
            name = str(dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{tensor.name} has values too large for {name}: export to bfloat16 or float32"
            )
        yield converted


def _float_blocks(files: WeightFiles, config: ModelConfig, tensor: TensorSpec) -> Iterator[Tensor]:
    format = stored_format(config, tensor)
    if format.is_float:
        yield from files.mapped((tensor.name, tensor.shape)).flatten().split(_BLOCK_ELEMENTS)
        return
    rows, columns = tensor.shape
    weight = read_quantized(files, [(tensor.name.removesuffix(".weight"), rows)], columns, format)
    step = max(1, _BLOCK_ELEMENTS // columns)
    for piece in weight.split([min(step, rows - start) for start in range(0, rows, step)]):
        yield piece.dequantize().flatten()


def _plain_config(config: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A ``config.json`` without formats. The softmax of attention does not depend on them and stays."""
    quantization = config.pop("quantization_config")
    if SECTION in quantization:
        config["quantization_config"] = {"quant_method": QUANT_METHOD, SECTION: quantization[SECTION]}
    config["dtype" if "dtype" in config else "torch_dtype"] = dtype
    return config
