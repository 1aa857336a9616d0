"""Checkpoints made from others, so that what is measured on them is known or can be computed otherwise."""

import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor


def with_weights(source: Path, directory: Path, change: Callable[[str, Tensor], Tensor]) -> Path:
    """A copy of ``source`` in which each tensor is what ``change`` makes of its name and value."""
    shutil.copytree(source, directory)
    file = directory / "model.safetensors"
    tensors = {name: change(name, tensor) for name, tensor in load_file(file).items()}
    file.unlink()  # it may share its contents with the original
    save_file(tensors, file, metadata={"format": "pt"})
    return directory


def rounded(source: Path, directory: Path, bits: int) -> Path:
    """The matrices of the layers rounded to nearest, one scale per output channel."""

    def change(name: str, tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or "layers" not in name:
            return tensor
        scale = tensor.float().abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        return ((tensor / scale).round() * scale).to(tensor.dtype)

    return with_weights(source, directory, change)


def indifferent(source: Path, directory: Path) -> Path:
    """Every token is as likely as any other."""
    return with_weights(
        source, directory, lambda name, tensor: tensor * 0 if name == "lm_head.weight" else tensor
    )
