"""Reads tensors of a safetensors checkpoint one at a time, checking each, with one tensor in memory at most."""

import logging
from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lapidist.models.config_fields import ConfigFields
from lapidist.models.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Old checkpoints carry tables that every program recomputes.
_HARMLESS = ("rotary_emb.inv_freq", "self_attn.bias", "self_attn.masked_bias")

_log = logging.getLogger(__name__)


class WeightFiles:
    """The tensors of a checkpoint directory, in one file or in shards.

    Raises
    ------
    CheckpointError : there are no safetensors files, a shard is missing, or a file is truncated or corrupt.
    """

    def __init__(self, directory: Path) -> None:
        self._read: set[str] = set()
        if (directory / INDEX_FILE).exists():
            self._files = _indexed(directory)
        else:
            self._files = dict.fromkeys(_keys(_single_file(directory)), directory / SINGLE_FILE)

    def __contains__(self, name: str) -> bool:
        return name in self._files

    def read(self, name: str, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        """The tensor ``name``, converted to ``dtype``.

        Raises
        ------
        CheckpointError : it is missing, has another shape or a dtype that is no float, or holds NaN or infinity.
        """
        return self.read_stacked([(name, shape)], dtype, device)

    def read_stacked(
        self, parts: list[tuple[str, tuple[int, ...]]], dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """Tensors that differ in their first dimension, stacked along it; each part is a name and its shape.

        Raises
        ------
        CheckpointError : as in ``read``.
        """
        rows = sum(shape[0] for _, shape in parts)
        stacked = torch.empty(rows, *parts[0][1][1:], dtype=dtype, device=device)
        start = 0
        for name, shape in parts:
            target = stacked[start : start + shape[0]]
            target.copy_(self.mapped(name, shape))
            self.check_finite(name, target)
            start += shape[0]
        return stacked

    def mapped(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor as it lies in its file, mapped: a page takes memory while it is in use. Values unchecked.

        Raises
        ------
        CheckpointError : as in ``read``.
        """
        if name not in self._files:
            raise CheckpointError(f"{self._sources()} has no tensor {name}: the checkpoint is incomplete")
        file = self._files[name]
        tensor = _tensor(file, name)
        if tuple(tensor.shape) != shape:
            raise CheckpointError(
                f"{file}: {name} has shape {list(tensor.shape)} where config.json asks for {list(shape)}: "
                "the two do not belong together"
            )
        if tensor.dtype not in _FLOATS:
            raise CheckpointError(
                f"{file}: {name} has dtype {str(tensor.dtype).removeprefix('torch.')}, which is not supported: "
                "convert the checkpoint to bfloat16, float16 or float32"
            )
        self._read.add(name)
        return tensor

    def warn_of_unread(self, expected: Collection[str] = ()) -> None:
        """Log the tensors that nobody read, except ``expected`` ones: the model may not be what its name says."""
        unread = sorted(
            name for name in self._files.keys() - self._read - set(expected) if not name.endswith(_HARMLESS)
        )
        if unread:
            _log.warning("%s: %d tensors are not used, the first is %s", self._sources(), len(unread), unread[0])

    def check_finite(self, name: str, values: Tensor) -> None:
        # The extremes are NaN if any value is.
        if values.numel() == 0 or torch.stack(values.aminmax()).isfinite().all():
            return
        original = self.mapped(name, tuple(values.shape))
        if torch.stack(original.aminmax()).isfinite().all():
            raise CheckpointError(
                f"{self._files[name]}: {name} has values too large for {str(values.dtype).removeprefix('torch.')}: "
                "load the model with dtype bfloat16 or float32"
            )
        raise CheckpointError(
            f"{self._files[name]}: {name} contains NaN or infinity: the file is damaged, download it again"
        )

    def _sources(self) -> str:
        files = sorted({str(file) for file in self._files.values()})
        return files[0] if len(files) == 1 else f"{Path(files[0]).parent}"


def _single_file(directory: Path) -> Path:
    file = directory / SINGLE_FILE
    if file.exists():
        return file
    others = sorted(directory.glob("pytorch_model*.bin"))
    if others:
        raise CheckpointError(
            f"{directory} has {others[0].name} but no {SINGLE_FILE}: convert the weights to safetensors, "
            "for instance with transformers' save_pretrained"
        )
    raise CheckpointError(f"{directory} has neither {SINGLE_FILE} nor {INDEX_FILE}: the weights are missing")


def _indexed(directory: Path) -> dict[str, Path]:
    """Which file holds each tensor; every file named must be there and hold what the index says."""
    index = ConfigFields.read(directory / INDEX_FILE)
    names = index.section("weight_map").strings()
    if not names:
        raise index.error("weight_map", "is missing or empty: download the file again")
    present = {}
    for shard in sorted(set(names.values())):
        if Path(shard).name != shard:
            raise index.error("weight_map", f"names {shard!r}, which is not a file of this directory")
        if not (directory / shard).is_file():
            raise CheckpointError(f"{directory / shard} is missing, but {INDEX_FILE} names it: download the shard")
        present[shard] = _keys(directory / shard)
    for name, shard in names.items():
        if name not in present[shard]:
            raise CheckpointError(f"{directory / shard} has no tensor {name}, but {INDEX_FILE} says so: download both")
    return {name: directory / shard for name, shard in names.items()}


def _keys(file: Path) -> set[str]:
    try:
        with safe_open(file, "pt") as opened:
            return set(opened.keys())
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _tensor(file: Path, name: str) -> Tensor:
    # The file is opened for each tensor: pages that were read belong to the process for as long as it is open.
    try:
        with safe_open(file, "pt") as opened:
            return opened.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{file} is truncated or not a safetensors file ({error}): download it again")
