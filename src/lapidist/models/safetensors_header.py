"""What a safetensors file says of its tensors, none of which is read."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch

DTYPE_NAMES = {
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float32: "F32",
    torch.uint8: "U8",
    torch.int8: "I8",
}
"""How the format calls the dtypes that we write."""


@dataclass(frozen=True)
class TensorHeader:
    """One tensor. ``dtype`` is the format's name, for there are more than PyTorch has."""

    dtype: str
    shape: tuple[int, ...]
    byte_count: int


def read_header(file: Path) -> dict[str, TensorHeader]:
    """The tensors of a file that ``WeightFiles`` has found to be sound, by their names."""
    with file.open("rb") as opened:
        header = json.loads(opened.read(int.from_bytes(opened.read(8), "little")))
    return {
        name: TensorHeader(entry["dtype"], tuple(entry["shape"]), end - start)
        for name, entry in header.items()
        if name != "__metadata__"
        for start, end in [entry["data_offsets"]]
    }
