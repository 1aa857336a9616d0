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
from lapidist.models.json_file import write_json
from lapidist.models.safetensors_header import DTYPE_NAMES
from lapidist.models.weights import INDEX_FILE


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
        Shard(shard_file_name(number, len(files)), dtype, tuple(held))
        for number, held in enumerate(files, start=1)
    ]


def shard_file_name(number: int, files: int) -> str:
    """Of file ``number``, from 1, out of so many."""
    return "model.safetensors" if files == 1 else f"model-{number:05d}-of-{files:05d}.safetensors"


def _shard_index(shards: list[Shard]) -> dict[str, Any]:
    """The content of ``model.safetensors.index.json``."""
    return {
        "metadata": {"total_size": sum(shard.byte_count for shard in shards)},
        "weight_map": {tensor.name: shard.file_name for shard in shards for tensor in shard.tensors},
    }


def write_shards(
    folder: Path, shards: list[Shard], values: Callable[[TensorSpec], Iterator[torch.Tensor]]
) -> Iterator[int]:
    """Write all files, and their index if they are several; yield the bytes of each block written.

    Parameters
    ----------
    values : from a tensor to its elements in row-major order, in 1-D blocks of any dtype.
    """
    for shard in shards:
        yield from _write_shard(folder / shard.file_name, shard, values)
    if len(shards) > 1:
        write_json(folder / INDEX_FILE, _shard_index(shards))


def _write_shard(
    path: Path, shard: Shard, values: Callable[[TensorSpec], Iterator[torch.Tensor]]
) -> Iterator[int]:
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
            "dtype": DTYPE_NAMES[shard.dtype],
            "shape": tensor.shape,
            "data_offsets": [start, end],
        }
        start = end
    encoded = json.dumps(header, separators=(",", ":")).encode()
    return encoded + b" " * (-len(encoded) % 8)
