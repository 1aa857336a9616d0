"""Sharded safetensors files written as a stream: no tensor is ever whole in memory.

Format (huggingface/safetensors): 8 bytes with the length of the header, the header as JSON padded with spaces
to a multiple of 8, then the tensors back to back in the header's order.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lapidist.models.checkpoint_tensors import TensorSpec

_DTYPE_NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}


@dataclass(frozen=True)
class Shard:
    """The tensors of one file."""

    file_name: str
    dtype: torch.dtype
    tensors: tuple[TensorSpec, ...]

    @property
    def byte_count(self) -> int:
        return sum(tensor.elements for tensor in self.tensors) * self.dtype.itemsize


def assign_shards(tensors: list[TensorSpec], dtype: torch.dtype, max_shard_bytes: int) -> list[Shard]:
    """Fill files in order up to ``max_shard_bytes``; a tensor larger than that has a file of its own."""
    files: list[list[TensorSpec]] = [[]]
    filled_bytes = 0
    for tensor in tensors:
        tensor_bytes = tensor.elements * dtype.itemsize
        if files[-1] and filled_bytes + tensor_bytes > max_shard_bytes:
            files.append([])
            filled_bytes = 0
        files[-1].append(tensor)
        filled_bytes += tensor_bytes
    return [
        Shard(_file_name(number, len(files)), dtype, tuple(held))
        for number, held in enumerate(files, start=1)
    ]


def _file_name(number: int, files: int) -> str:
    return "model.safetensors" if files == 1 else f"model-{number:05d}-of-{files:05d}.safetensors"


def shard_index(shards: list[Shard]) -> dict[str, Any]:
    """The content of ``model.safetensors.index.json``."""
    return {
        "metadata": {"total_size": sum(shard.byte_count for shard in shards)},
        "weight_map": {tensor.name: shard.file_name for shard in shards for tensor in shard.tensors},
    }


def write_shard(
    path: Path, shard: Shard, values: Callable[[TensorSpec], Iterator[torch.Tensor]]
) -> Iterator[int]:
    """Write one file and yield the bytes of each block written.

    Parameters
    ----------
    values : from a tensor to its elements in row-major order, in 1-D blocks of any dtype.
    """
    header = _header(shard)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in shard.tensors:
            for block in values(tensor):
                yield file.write(block.to(shard.dtype).view(torch.uint8).numpy().data)


def _header(shard: Shard) -> bytes:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for tensor in shard.tensors:
        end = start + tensor.elements * shard.dtype.itemsize
        header[tensor.name] = {
            "dtype": _DTYPE_NAMES[shard.dtype],
            "shape": tensor.shape,
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return encoded + b" " * (-len(encoded) % 8)
