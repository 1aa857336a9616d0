"""Reads checkpoints in PyTorch's own files, ``.bin`` and ``.pt``, without running what is pickled in them."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor

from lapidist.models.errors import CheckpointError
from lapidist.models.weights import WeightFiles

# What trainers leave beside a model.
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "scaler.pt")


class PickledWeightFiles(WeightFiles):
    """The tensors of a checkpoint directory that has no safetensors files.

    Raises
    ------
    CheckpointError : there are no such files either, or one is truncated or holds more than tensors.
    """

    def _locate(self) -> dict[str, Path]:
        self._loaded: dict[str, Tensor] = {}
        located: dict[str, Path] = {}
        for file in sorted([*self._directory.glob("*.bin"), *self._directory.glob("*.pt")]):
            if file.name not in _NOT_WEIGHTS:
                tensors = _load(file)
                self._loaded |= tensors
                located |= dict.fromkeys(tensors, file)
        if not located:
            raise CheckpointError(
                f"{self._directory} has no .safetensors, .bin or .pt file with tensors: the weights are missing"
            )
        return located

    def _tensor(self, name: str) -> Tensor:
        return self._loaded[name]


def _load(file: Path) -> dict[str, Tensor]:
    try:
        # Only the present format, an archive, can be mapped.
        loaded = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # PyTorch's unpickler stumbles over damaged bytes in any way there is
        reason = str(error).partition("\n")[0]
        raise CheckpointError(
            f"{file} is truncated or not a file of tensors ({reason}): download it again"
        ) from None
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{file} holds {type(loaded).__name__} where tensors by their names are expected"
        )
    return {name: value for name, value in loaded.items() if isinstance(value, Tensor)}
